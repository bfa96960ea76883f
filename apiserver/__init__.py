"""The API server: every request enters here, every state lives behind it.

Owns both doors (REST over TLS, gRPC over mTLS), who may do what, defaulting, validation, admission, and the only way to
etcd. Never imports `client` and never decides what should run. Talks to etcd, and to kubelets for logs and exec.

    rest/ grpc/    thin doors over one registry
    auth/          who, and whether
    admission/     what is added and refused between defaulting and validation
    registry/      create, read, update, delete, watch: generic, with one strategy per irregular kind
    storage/       etcd, and the watch cache that reads are served from
    assembly.py    puts them together; app.py is the process
"""
