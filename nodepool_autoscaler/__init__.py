"""The node pool autoscaler: launches the cheapest machine that fits the pods that wait, by Karpenter's API.

Owns NodePools' and NodeClaims' lives (karpenter.sh/v1): which claims are made for which pods, their launch,
registration, initialisation and end. Never schedules a pod. Talks to the API server, and to a cloud behind a Protocol;
simulates with the scheduler's framework on a fork of a snapshot. Runs instead of the cluster autoscaler.

    names.py         labels, taints, annotations, condition types;  objects.py  the kinds as they are read
    definitions.py   the kinds as they are served;  conditions.py  how conditions are kept
    requirements.py  what a label may be: sets and their intersections
    model.py         offerings, pools, claims, node states: what decisions are made from
    solver.py        where do these pods go, what has to be launched for them: pure (shapes, claims, refusals)
    provider.py      where machines come from;  catalog.py  what may be launched now
    cluster.py       informers into one look at everything;  hands.py  claims, marks and words that are written
    provisioner.py   the loop: batcher.py, look, solve, create claims
    lifecycle.py     a claim from launch to its end;  termination.py  how its node is drained;  garbage.py  what is lost
    status.py        what pools and classes tell of themselves;  explain.py, metrics.py  what is told of decisions
    disruption/      nodes that should not stay: consolidation, drift, expiry, interruption
"""
