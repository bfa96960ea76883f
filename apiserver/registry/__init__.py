"""Resources: what the two doors read and write.

Owns the generic create, update, patch, delete, list and watch (`store.Registry`, `ResourceStore`) and one strategy per
irregular kind. Never speaks HTTP or gRPC, never knows etcd. Talks to `apiserver.storage` below and is asked by
`apiserver.rest` and `apiserver.grpc`.
"""
