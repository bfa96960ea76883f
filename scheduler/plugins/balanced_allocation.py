"""NodeResourcesBalancedAllocation: prefer nodes whose CPU and memory use the pod brings closer together.

Since 1.36 the score is the change of the balance, not the balance itself: 75 when it stays, between 50 and 100
(kubernetes#135573).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from scheduler.framework import resources
from scheduler.framework.columns import FloatArray
from scheduler.framework.events import Registration
from scheduler.framework.interface import Normalization, Reads
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot


class BalancedAllocation:
    """Score."""

    name = "NodeResourcesBalancedAllocation"
    reads = Reads.PODS_OF_NODE
    normalization = Normalization.NONE

    def registrations(self) -> Sequence[Registration]:
        return ()

    def sign(self, pod: PodInfo) -> Any:
        return None  # NodeResourcesFit signs the requests

    def pre_score(self, pod: PodInfo, snapshot: ClusterSnapshot) -> tuple[float, float] | None:
        cpu = pod.requests.get(resources.CPU, 0)
        memory = pod.requests.get(resources.MEMORY, 0)
        # A pod without requests changes no balance; scoring it would pile such pods on one node (kubernetes#129138).
        return (float(cpu), float(memory)) if cpu or memory else None

    def score(self, state: tuple[float, float], snapshot: ClusterSnapshot) -> FloatArray:
        width = snapshot.width
        shares = snapshot.used[:, :width] + np.array(state).reshape(2, 1)
        shares /= snapshot.divisor[:, :width]
        np.minimum(shares, 1.0, out=shares)
        gap: FloatArray = np.subtract(shares[0], shares[1])
        np.abs(gap, out=gap)
        gap *= snapshot.evenness[:width]
        np.subtract(1.0, gap, out=gap)
        gap *= 100.0
        np.floor(gap, out=gap)
        gap += snapshot.balance_gap[:width]
        gap *= 0.5
        return np.floor(gap, out=gap)

    def score_at(self, state: tuple[float, float], snapshot: ClusterSnapshot, column: int) -> float:
        return snapshot.balance_score_at(state, column)
