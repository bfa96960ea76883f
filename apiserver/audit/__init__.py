"""The audit log: who asked for what, and what became of it, as audit.k8s.io/v1 Events, one JSON line each.

`policy` decides how much is told of which request, `record` is one request on its way, `log` the rotating file,
`auditor` what the doors call. Nothing here answers requests or slows those that the policy does not name.
"""
