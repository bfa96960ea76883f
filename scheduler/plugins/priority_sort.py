"""PrioritySort: higher priority first, then the one that has waited longer."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.framework.events import Registration
from scheduler.framework.pod_info import PodInfo


class PrioritySort:
    """QueueSort."""

    name = "PrioritySort"

    def registrations(self) -> Sequence[Registration]:
        return ()

    def sort_key(self, pod: PodInfo, timestamp: float) -> tuple[int, float]:
        return (-pod.priority, timestamp)
