"""What the pods of each priority take on every node: answers for all nodes at once what preemption could free.

Made by the snapshot when first asked (most clusters never preempt), kept up to date from then on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from scheduler.framework.columns import IntArray
from scheduler.framework.pod_info import PodInfo


class PriorityLevels:
    """Arrays like the snapshot's `requested`, one per priority in use."""

    def __init__(self, rows: int, capacity: int, pods_row: int) -> None:
        self._shape = (rows, capacity)
        self._pods_row = pods_row
        self._levels: dict[int, IntArray] = {}
        self._counts: dict[int, int] = {}

    @classmethod
    def of(
        cls, homes: Iterable[tuple[PodInfo, int]], rows: Mapping[str, int], capacity: int, pods_row: int
    ) -> PriorityLevels:
        """Of pods with the columns of their nodes."""
        made = cls(len(rows), capacity, pods_row)
        for info, column in homes:
            made.add(info, column, 1, rows)
        return made

    def add(self, info: PodInfo, column: int, sign: int, rows: Mapping[str, int]) -> None:
        level = self._levels.get(info.priority)
        if level is None:
            level = self._levels[info.priority] = np.zeros(self._shape, dtype=np.int64)
            self._counts[info.priority] = 0
        for name, amount in info.requests.items():
            level[rows[name], column] += sign * amount
        level[self._pods_row, column] += sign
        self._counts[info.priority] += sign
        if not self._counts[info.priority]:
            del self._levels[info.priority], self._counts[info.priority]

    def below(self, priority: int) -> IntArray:
        """What all pods of lower priority take; in the row of pods, how many there are."""
        total = np.zeros(self._shape, dtype=np.int64)
        for level, taken in self._levels.items():
            if level < priority:
                total += taken
        return total
