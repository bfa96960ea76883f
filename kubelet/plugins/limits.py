"""Keeps the number of volumes that a node bears as its drivers tell it, where a driver wants to be asked again.

A CSIDriver says how often (nodeAllocatableUpdatePeriodSeconds; KEP-4876). Run by `kubelet.app`; `volumes.csi` has it
ask at once when an attachment has failed for want of room.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Final

from api.models import storage_v1
from kubelet.plugins.csi_client import CsiError
from kubelet.plugins.drivers import CsiDrivers, UnknownDriver
from kubelet.plugins.watcher import Refused
from machinery import log
from machinery.clock import Clock
from machinery.errors import StatusError
from machinery.log import kv

LOOK_SECONDS: Final = 5.0
"""Cluster seconds between looks which driver is due."""
RELEARN_SECONDS: Final = 60.0
"""After so long it is read again whether a driver wants to be asked."""
_log = log.get(__name__)
ReadDriver = Callable[[str], Awaitable[storage_v1.CSIDriver | None]]


class Limits:
    """One per kubelet."""

    def __init__(self, drivers: CsiDrivers, read: ReadDriver, clock: Clock) -> None:
        self._drivers = drivers
        self._read = read
        self._clock = clock
        self._next: dict[str, float] = {}
        self._asked: dict[str, float] = {}

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Ask every driver that is due. Who has just come has just been asked."""
        names, now = self._drivers.names(), self._clock.monotonic()
        self._next = {name: self._next.get(name, now) for name in names}
        self._asked = {name: self._asked.get(name, now) for name in names}
        for name in names:
            if now < self._next[name]:
                continue
            period = await self._period(name)
            if period and now - self._asked[name] >= period:
                await self.ask(name)
                self._asked[name] = now
            due = self._asked[name] + period if period else math.inf
            self._next[name] = min(due, now + RELEARN_SECONDS)

    async def ask(self, name: str) -> None:
        """Ask one driver now; that it fails is not worse than before."""
        try:
            await self._drivers.ask_again(name)
        except (CsiError, StatusError, Refused, UnknownDriver) as error:
            _log.info("Failed to ask driver for its limit", extra=kv(driver=name, error=error))

    async def _period(self, name: str) -> float:
        try:
            found = await self._read(name)
        except StatusError as error:
            _log.debug("Failed to read CSIDriver", extra=kv(driver=name, error=error.message))
            return 0.0
        return float(wishes(found) or 0)


def wishes(driver: storage_v1.CSIDriver | None) -> int | None:
    """The period in seconds, None for drivers that do not want to be asked again."""
    return driver.spec.nodeAllocatableUpdatePeriodSeconds if driver is not None else None
