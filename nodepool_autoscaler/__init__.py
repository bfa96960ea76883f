"""The node pool autoscaler: launches the cheapest machine that fits the pods that wait, by Karpenter's API.

Owns NodePools' and NodeClaims' lives (karpenter.sh/v1): which claims are made for which pods, their launch,
registration, initialisation and end. Never schedules a pod. Talks to the API server, and to a cloud behind a Protocol;
simulates with the scheduler's framework on a fork of a snapshot. Runs instead of the cluster autoscaler.

    names.py         labels, taints, annotations, condition types;  objects.py  the kinds as they are read and written
    requirements.py  what a label may be: sets and their intersections
    model.py         offerings, pools, claims, node states: what decisions are made from
    solver.py        where do these pods go, and what has to be launched for them: pure
"""
