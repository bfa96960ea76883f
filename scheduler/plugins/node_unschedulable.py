"""NodeUnschedulable: cordoned nodes take only pods that tolerate it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from api.models import core_v1
from scheduler.framework import node_facts
from scheduler.framework.columns import BoolArray, IntArray
from scheduler.framework.events import Action, EventResource, Registration
from scheduler.framework.interface import PreFilterResult, Reads, Refusal
from scheduler.framework.node_facts import Taint
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.framework.tolerations import NO_SCHEDULE, is_tolerated

REASON = "node(s) were unschedulable"
TAINT: Taint = ("node.kubernetes.io/unschedulable", "", NO_SCHEDULE)


def _tolerated(pod: PodInfo) -> bool:
    return is_tolerated(pod.spec.tolerations or (), TAINT)


class NodeUnschedulable:
    """Filter."""

    name = "NodeUnschedulable"
    reads = Reads.NODE

    def registrations(self) -> Sequence[Registration]:
        return (
            Registration(EventResource.NODE, Action.ADD | Action.UPDATE_NODE_TAINT, self._after_node_change),
            Registration(EventResource.TARGET_POD, Action.UPDATE_POD_TOLERATION),
        )

    @staticmethod
    def _after_node_change(pod: PodInfo, old: core_v1.Node | None, new: core_v1.Node) -> bool:
        return not node_facts.unschedulable(new) and (old is None or node_facts.unschedulable(old))

    def sign(self, pod: PodInfo) -> Any:
        return _tolerated(pod)

    def pre_filter(self, pod: PodInfo, snapshot: ClusterSnapshot) -> PreFilterResult | None:
        return None if _tolerated(pod) else PreFilterResult()

    def filter(self, state: Any, snapshot: ClusterSnapshot) -> BoolArray:
        return ~snapshot.unschedulable[: snapshot.width]

    def filter_at(self, state: Any, snapshot: ClusterSnapshot, column: int) -> bool:
        return not snapshot.unschedulable[column]

    def refusals(self, state: Any, snapshot: ClusterSnapshot, columns: IntArray) -> Iterable[Refusal]:
        yield Refusal(columns, (REASON,), resolvable=False)
