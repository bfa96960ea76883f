"""Nodes of NodePools that should not stay: which, why, when, and what comes instead.

    budgets.py        how many nodes of a pool may be disrupted at once, for which reason, at which times
    pods.py           what disruption asks about a pod;  blocking.py  pods that hold their node
    cost.py           what it costs the workloads when a node goes
    candidates.py     nodes that may be disrupted, and why others not
    consolidation.py  what a simulation means: fewer or cheaper nodes for the same pods;  prices.py  what is cheaper
    methods.py        emptiness, drift, multi-node and single-node consolidation: each proposes a command (commands.py)
    validation.py     whether a command still holds a while later
    queue.py          carries commands out: mark, launch, wait, delete; or back to what was
    drift.py          the hash of a template, and the kinds of drift
    upkeep.py         what claims tell of themselves: Consolidatable, Drifted; their expiry and interruption
    controller.py     the loop;  ports.py  what it needs of the rest;  memory.py, metrics.py  what it tells

Owns decisions that concern nodes which exist, and the taint karpenter.sh/disrupted while a command is under way. Never
drains a node or ends a machine: it deletes NodeClaims, whose termination belongs to the lifecycle of claims.
"""
