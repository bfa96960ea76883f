"""Priority and fairness: which request runs, which waits, which is turned away (flowcontrol.apiserver.k8s.io/v1).

`defaults` are the objects that every cluster has, `matching` says which schema a request belongs to, `level` is one
priority level with its seats and queues, `control` is what the REST door asks, `feed` follows the objects and tells
whose priority level is missing.
"""
