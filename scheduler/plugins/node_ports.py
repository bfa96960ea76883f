"""NodePorts: two pods cannot take the same host port of one node."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from scheduler.framework.columns import BoolArray, IntArray
from scheduler.framework.events import Action, EventResource, Registration
from scheduler.framework.interface import PreFilterResult, Reads, Refusal
from scheduler.framework.pod_info import ANY_IP, HostPort, PodInfo
from scheduler.framework.snapshot import ClusterSnapshot

REASON = "node(s) didn't have free ports for the requested pod ports"


def _clash(one: HostPort, other: HostPort) -> bool:
    return one[0] == other[0] and one[2] == other[2] and (one[1] == other[1] or ANY_IP in (one[1], other[1]))


class NodePorts:
    """Filter."""

    name = "NodePorts"
    reads = Reads.PODS_OF_NODE

    def registrations(self) -> Sequence[Registration]:
        return (
            Registration(EventResource.ASSIGNED_POD, Action.DELETE, self._after_pod_deletion),
            Registration(EventResource.NODE, Action.ADD),
        )

    @staticmethod
    def _after_pod_deletion(pod: PodInfo, old: PodInfo | None, new: object) -> bool:
        return old is None or any(_clash(wanted, taken) for wanted in pod.host_ports for taken in old.host_ports)

    def sign(self, pod: PodInfo) -> Any:
        return pod.host_ports

    def pre_filter(self, pod: PodInfo, snapshot: ClusterSnapshot) -> PreFilterResult | None:
        return PreFilterResult(pod.host_ports) if pod.host_ports else None

    def filter(self, state: tuple[HostPort, ...], snapshot: ClusterSnapshot) -> BoolArray:
        mask = np.ones(snapshot.width, dtype=np.bool_)
        for port in state:
            taken = snapshot.columns_using(port)
            if taken:
                mask[list(taken)] = False
        return mask

    def filter_at(self, state: tuple[HostPort, ...], snapshot: ClusterSnapshot, column: int) -> bool:
        return not any(column in snapshot.columns_using(port) for port in state)

    def refusals(self, state: Any, snapshot: ClusterSnapshot, columns: IntArray) -> Iterable[Refusal]:
        yield Refusal(columns, (REASON,))
