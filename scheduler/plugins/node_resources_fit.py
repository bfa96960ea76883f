"""NodeResourcesFit: a node must have room for what the pod requests; emptier (or fuller) nodes score higher.

Filters count requests as stated. The score counts 100m CPU and 200 MiB for containers that state nothing, so that many
such pods still spread. Both are whole-number arithmetic as upstream's; the floats below hold integers exactly.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from api.models import core_v1
from scheduler.framework import node_facts, resources
from scheduler.framework.columns import BoolArray, FloatArray, IntArray
from scheduler.framework.events import Action, EventResource, Registration
from scheduler.framework.interface import Normalization, PreFilterResult, Reads, Refusal
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.scoring import Scoring, Strategy, score, wanted
from scheduler.framework.snapshot import PODS_ROW, ClusterSnapshot

TOO_MANY_PODS = "Too many pods"


Needs = tuple[tuple[int, int, str], ...]  # (row, amount, resource)


class NodeResourcesFit:
    """Filter and Score."""

    name = "NodeResourcesFit"
    reads = Reads.PODS_OF_NODE
    normalization = Normalization.NONE

    def __init__(
        self,
        scoring: Scoring | Strategy = Strategy.LEAST_ALLOCATED,
        ignored: Collection[str] = (),
        ignored_groups: Collection[str] = (),
    ) -> None:
        self._scoring = scoring if isinstance(scoring, Scoring) else Scoring(scoring)
        self._most = self._scoring.strategy is Strategy.MOST_ALLOCATED
        self._plain = self._scoring.is_plain
        self._ignored = frozenset(ignored)
        self._ignored_groups = frozenset(ignored_groups)  # the parts before the slash

    def _counts(self, resource: str) -> bool:
        if resource in self._ignored:
            return False
        return "/" not in resource or resource.partition("/")[0] not in self._ignored_groups

    def registrations(self) -> Sequence[Registration]:
        return (
            Registration(
                EventResource.ASSIGNED_POD, Action.DELETE | Action.UPDATE_POD_SCALE_DOWN, self._after_room_was_made
            ),
            Registration(EventResource.TARGET_POD, Action.UPDATE_POD_SCALE_DOWN),
            Registration(EventResource.NODE, Action.ADD | Action.UPDATE_NODE_ALLOCATABLE, self._after_node_change),
        )

    @staticmethod
    def _after_room_was_made(pod: PodInfo, old: PodInfo | None, new: PodInfo | None) -> bool:
        if old is None or new is None:
            return True  # the pod is gone, and with it its place among the node's pods
        return any(
            old.requests.get(name, 0) > new.requests.get(name, 0) for name, amount in pod.requests.items() if amount
        )

    @staticmethod
    def _after_node_change(pod: PodInfo, old: core_v1.Node | None, new: core_v1.Node) -> bool:
        offered = node_facts.allocatable(new)
        if not offered.get(resources.PODS, 0):
            return False
        if any(amount > offered.get(name, 0) for name, amount in pod.requests.items()):
            return False
        if old is None:
            return True
        before = node_facts.allocatable(old)
        names = [resources.PODS, *(name for name, amount in pod.requests.items() if amount)]
        return any(offered.get(name, 0) > before.get(name, 0) for name in names)

    def sign(self, pod: PodInfo) -> Any:
        return (pod.requests, pod.scoring_cpu, pod.scoring_memory)

    def pre_filter(self, pod: PodInfo, snapshot: ClusterSnapshot) -> PreFilterResult | None:
        rows = snapshot.rows
        # A resource that no node has ever offered has no row (-1): no node passes.
        needs = [
            (rows.get(name, -1), amount, name) for name, amount in pod.requests.items() if amount and self._counts(name)
        ]
        return PreFilterResult(((PODS_ROW, 1, resources.PODS), *needs))

    def filter(self, state: Needs, snapshot: ClusterSnapshot) -> BoolArray:
        width = snapshot.width
        mask: BoolArray | None = None
        for row, amount, _ in state:
            if row < 0:
                return np.zeros(width, dtype=np.bool_)
            enough = snapshot.free[row, :width] >= amount
            mask = enough if mask is None else np.logical_and(mask, enough, out=mask)
        assert mask is not None
        return mask

    def filter_at(self, state: Needs, snapshot: ClusterSnapshot, column: int) -> bool:
        free = snapshot.free_rows
        for row, amount, _ in state:  # noqa: SIM110  the hottest loop: a generator would double its cost
            if row < 0 or free[row][column] < amount:
                return False
        return True

    def refusals(self, state: Needs, snapshot: ClusterSnapshot, columns: IntArray) -> Iterable[Refusal]:
        """Every lacking resource is a reason; a request above what the node ever offers is not resolvable."""
        return self.refusals_if_freed(state, snapshot, columns, np.zeros_like(snapshot.free[:, : snapshot.width]))

    def refusals_if_freed(
        self, state: Needs, snapshot: ClusterSnapshot, columns: IntArray, freed: IntArray
    ) -> Iterable[Refusal]:
        lacking = np.zeros(len(columns), dtype=np.int64)
        hopeless = np.zeros(len(columns), dtype=np.bool_)
        for bit, (row, amount, _) in enumerate(state):
            if row < 0:
                lacking |= 1 << bit
                hopeless[:] = True
                continue
            lacking |= (snapshot.free[row, columns] + freed[row, columns] < amount).astype(np.int64) << bit
            if row != PODS_ROW:
                hopeless |= snapshot.allocatable[row, columns] < amount
        for bits in np.unique(lacking[lacking > 0]):
            reasons = tuple(
                TOO_MANY_PODS if row == PODS_ROW else f"Insufficient {name}"
                for bit, (row, _, name) in enumerate(state)
                if int(bits) >> bit & 1
            )
            for resolvable in (True, False):
                chosen = columns[(lacking == bits) & (hopeless != resolvable)]
                if len(chosen):
                    yield Refusal(chosen, reasons, resolvable)

    def room_needed(self, state: Needs) -> Needs:
        return state

    def pre_score(self, pod: PodInfo, snapshot: ClusterSnapshot) -> Any:
        if not self._plain:
            return wanted(self._scoring, pod)
        return 100.0 * pod.scoring_cpu, 100.0 * pod.scoring_memory

    def score(self, state: Any, snapshot: ClusterSnapshot) -> FloatArray:
        width = snapshot.width
        if not self._plain:
            return score(self._scoring, state, snapshot, slice(0, width))
        spare = snapshot.spare100[:, :width] - np.array(state).reshape(2, 1)
        np.maximum(spare, 0.0, out=spare)
        if self._most:
            np.subtract(snapshot.capacity100[:, :width], spare, out=spare)
        spare /= snapshot.divisor[:, :width]
        np.floor(spare, out=spare)
        total: FloatArray = spare[0] + spare[1]
        total /= snapshot.kinds[:width]
        return np.floor(total, out=total)

    def score_at(self, state: Any, snapshot: ClusterSnapshot, column: int) -> float:
        if not self._plain:
            return float(score(self._scoring, state, snapshot, slice(column, column + 1))[0])
        total = 0.0
        for kind, asked in enumerate(state):
            capacity, spare, divisor = snapshot.scoring_at(kind, column)
            room = max(spare - asked, 0.0)
            total += (capacity - room if self._most else room) // divisor
        return total // float(snapshot.kinds[column])
