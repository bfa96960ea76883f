"""Kubernetes types: typed objects, the table of resources, schema access, codec.

Owns nothing at run time; importing `api.models` costs about 10 MiB and 60 ms, once per process tree.
"""
