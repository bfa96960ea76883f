"""Endpoints of Services: which pods stand behind a Service, and on which ports.

pods.py    which pods count, how they look as endpoints, which Services a pod concerns
slices.py  EndpointSlices: plan (few writes, at most 100 endpoints each) and controller
legacy.py  core/v1 Endpoints, for those who still read them
"""
