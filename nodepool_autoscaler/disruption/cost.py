"""What it costs the workloads when a node goes: candidates that cost least go first. Pure.

Source: karpenter.sh, "Consolidation" (fewer pods, soon expiring, lower priority first) and
controller.kubernetes.io/pod-deletion-cost; the weights are upstream's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from scheduler.framework.pod_info import PodInfo

DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
_COST_UNIT: Final = 2.0**27  # a deletion cost of 2^31 weighs as much as sixteen pods
_PRIORITY_UNIT: Final = 2.0**25
_LIMIT: Final = 10.0


def eviction_cost(pod: PodInfo) -> float:
    """1 for an ordinary pod; within -10…10."""
    cost = 1.0
    text = ((pod.pod.metadata.annotations if pod.pod.metadata is not None else None) or {}).get(DELETION_COST)
    if text is not None:
        try:
            wanted = float(text)
        except ValueError:
            wanted = 0.0  # the API server takes any text here
        cost += wanted / _COST_UNIT if math.isfinite(wanted) else 0.0
    return max(-_LIMIT, min(_LIMIT, cost + pod.priority / _PRIORITY_UNIT))


def lifetime_remaining(age: float, expire_after: float | None) -> float:
    """1 for a node just made or one that does not expire, 0 for one that has expired."""
    if expire_after is None:
        return 1.0
    if expire_after <= 0:
        return 0.0
    return max(0.0, min(1.0, 1.0 - age / expire_after))


def disruption_cost(pods: Iterable[PodInfo], age: float, expire_after: float | None) -> float:
    """Of all pods of a node, those of DaemonSets too."""
    return sum(map(eviction_cost, pods)) * lifetime_remaining(age, expire_after)
