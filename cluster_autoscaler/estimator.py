"""How many nodes of a group some pods need: first-fit-decreasing bin packing on a fork of the snapshot. Pure.

The largest pods come first, each into the first new node that has room; a node is added when none has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cluster_autoscaler import node_facts as facts
from cluster_autoscaler.pod_groups import PodGroup
from cluster_autoscaler.simulation import Simulator
from cluster_autoscaler.templates import Template
from scheduler.framework import resources
from scheduler.framework.pod_info import PodInfo


@dataclass(frozen=True, slots=True)
class Estimate:
    """Nodes that get at least one pod, and the pods that fit on them."""

    nodes: int
    pods: tuple[PodInfo, ...]


def size_of(info: PodInfo, offered: dict[str, int]) -> float:
    """The pod's share of CPU and memory of a node, added up."""
    return sum(
        info.requests.get(name, 0) / offered[name]
        for name in (resources.CPU, resources.MEMORY)
        if offered.get(name, 0) > 0
    )


def estimate(
    simulator: Simulator,
    template: Template,
    groups: Sequence[PodGroup],
    most: int,
    seconds: float = float("inf"),
    now: Callable[[], float] = time.monotonic,
) -> Estimate:
    """`most`: nodes that may be added; `seconds`: real time after which what was found must do."""
    offered = facts.allocatable(template.node)
    ordered = sorted(groups, key=lambda group: (-size_of(group.sample, offered), group.sample.key))
    ends = now() + seconds
    with simulator.fork():
        packing = _Packing(simulator, template, most)
        for group in ordered:
            for info in group.pods:
                if now() > ends or not packing.put(info):
                    break
        return Estimate(len(packing.used), tuple(packing.placed))


class _Packing:
    """New nodes and what is on them, while the fork lasts."""

    def __init__(self, simulator: Simulator, template: Template, most: int) -> None:
        self._simulator = simulator
        self._template = template
        self._most = most
        self._columns: list[int] = []
        self._array = np.empty(0, dtype=np.int64)
        self.used: set[int] = set()
        self.placed: list[PodInfo] = []

    def put(self, info: PodInfo) -> bool:
        """Whether the pod found room, on a node that is added if need be."""
        column = self._first_fit(info)
        if column < 0:
            if len(self._columns) >= self._most or len(self._columns) > len(self.used):
                return False  # an empty node is there, and the pod does not fit even on that
            self._add()
            column = self._first_fit(info)
            if column < 0:
                return False
        self._simulator.snapshot.add_pod(info, self._simulator.snapshot.name_at(column))
        self.used.add(column)
        self.placed.append(info)
        return True

    def _first_fit(self, info: PodInfo) -> int:
        if not self._columns:
            return -1
        hits = self._simulator.feasible(info)[self._array]
        first = int(hits.argmax())
        return self._columns[first] if hits[first] else -1

    def _add(self) -> None:
        name = f"{facts.name(self._template.node)}-{len(self._columns)}"
        self._template.add_to(self._simulator, name)
        column = self._simulator.snapshot.column(name)
        assert column is not None
        self._columns.append(column)
        self._array = np.array(self._columns, dtype=np.int64)
