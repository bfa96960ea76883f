"""Simulated days of traffic: the product's own decisions about replicas and machines, on time that is only counted.

`python -m tests.simulation` writes docs/simulation.md anew.
"""
