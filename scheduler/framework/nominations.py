"""Pods that were promised a node and wait for its victims to leave.

Owned by the scheduler, shared by all profiles. A promise is kept against pods of lower priority only: filters count
nominated pods of equal or higher priority as if they ran on their node already.
"""

from __future__ import annotations

from collections.abc import Iterable

from scheduler.framework.pod_info import PodInfo


class Nominations:
    """By pod and by node. `evicting` holds the uids of victims whose deletion is on its way."""

    def __init__(self) -> None:
        self._by_uid: dict[str, tuple[PodInfo, str]] = {}
        self.evicting: set[str] = set()

    def set(self, pod: PodInfo, node: str) -> None:
        if node:
            self._by_uid[pod.uid] = (pod, node)
        else:
            self._by_uid.pop(pod.uid, None)

    def remove(self, uid: str) -> None:
        self._by_uid.pop(uid, None)

    def node_of(self, uid: str) -> str:
        known = self._by_uid.get(uid)
        return known[1] if known is not None else ""

    def ahead_of(self, pod: PodInfo) -> dict[str, list[PodInfo]]:
        """Nominated pods that `pod` must leave room for, by node."""
        ahead: dict[str, list[PodInfo]] = {}
        for other, node in self._by_uid.values():
            if other.priority >= pod.priority and other.uid != pod.uid:
                ahead.setdefault(node, []).append(other)
        return ahead

    def behind(self, pod: PodInfo, node: str) -> Iterable[PodInfo]:
        """Nominated pods of lower priority on a node: their promise is void when `pod` takes it."""
        return [other for other, home in self._by_uid.values() if home == node and other.priority < pod.priority]

    def __len__(self) -> int:
        return len(self._by_uid)
