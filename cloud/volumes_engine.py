"""The loop over block volumes: let the core decide, have it done to the disks, remember.

Owns time and tasks. Disks are worked on in threads, one effect of a volume at a time. What is attached is plugged in
once more at the start: the host may have been restarted meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import Final

from cloud.engine import Engine
from cloud.volumes_core import Effect, Sight, VolumeCore
from cloud.volumes_media import Media
from machinery import log
from machinery.clock import Clock
from machinery.log import kv

LONGEST: Final = 2.0  # cluster seconds between passes: machines vanish without asking for anything
SHORTEST: Final = 0.05
AT_ONCE: Final = 8
_log = log.get(__name__)


class VolumeEngine:
    """Runs a core over one kind of media. `wake` shortens the wait, after a request."""

    def __init__(self, machines: Engine, media: Media, clock: Clock) -> None:
        self.core = VolumeCore(machines.core.state, self._sight)
        self._machines = machines
        self._media = media
        self._clock = clock
        self._wanted = asyncio.Event()
        self._busy: set[str] = set()
        self._slots = asyncio.Semaphore(AT_ONCE)

    def _sight(self, instance: str) -> Sight:
        health = self._machines.seen.get(instance)
        if health is not None:
            return "working" if health.healthy else "broken"
        known = self.core.state.instances.get(instance)
        if known is not None and known.phase != "gone":
            return "unknown"  # it comes, or the engine has yet to notice that it went
        return "gone" if self._machines.looked else "unknown"

    def now(self) -> float:
        """Cluster seconds since the epoch."""
        return self._machines.now()

    def wake(self) -> None:
        """Something was asked for: remember it and look soon."""
        self._machines.save()
        self._wanted.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for volume in list(self.core.state.volumes.values()):
                if volume.attachment is not None and volume.attachment.phase == "attached":
                    self._begin(group, Effect("plug", volume.id))
            while True:
                for effect in self.core.tick(self.now()):
                    self._begin(group, effect)
                await self._pause()

    def _begin(self, group: asyncio.TaskGroup, effect: Effect) -> None:
        if effect.volume not in self._busy:
            self._busy.add(effect.volume)
            group.create_task(self._carry_out(effect))

    async def _pause(self) -> None:
        due = self.core.due()
        wait = LONGEST if due is None or self._busy else min(max(due - self.now(), SHORTEST), LONGEST)
        timer = self._clock.call_later(wait, self._wanted.set)
        try:
            await self._wanted.wait()
        finally:
            timer.cancel()
        self._wanted.clear()

    async def _carry_out(self, effect: Effect) -> None:
        try:
            async with self._slots:
                await self._act(effect)
        except OSError as error:
            _log.warning("Failed", extra=kv(verb=effect.verb, volume=effect.volume, error=error))
            self.core.failed(effect, self.now(), str(error))
        finally:
            self._busy.discard(effect.volume)
        self.wake()

    async def _act(self, effect: Effect) -> None:
        core, volume = self.core, self.core.state.volumes[effect.volume]
        there = volume.attachment
        match effect.verb:
            case "shape":
                size = volume.size
                await asyncio.to_thread(self._media.shape, volume.id, size)
                core.shaped(volume, size)
            case "plug" if there is not None:
                await asyncio.to_thread(self._media.plug, volume.id, there.instance)
                core.plugged(volume)
                _log.info("Attached", extra=kv(volume=volume.id, instance=there.instance))
            case "unplug" if there is not None:
                how = core.farewell(volume)
                free = await asyncio.to_thread(self._media.unplug, volume.id, there.instance, how)
                core.unplugged(volume, self.now(), busy=not free)
                if free:
                    _log.info("Detached", extra=kv(volume=volume.id, instance=there.instance, how=how))
            case "remove":
                await asyncio.to_thread(self._media.remove, volume.id)
                core.removed(volume, self.now())
