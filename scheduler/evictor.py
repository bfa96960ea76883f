"""Preemption's writes: victims get their condition, are deleted with their own grace period, and are told of.

Owns the order and repetition of these writes. Never chooses a victim. A victim counts as leaving from the moment it is
handed over, so that its preemptor does not look for others meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from api.models import core_v1
from client.client import Client, PatchType
from client.events import NORMAL, EventRecorder
from machinery import log
from machinery.clock import Clock
from machinery.errors import Conflict, NotFound, StatusError
from machinery.log import kv
from machinery.meta import rfc3339
from scheduler.framework.nominations import Nominations
from scheduler.framework.pod_info import PodInfo

CONCURRENT: Final = 16
TRIES: Final = 3
RETRY_AFTER: Final = 1.0
_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Eviction:
    """One victim."""

    victim: PodInfo
    preemptor: PodInfo
    node: str


class Evictor:
    """`submit` returns at once; `run` writes. `on_failed(preemptor)` is told when a victim could not be removed."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        recorder: EventRecorder,
        nominations: Nominations,
        on_failed: Callable[[PodInfo], None],
    ) -> None:
        self._client = client
        self._clock = clock
        self._recorder = recorder
        self._nominations = nominations
        self._on_failed = on_failed
        self._queue: asyncio.Queue[Eviction] = asyncio.Queue()
        self.evicted = 0

    def submit(self, eviction: Eviction) -> None:
        if eviction.victim.uid not in self._nominations.evicting:
            self._nominations.evicting.add(eviction.victim.uid)
            self._queue.put_nowait(eviction)

    def gone(self, uid: str) -> None:
        """The victim is deleted, or known to be leaving."""
        self._nominations.evicting.discard(uid)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENT):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            eviction = await self._queue.get()
            for left in reversed(range(TRIES)):
                try:
                    await self._evict(eviction)
                    break
                except StatusError as error:
                    victim = eviction.victim.key
                    _log.warning("Preempting pod failed", extra=kv(pod=victim, error=error.message, tries_left=left))
                    if not left:
                        self.gone(eviction.victim.uid)
                        self._on_failed(eviction.preemptor)
                        break
                    await self._clock.sleep(RETRY_AFTER)

    async def _evict(self, eviction: Eviction) -> None:
        victim = eviction.victim
        if not victim.terminating:  # else it leaves already, and only its end is awaited
            try:
                await self._client.patch(
                    core_v1.Pod,
                    victim.name,
                    {"metadata": {"uid": victim.uid}, "status": {"conditions": [self._condition(eviction)]}},
                    victim.namespace,
                    type=PatchType.STRATEGIC,
                    subresource="status",
                )
                await self._client.delete(core_v1.Pod, victim.name, victim.namespace, uid=victim.uid)
            except (NotFound, Conflict):
                self.gone(victim.uid)  # it is gone, and perhaps another pod has its name
                return
        self.evicted += 1
        text = f"Preempted by pod {eviction.preemptor.uid} on node {eviction.node}"
        self._recorder.event(victim.pod, NORMAL, "Preempted", text)
        _log.info("Preempted pod", extra=kv(pod=victim.key, node=eviction.node, preemptor=eviction.preemptor.key))

    def _condition(self, eviction: Eviction) -> dict[str, object]:
        condition: dict[str, object] = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": f"{eviction.preemptor.scheduler_name}: preempting to accommodate a higher priority pod",
            "lastProbeTime": None,
            "lastTransitionTime": rfc3339(self._clock.now()),
        }
        metadata = eviction.victim.pod.metadata
        if metadata is not None and metadata.generation:
            condition["observedGeneration"] = metadata.generation
        return condition
