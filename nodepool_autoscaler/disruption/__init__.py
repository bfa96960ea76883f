"""Nodes of NodePools that should not stay: which, why, when, and what comes instead.

budgets.py        how many nodes of a pool may be disrupted at once, for which reason, at which times
blocking.py       pods and nodes that hold a node: do-not-disrupt, PodDisruptionBudgets, nominations
cost.py           what it costs the workloads when a node goes
drift.py          the hash of a template; nodes that are not what their pool asks for any more
candidates.py     nodes that a method may take, and why others not
consolidation.py  fewer or cheaper nodes for the same pods
methods.py        drift, emptiness, multi-node and single-node consolidation: each proposes a command
validation.py     whether a command still holds a while later
conditions.py     what claims tell of themselves: Consolidatable, Drifted; when they expire
queue.py          carries commands out: taint, launch, wait, delete; or back to what was
controller.py     the loop

Owns decisions that concern nodes which exist, and the taint karpenter.sh/disrupted while a command is under way.
Never drains or deletes a machine: it deletes NodeClaims, whose termination belongs to the lifecycle of claims.
"""
