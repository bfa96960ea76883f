"""Pods that a Permit plugin holds back: their node is taken for them, their binding is not sent yet.

Owns who is held by whom, and for how long at most. Plugins let a pod go or reject it from outside, through
`WaitingPods`, which all profiles share. Times are cluster seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from machinery.clock import Clock, Timer
from scheduler.framework.pod_info import PodInfo

LONGEST: Final = 900.0  # no plugin may hold a pod longer, whatever it asks for


class NotReserved(Exception):
    """A plugin could not claim for a decided pod what it needs; the text says which and why."""


class Rejected(Exception):
    """A plugin turned a decided pod down after all: it is unschedulable for now, not in error."""

    def __init__(self, plugin: str, message: str) -> None:
        super().__init__(message)
        self.plugin = plugin
        self.message = message


class WaitingPod:
    """One pod that is held. It goes when the last plugin lets it go; the first rejection or timeout ends the wait."""

    def __init__(self, info: PodInfo, node: str, holds: Mapping[str, float]) -> None:
        self.info = info
        self.node = node
        self._holds = {plugin: min(seconds, LONGEST) for plugin, seconds in holds.items()}
        self._outcome: Rejected | None = None
        self._over = asyncio.Event()

    @property
    def pending_plugins(self) -> Iterable[str]:
        return tuple(self._holds)

    def allow(self, plugin: str) -> None:
        """The plugin holds it no longer."""
        self._holds.pop(plugin, None)
        if not self._holds:
            self._over.set()

    def reject(self, plugin: str, message: str) -> None:
        """The plugin does not want it on this node."""
        if not self._over.is_set():
            self._outcome = Rejected(plugin, message)
            self._over.set()

    async def wait(self, clock: Clock) -> None:
        """Until it may go. Raises Rejected."""
        timers: list[Timer] = [
            clock.call_later(seconds, self._late, plugin, seconds) for plugin, seconds in self._holds.items()
        ]
        try:
            await self._over.wait()
        finally:
            for timer in timers:
                timer.cancel()
        if self._outcome is not None:
            raise self._outcome

    def _late(self, plugin: str, seconds: float) -> None:
        if plugin in self._holds:
            self.reject(plugin, f"rejected due to timeout after waiting {seconds:g}s at plugin {plugin}")


class WaitingPods:
    """All held pods, by uid."""

    def __init__(self) -> None:
        self._pods: dict[str, WaitingPod] = {}

    def add(self, pod: WaitingPod) -> None:
        self._pods[pod.info.uid] = pod

    def remove(self, uid: str) -> None:
        self._pods.pop(uid, None)

    def get(self, uid: str) -> WaitingPod | None:
        return self._pods.get(uid)

    def __iter__(self) -> Iterator[WaitingPod]:
        return iter(tuple(self._pods.values()))

    def __len__(self) -> int:
        return len(self._pods)
