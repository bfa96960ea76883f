"""Measurements of a running product, by one command: `./nanokube bench` (or `python -m bench NAME …`).

    start     warm `up --workers 3` to three Ready nodes; `up --only apiserver` to /readyz
    api       ConfigMap creates and GETs over REST with 32 clients (wrk), TLS, RBAC, etcd with fsync
    watch     50 watchers under creates: rate and delay of delivery
    pods      bound → Running with the image present; a Deployment of 30 pods on 3 nodes to Ready
    memory    proportional set size of control plane and worker, idle

Each prints what it measured beside the figure of the real control plane on the machine where that was taken; read them
as ratios. `--readme` writes the table into README.md. Nothing here is an assertion: tests never time anything.
"""
