"""Where objects live: the store behind a narrow door, and the watch cache in front of it.

Owns: keys, revisions, stored bytes, caches, watchers. Never: knows what an object means (defaults, validation,
deletion rules belong to `apiserver.registry`). Talks to: etcd v3 over gRPC; nothing else in the product knows etcd.
"""
