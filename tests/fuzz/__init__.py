"""Bad input on purpose: a real API server on a real etcd is sent mutated, malformed and odd requests.

Every request is made from a seed, so a finding can be made again: `python -m tests.fuzz --seed N --minutes 1`.
`bodies` and `inputs` make requests, `wire` sends them, `target` is the server, `run` judges the answers.
"""
