"""`nanokube`: bring clusters up and down, look at them, break them.

Owns the state folder of a cluster, the supervisor process and everything a user types. Talks to the supervisor over a
Unix socket, to the API server over gRPC, to the runtime for images. Sits on top of all components; nothing imports it.
"""
