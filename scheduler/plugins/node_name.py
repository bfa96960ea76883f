"""NodeName: a pod that names its node fits no other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from scheduler.framework import node_facts
from scheduler.framework.columns import BoolArray, IntArray
from scheduler.framework.events import Action, EventResource, Registration
from scheduler.framework.interface import PreFilterResult, Reads, Refusal
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot

REASON = "node(s) didn't match the requested node name"


class NodeName:
    """Filter. The scheduler never sees such pods; simulations do."""

    name = "NodeName"
    reads = Reads.NODE

    def registrations(self) -> Sequence[Registration]:
        def hint(pod: PodInfo, old: object, new: Any) -> bool:
            return node_facts.name(new) == pod.node_name

        return (Registration(EventResource.NODE, Action.ADD, hint),)

    def sign(self, pod: PodInfo) -> Any:
        return pod.node_name

    def pre_filter(self, pod: PodInfo, snapshot: ClusterSnapshot) -> PreFilterResult | None:
        return PreFilterResult(pod.node_name) if pod.node_name else None

    def filter(self, state: str, snapshot: ClusterSnapshot) -> BoolArray:
        mask = np.zeros(snapshot.width, dtype=np.bool_)
        column = snapshot.column(state)
        if column is not None:
            mask[column] = True
        return mask

    def filter_at(self, state: str, snapshot: ClusterSnapshot, column: int) -> bool:
        return snapshot.column(state) == column

    def refusals(self, state: str, snapshot: ClusterSnapshot, columns: IntArray) -> Iterable[Refusal]:
        yield Refusal(columns, (REASON,), resolvable=False)
