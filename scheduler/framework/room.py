"""Preemption where nothing but room decides: who must leave a node, by arithmetic instead of simulation.

Pure. Used by DefaultPreemption for pods that no filter but that of resources can turn away by other pods' doing: that
is nearly every pod, and a simulation of hundreds of nodes is what preemption costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from scheduler.framework import resources
from scheduler.framework.columns import IntArray
from scheduler.framework.interface import RoomFilterPlugin
from scheduler.framework.node_check import NodeCheck
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.preemption import Budget, Candidate, importance, split_by_budget
from scheduler.framework.snapshot import ClusterSnapshot, NodeRecord


class Room:
    """The preemptor's needs against nodes from which all less important pods are thought away."""

    def __init__(
        self, needs: Sequence[tuple[int, int, str]], priority: int, snapshot: ClusterSnapshot, freed: IntArray
    ) -> None:
        self._names = [name for _, _, name in needs if name != resources.PODS]
        self._priority = priority
        rows = [row for row, _, name in needs if name != resources.PODS]
        pods = [row for row, _, name in needs if name == resources.PODS]
        asked = {row: amount for row, amount, _ in needs}
        width = snapshot.width
        # What stays free beside the preemptor: a pod that needs no more than that may stay.
        self._left = [(snapshot.free[row, :width] + freed[row] - asked[row]) for row in rows]
        self._places = [(snapshot.free[row, :width] + freed[row] - asked[row]) for row in pods]

    @classmethod
    def of(cls, check: NodeCheck, pod: PodInfo, snapshot: ClusterSnapshot, freed: IntArray) -> Room | None:
        """None when more than room decides."""
        if len(check.moving) != 1:
            return None
        plugin, state = check.moving[0]
        if not isinstance(plugin, RoomFilterPlugin):
            return None
        needs = plugin.room_needed(state)
        return None if any(row < 0 for row, _, _ in needs) else cls(needs, pod.priority, snapshot, freed)

    def candidate(self, record: NodeRecord, budgets: Sequence[Budget]) -> Candidate:
        """Who must leave this node, which is known to fit without its less important pods."""
        lower = [each for each in record.by_importance() if each.priority < self._priority]
        left = [int(row[record.column]) for row in self._left]
        places = [int(row[record.column]) for row in self._places]
        if not budgets:
            return Candidate(record.column, tuple(self._leaving(lower, left, places)), 0)
        breaking, harmless = split_by_budget(lower, budgets)
        victims = self._leaving(breaking, left, places)
        violations = len(victims)
        victims += self._leaving(harmless, left, places)
        return Candidate(record.column, tuple(sorted(victims, key=importance)), violations)

    def _leaving(self, pods: Iterable[PodInfo], left: list[int], places: list[int]) -> list[PodInfo]:
        """Those for which there is no room; the others take theirs from `left` and `places`."""
        victims: list[PodInfo] = []
        names = self._names
        for pod in pods:
            requests = pod.requests
            fits = not places or places[0] > 0
            if fits:
                for index, name in enumerate(names):
                    if requests.get(name, 0) > left[index]:
                        fits = False
                        break
            if not fits:
                victims.append(pod)
                continue
            for index, name in enumerate(names):
                left[index] -= requests.get(name, 0)
            if places:
                places[0] -= 1
        return victims
