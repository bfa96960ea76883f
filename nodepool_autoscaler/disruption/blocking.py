"""Pods that hold their node: protected ones, and those that a PodDisruptionBudget keeps from being evicted. Pure.

Source: karpenter.sh, "Disruption"; the messages are upstream's. A budget blocks while it allows no disruption at all;
a pod under two budgets can never be evicted (upstream's eviction API refuses it).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from api.models import policy_v1
from machinery.selectors import LabelSelector
from nodepool_autoscaler.disruption.pods import Elapsed, active, evictable, protected
from nodepool_autoscaler.names import DO_NOT_DISRUPT
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.pod_terms import selector_of


@dataclass(frozen=True, slots=True)
class PodBudget:
    """What matters of a PodDisruptionBudget. `spares_unhealthy`: it never holds pods that are not ready.
    `never`: by what it asks for, no disruption will ever be allowed."""

    namespace: str
    name: str
    selector: LabelSelector
    allowed: int
    spares_unhealthy: bool = False
    never: bool = False

    @classmethod
    def of(cls, budget: policy_v1.PodDisruptionBudget) -> PodBudget:
        """Of a policy/v1 object."""
        metadata, spec, status = budget.metadata, budget.spec, budget.status
        never = spec is not None and (str(spec.maxUnavailable) in ("0", "0%") or str(spec.minAvailable) == "100%")
        return cls(
            (metadata.namespace if metadata is not None else None) or "",
            (metadata.name if metadata is not None else None) or "",
            selector_of(spec.selector if spec is not None else None),
            (status.disruptionsAllowed if status is not None else 0) or 0,
            spec is not None and spec.unhealthyPodEvictionPolicy == "AlwaysAllow",
            never,
        )

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    def covers(self, pod: PodInfo) -> bool:
        return pod.namespace == self.namespace and self.selector.matches(pod.labels)


def _unready(pod: PodInfo) -> bool:
    conditions = (pod.pod.status.conditions if pod.pod.status is not None else None) or ()
    return any(each.type == "Ready" and each.status == "False" for each in conditions)


def held_by(pod: PodInfo, budgets: Iterable[PodBudget], elapsed: Elapsed, *, forever: bool = False) -> list[str]:
    """Keys of the budgets that keep the pod from being evicted now (`forever`: at any time); none when it can go."""
    if not evictable(pod, elapsed):
        return []
    covering = [each for each in budgets if each.covers(pod)]
    if len(covering) > 1:
        return [each.key for each in covering]
    return [
        each.key
        for each in covering
        if not (each.spares_unhealthy and _unready(pod)) and (each.never if forever else each.allowed == 0)
    ]


def blocking(pods: Sequence[PodInfo], budgets: Sequence[PodBudget], elapsed: Elapsed) -> str:
    """Why the pods of a node forbid to disrupt it, in upstream's words; "" when they do not. Pods of DaemonSets and
    static pods count too."""
    for pod in pods:
        if active(pod) and protected(pod, elapsed):
            return f'pod has "{DO_NOT_DISRUPT}" annotation (Pod={pod.key})'
    for pod in pods:
        keys = held_by(pod, budgets, elapsed)
        if len(keys) > 1:
            return f"eviction does not support multiple PDBs (PodDisruptionBudget(s)=[{' '.join(keys)}])"
        if keys:
            return f"pdb prevents pod evictions (PodDisruptionBudget=[{keys[0]}])"
    return ""
