"""Pods that are waiting for room: which ones count, and which of them are alike. Pure."""
# mypy: disable-error-code="union-attr"

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from api.models import core_v1
from cluster_autoscaler import node_facts as facts
from scheduler.framework.framework import Framework
from scheduler.framework.pod_info import PodInfo


@dataclass(slots=True)
class PodGroup:
    """Pods of one controller and one shape; the first stands for all."""

    pods: list[PodInfo] = field(default_factory=list)

    @property
    def sample(self) -> PodInfo:
        return self.pods[0]

    @property
    def owner(self) -> str:
        kind, name = self.sample.owner
        return f"{kind}/{name}" if kind else f"Pod/{self.sample.name}"


def is_unschedulable(pod: core_v1.Pod) -> bool:
    """Whether a scheduler looked for a node and found none."""
    conditions: Iterable[core_v1.PodCondition] = (pod.status.conditions if pod.status is not None else None) or ()
    return any(
        each.type == "PodScheduled" and each.status == "False" and each.reason == "Unschedulable" for each in conditions
    )


def is_waiting(pod: core_v1.Pod, cutoff: int, oldest: datetime | None = None) -> bool:
    """Whether the pod wants a node that the autoscaler should care for: nodes of DaemonSets' pods are given, and pods
    below the cutoff of priority run only where room is left over. `oldest`: younger ones are left out."""
    spec = pod.spec
    if spec is None or spec.nodeName or pod.metadata.deletionTimestamp is not None or not is_unschedulable(pod):
        return False
    if facts.is_daemon(pod) or (spec.priority or 0) < cutoff:
        return False
    created = facts.created(pod)
    return oldest is None or created is None or created <= oldest


def grouped(framework: Framework, infos: Iterable[PodInfo]) -> list[PodGroup]:
    """Equivalence groups: the same controller and the same answers from every filter."""
    found: dict[tuple[object, ...], PodGroup] = {}
    for info in infos:
        owner = info.owner if info.owner[0] else (info.uid, "")
        key = (info.namespace, owner, info.class_key, framework.signature(info))
        found.setdefault(key, PodGroup()).pods.append(info)
    return list(found.values())
