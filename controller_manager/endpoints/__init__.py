"""Endpoints of Services: which pods stand behind a Service, and on which ports.

pods.py       which pods count, how they look as endpoints, which Services a pod concerns
slice_plan.py EndpointSlices: few writes, at most 100 endpoints each
hints.py      for which zones or nodes an endpoint is meant
slices.py     acts on these
mirroring.py  EndpointSlices of Endpoints that are written by hand
legacy.py     core/v1 Endpoints, for those who still read them
"""
