"""Placing pods without touching anything: the scheduler's filters on a fork of the snapshot.

Owns the framework of filters (scores do not matter here). Everything between `fork` and its end is undone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator

import numpy as np

from scheduler.framework.columns import BoolArray
from scheduler.framework.framework import Framework, PluginEntry
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.plugins.registry import default_entries

_POINTS = frozenset({"preEnqueue", "queueSort", "filter"})


class Simulator:
    """Over one snapshot."""

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        self.snapshot = snapshot
        self.framework = Framework([PluginEntry(entry.plugin, points=_POINTS) for entry in default_entries()])

    @contextlib.contextmanager
    def fork(self) -> Iterator[None]:
        """What is done inside is undone at the end."""
        self.snapshot.fork()
        try:
            yield
        finally:
            self.snapshot.revert()

    def feasible(self, info: PodInfo) -> BoolArray:
        """By column; to be read only, and before the snapshot changes."""
        return self.framework.evaluate(info, self.snapshot).feasible

    def fits_on(self, info: PodInfo, node: str) -> bool:
        column = self.snapshot.column(node)
        return column is not None and bool(self.feasible(info)[column])

    def reasons(self, info: PodInfo, node: str) -> tuple[str, ...]:
        """Why the node is refused, in the scheduler's words."""
        error = self.framework.evaluate(info, self.snapshot).error()
        column = self.snapshot.column(node)
        for refusal in error.refusals:
            if column in refusal.columns:
                return refusal.reasons
        return ()

    def place(self, info: PodInfo, allowed: BoolArray | None = None) -> str:
        """Put the pod on the first node that has room, among the allowed columns; "" when there is none."""
        feasible = self.feasible(info)
        if allowed is not None:
            feasible = feasible & allowed[: len(feasible)]
        if not len(feasible):
            return ""
        column = int(feasible.argmax())
        if not feasible[column]:
            return ""
        node = self.snapshot.name_at(column)
        self.snapshot.add_pod(info, node)
        return node

    def columns(self, names: Iterable[str], but: Collection[str] = ()) -> BoolArray:
        """A mask of these nodes."""
        mask = np.zeros(self.snapshot.width, dtype=np.bool_)
        for name in names:
            column = self.snapshot.column(name)
            if column is not None and name not in but:
                mask[column] = True
        return mask
