"""Whether a pod's tolerations cover a taint. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from api.models import core_v1
from scheduler.framework.node_facts import Taint, TaintSet

NO_SCHEDULE = "NoSchedule"
NO_EXECUTE = "NoExecute"
PREFER_NO_SCHEDULE = "PreferNoSchedule"


def tolerates(toleration: core_v1.Toleration, taint: Taint) -> bool:
    key, value, effect = taint
    if toleration.effect and toleration.effect != effect:
        return False
    operator = toleration.operator or "Equal"
    if toleration.key and toleration.key != key:
        return False
    if operator == "Exists":
        return True
    # Without a key only Exists means anything; an operator that is not known tolerates nothing.
    return operator == "Equal" and bool(toleration.key) and (toleration.value or "") == value


def is_tolerated(tolerations: Iterable[core_v1.Toleration], taint: Taint) -> bool:
    return any(tolerates(toleration, taint) for toleration in tolerations)


def keeps_out(tolerations: Iterable[core_v1.Toleration], taints: TaintSet) -> bool:
    """Whether a NoSchedule or NoExecute taint is not tolerated."""
    listed = tuple(tolerations)
    return any(taint[2] in (NO_SCHEDULE, NO_EXECUTE) and not is_tolerated(listed, taint) for taint in taints)


def count_unwelcome(tolerations: Iterable[core_v1.Toleration], taints: TaintSet) -> int:
    """How many PreferNoSchedule taints are not tolerated."""
    listed = tuple(tolerations)
    return sum(taint[2] == PREFER_NO_SCHEDULE and not is_tolerated(listed, taint) for taint in taints)
