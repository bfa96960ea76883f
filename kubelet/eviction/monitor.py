"""Watches the node's signals, tells its pressure, reclaims and evicts: one pod at a time, until the node is well.

Owns the pressure conditions and when they end (five minutes after the last crossing). Never ranks (`plan` does) and
never stops a pod itself: the pod's worker does, by an event. Run by `kubelet.app`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from kubelet.cri import Cri, CriError
from kubelet.eviction import plan
from kubelet.pod import events as ev
from kubelet.pod.cgroups import PodCgroups
from kubelet.pod.worker import PodWorker
from kubelet.records import CONTAINER_NAME, POD_UID
from machinery import log
from machinery.clock import Clock
from machinery.log import kv

_log = log.get(__name__)
INTERVAL = 1.0  # real seconds between looks: upstream is told by the kernel at once, and memory does not wait
TRANSITION = 300.0  # how long a pressure is told after it has ended
GRACE = 1  # upstream gives evicted pods no time beyond what the runtime needs
REASON = "Evicted"


class EvictionMonitor:
    """One per kubelet."""

    def __init__(
        self,
        runtime: Cri,
        clock: Clock,
        cgroups: PodCgroups,
        root: Path,
        memory: int,
        thresholds: tuple[plan.Threshold, ...],
        workers: Callable[[], list[PodWorker]],
        changed: Callable[[], None],
        tell: Callable[[str, str], None],
        reclaim_images: Callable[[], Awaitable[int]],
    ) -> None:
        """`changed`: the pressure did; `tell(reason, message)`: an event of the node; `reclaim_images`: bytes freed."""
        self._cri = runtime
        self._clock = clock
        self._cgroups = cgroups
        self._root = root
        self._memory = memory
        self._thresholds = thresholds
        self._workers = workers
        self._changed = changed
        self._tell = tell
        self._reclaim_images = reclaim_images
        self._last: dict[str, float] = {}  # condition -> when its threshold was last crossed
        self._told: frozenset[str] = frozenset()

    @property
    def pressures(self) -> frozenset[str]:
        """The conditions that hold now."""
        now = self._clock.monotonic()
        return frozenset(kind for kind, at in self._last.items() if now - at < TRANSITION)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except (CriError, OSError) as error:
                _log.warning("Failed to look at the node's resources", extra=kv(error=error))
            await asyncio.sleep(INTERVAL)

    async def look(self) -> None:
        """One pass: note pressure, and do something about the worst of it."""
        met = plan.crossed(self._thresholds, self._observe())
        for each in met:
            self._last[each.condition] = self._clock.monotonic()
        if self.pressures != self._told:
            self._told = self.pressures
            self._changed()
        if not met:
            return
        worst = met[0]
        self._tell("EvictionThresholdMet", f"Attempting to reclaim {worst.resource}")
        if worst.condition == "DiskPressure" and await self._reclaim_images() > 0:
            met = plan.crossed(self._thresholds, self._observe())
            if worst.signal not in {each.signal for each in met}:
                return
        await self._evict(worst)

    def _observe(self) -> Mapping[str, plan.Observation]:
        seen = {}
        usage = self._cgroups.machine_usage()
        if usage is not None and self._memory:
            seen["memory.available"] = plan.Observation(max(self._memory - usage[3], 0), self._memory)
        disk = os.statvfs(self._root)
        room = plan.Observation(disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize)
        seen["nodefs.available"] = seen["imagefs.available"] = room
        if disk.f_files:
            seen["nodefs.inodesFree"] = plan.Observation(disk.f_ffree, disk.f_files)
        return seen

    async def _evict(self, met: plan.Met) -> None:
        """The first of the ranked pods that runs goes; the next look decides about the next."""
        usages = await self._usages()
        workers = {
            worker.uid: worker
            for worker in self._workers()
            if not (worker.machine.over or worker.machine.frozen or worker.machine.verdict or worker.machine.deleting)
        }
        active = [(worker.pod, usages.get(uid, plan.Usage())) for uid, worker in workers.items()]
        for pod, usage in plan.rank(active, met.resource):
            worker = workers[(pod.metadata.uid if pod.metadata else None) or ""]
            why = plan.message(met, pod, usage)
            _log.warning("Evicted a pod", extra=kv(pod=worker.name, signal=met.signal, available=met.available))
            worker.tell("Warning", REASON, why)
            worker.post(ev.Rejected(REASON, why, GRACE))
            return
        _log.warning("Found no pod to evict", extra=kv(signal=met.signal, available=met.available))

    async def _usages(self) -> dict[str, plan.Usage]:
        memory: dict[str, dict[str, int]] = {}
        disk: dict[str, dict[str, int]] = {}
        for entry in await self._cri.container_stats():
            labels = entry.attributes.labels
            uid, name = labels.get(POD_UID, ""), labels.get(CONTAINER_NAME, "")
            memory.setdefault(uid, {})[name] = int(entry.memory.working_set_bytes.value)
            disk.setdefault(uid, {})[name] = int(entry.writable_layer.used_bytes.value)
        return {uid: plan.Usage(values, disk.get(uid, {})) for uid, values in memory.items()}
