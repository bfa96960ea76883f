"""The filters of one pod asked about single nodes, on a snapshot that a simulation may have changed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from scheduler.framework.interface import FilterPlugin, Reads, Refusal
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot

Active = Sequence[tuple[FilterPlugin, Any]]


def active_filters(filters: Iterable[FilterPlugin], pod: PodInfo, snapshot: ClusterSnapshot) -> Active:
    """Filters with something to ask about the pod, with their state."""
    results = ((plugin, plugin.pre_filter(pod, snapshot)) for plugin in filters)
    return [(plugin, result.state) for plugin, result in results if result is not None]


class NodeCheck:
    """`ahead`: nominated pods by node that the pod must leave room for. A node must fit with them, and without them
    too: the pod may need one of them near, and they may never come."""

    def __init__(
        self,
        filters: Sequence[FilterPlugin],
        pod: PodInfo,
        snapshot: ClusterSnapshot,
        ahead: Mapping[str, Sequence[PodInfo]],
    ) -> None:
        self._filters = filters
        self._pod = pod
        self._snapshot = snapshot
        self._ahead = ahead
        self.active = active_filters(filters, pod, snapshot)
        # What only reads the node's own facts is not changed by moving pods.
        self.moving = [each for each in self.active if each[0].reads is not Reads.NODE]

    def is_promised(self, node: str) -> bool:
        """Whether the pod must leave room for others on that node."""
        return node in self._ahead

    def refused_by(self, column: int) -> tuple[FilterPlugin, Any] | None:
        """The first filter that does not let the pod on the node as it is."""
        for plugin, state in self.active:
            if not plugin.filter_at(state, self._snapshot, column):
                return plugin, state
        return None

    def fits(self, column: int) -> bool:
        """Whether filters that read pods pass, with nominated pods and without; the others are taken to pass."""
        if self._ahead and self.crowded_out(column) is not None:
            return False
        return all(plugin.filter_at(state, self._snapshot, column) for plugin, state in self.moving)

    def refusal(self, column: int) -> Refusal | None:
        """Why the node is refused; None when it fits."""
        crowded = self.crowded_out(column) if self._ahead else None
        return crowded if crowded is not None else self._told(self.refused_by(column), column)

    def crowded_out(self, column: int) -> Refusal | None:
        """Why the node is refused once its nominated pods are on it; None when it is not, or there are none."""
        snapshot = self._snapshot
        pods = self._ahead.get(snapshot.name_at(column))
        if not pods:
            return None
        snapshot.fork()
        try:
            for other in pods:
                snapshot.add_pod(other, snapshot.name_at(column))
            with_them = NodeCheck(self._filters, self._pod, snapshot, {})
            return with_them._told(with_them.refused_by(column), column)
        finally:
            snapshot.revert()

    def _told(self, refused: tuple[FilterPlugin, Any] | None, column: int) -> Refusal | None:
        if refused is None:
            return None
        plugin, state = refused
        columns = np.array([column])
        for each in plugin.refusals(state, self._snapshot, columns):
            return Refusal(columns, each.reasons, each.resolvable, plugin.name)
        return Refusal(columns, (), plugin=plugin.name)
