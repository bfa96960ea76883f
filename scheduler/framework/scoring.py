"""Configured ways to score how full a node is: which resources count how much, and what fullness is worth.

The default (LeastAllocated, CPU and memory alike) has a path of its own in the NodeResourcesFit plugin; this is the
general one. Whole-number arithmetic as upstream's, on floats that hold integers exactly.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from scheduler.framework import resources
from scheduler.framework.columns import FloatArray
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot

MAX_SHAPE_SCORE: Final = 10


class Strategy(enum.Enum):
    """Which nodes to prefer."""

    LEAST_ALLOCATED = "LeastAllocated"
    MOST_ALLOCATED = "MostAllocated"
    REQUESTED_TO_CAPACITY_RATIO = "RequestedToCapacityRatio"


@dataclass(frozen=True, slots=True)
class Scoring:
    """`shape`: (utilization in percent, score 0-10), rising in utilization; for the ratio only."""

    strategy: Strategy = Strategy.LEAST_ALLOCATED
    weights: tuple[tuple[str, int], ...] = ((resources.CPU, 1), (resources.MEMORY, 1))
    shape: tuple[tuple[int, int], ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether the short path computes it."""
        plain = dict(self.weights) == {resources.CPU: 1, resources.MEMORY: 1}
        return plain and self.strategy is not Strategy.REQUESTED_TO_CAPACITY_RATIO


Wanted = Sequence[tuple[str, int, int]]  # (resource, what the pod takes, weight)


def wanted(scoring: Scoring, pod: PodInfo) -> Wanted:
    """What of the pod counts: an extended resource only when it asks for it."""
    own = {resources.CPU: pod.scoring_cpu, resources.MEMORY: pod.scoring_memory}
    listed = [(name, own.get(name, pod.requests.get(name, 0)), weight) for name, weight in scoring.weights]
    plain = (resources.CPU, resources.MEMORY, resources.EPHEMERAL_STORAGE)
    return [each for each in listed if each[1] or each[0] in plain]


def _along(shape: Sequence[tuple[int, int]], utilization: FloatArray) -> FloatArray:
    """The shape's score at each utilization, scaled to 0-100 and cut to whole numbers."""
    points = [(at, score * (100 // MAX_SHAPE_SCORE)) for at, score in shape]
    result = np.full(len(utilization), float(points[-1][1]))
    for (low, from_), (high, to) in reversed(list(pairwise(points))):
        between = from_ + np.trunc((to - from_) * (utilization - low) / (high - low))
        result = np.where(utilization <= high, between, result)
    return np.where(utilization <= points[0][0], float(points[0][1]), result)


def score(scoring: Scoring, asked: Wanted, snapshot: ClusterSnapshot, columns: slice) -> FloatArray:
    """0-100 for each of the columns."""
    total: FloatArray = np.zeros(columns.stop - columns.start)
    weights: FloatArray = np.zeros_like(total)
    for name, amount, weight in asked:
        row = snapshot.rows.get(name)
        if row is None:
            continue
        capacity = snapshot.allocatable[row, columns].astype(np.float64)
        if name in (resources.CPU, resources.MEMORY):
            used = capacity - snapshot.spare100[row, columns] / 100.0
        else:
            used = snapshot.requested[row, columns].astype(np.float64)
        used += amount
        there = capacity > 0
        divisor = np.where(there, capacity, 1.0)
        if scoring.strategy is Strategy.LEAST_ALLOCATED:
            value = np.floor(np.maximum(capacity - used, 0.0) * 100.0 / divisor)
        elif scoring.strategy is Strategy.MOST_ALLOCATED:
            value = np.floor(np.minimum(used, capacity) * 100.0 / divisor)
        else:
            utilization = np.where(used > capacity, 100.0, np.floor(used * 100.0 / divisor))
            value = _along(scoring.shape, utilization)
            there &= value > 0  # upstream leaves resources out that score nothing
        total += np.where(there, value * weight, 0.0)
        weights += np.where(there, float(weight), 0.0)
    known = np.where(weights > 0, weights, 1.0)
    if scoring.strategy is Strategy.REQUESTED_TO_CAPACITY_RATIO:
        return np.floor(total / known + 0.5)
    return np.floor(total / known)
