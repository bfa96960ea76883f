"""Recorded clusters, on which the scheduler must agree with a plain reading of the plugins' formulas.

record.py   what decides about placement, of a running cluster, as a file
shapes.py   clusters of different character, as objects to create
make.py     brings clusters of these shapes up, records each
recorded.py a file as typed objects
The files are in tests/data/clusters; tests/unit/scheduler/test_recorded_clusters.py replays them.
"""
