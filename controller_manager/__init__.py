"""The controllers of the cluster: loops that move what is towards what is wanted.

Owns: one module or folder per controller, each a small reconciler around pure `plan_*` functions, and the table in
app.py that names them. Never: talks to etcd, a node or another component; keeps state that a restart would lose.
Talks to: the API server, through `client`.

A new controller is one module with `build(env)` and one line in app.CONTROLLERS.
"""
