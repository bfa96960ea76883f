"""The one clock: every wait, lease, backoff and window of every component is measured by it.

Two kinds of time, never mixed:

* *wall time*, aware UTC datetimes, is what objects carry (`creationTimestamp`, `renewTime`); it is never scaled,
  so that stock clients compute true ages;
* *cluster seconds* are what timers are configured in (a 50 s grace period); with scale N they pass N times faster.

A duration taken from a timestamp is therefore asked of the clock (`elapsed`), not computed by subtraction.
Measurements of real containers use real time and no clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol


class Timer(Protocol):
    """A pending `call_later`."""

    def cancel(self) -> None:
        """Drop the call; no-op when it has run."""


class Clock(Protocol):
    """Injected into everything that waits."""

    scale: float

    def now(self) -> datetime:
        """Wall time, aware UTC."""

    def now_micro(self) -> datetime:
        """Wall time whose microseconds are never 0: metav1.MicroTime must be written with its fraction."""

    def monotonic(self) -> float:
        """Cluster seconds since an arbitrary start."""

    def elapsed(self, since: datetime) -> float:
        """Cluster seconds that have passed since a wall instant."""

    def deadline(self, seconds: float) -> datetime:
        """The wall instant that is `seconds` cluster seconds away."""

    def real(self, seconds: float) -> float:
        """Cluster seconds as real seconds."""

    async def sleep(self, seconds: float) -> None:
        """Wait that many cluster seconds."""

    def timeout(self, seconds: float) -> contextlib.AbstractAsyncContextManager[object]:
        """Raise TimeoutError inside the block after that many cluster seconds."""

    def call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call `callback(*args)` in the running loop after that many cluster seconds."""


class RealClock:
    """The machine's time, with durations divided by `scale`."""

    def __init__(self, scale: float = 1.0) -> None:
        if not scale > 0:
            raise ValueError(f"time scale must be positive, got {scale}")
        self.scale = scale

    def now(self) -> datetime:
        return datetime.now(UTC)

    def now_micro(self) -> datetime:
        now = datetime.now(UTC)
        return now if now.microsecond else now.replace(microsecond=1)

    def monotonic(self) -> float:
        return time.monotonic() * self.scale

    def elapsed(self, since: datetime) -> float:
        return (datetime.now(UTC) - since).total_seconds() * self.scale

    def deadline(self, seconds: float) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=seconds / self.scale)

    def real(self, seconds: float) -> float:
        return seconds / self.scale

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0) / self.scale)

    def timeout(self, seconds: float) -> contextlib.AbstractAsyncContextManager[object]:
        return asyncio.timeout(seconds / self.scale)

    def call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> Timer:
        return asyncio.get_running_loop().call_later(max(seconds, 0) / self.scale, callback, *args)


class _VirtualTimer:
    __slots__ = ("args", "callback", "cancelled")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.callback = callback
        self.args = args
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class VirtualClock:
    """Time that stands still until a test moves it: `await clock.advance(300)` runs what falls due, in order."""

    scale = 1.0

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = 0.0
        self._sequence = itertools.count()
        self._timers: list[tuple[float, int, _VirtualTimer]] = []

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

    def now_micro(self) -> datetime:
        now = self.now()
        return now if now.microsecond else now.replace(microsecond=1)

    def monotonic(self) -> float:
        return self._elapsed

    def elapsed(self, since: datetime) -> float:
        return (self.now() - since).total_seconds()

    def deadline(self, seconds: float) -> datetime:
        return self.now() + timedelta(seconds=seconds)

    def real(self, seconds: float) -> float:
        return seconds

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(seconds, _resolve, future)
        try:
            await future
        finally:
            timer.cancel()

    @contextlib.asynccontextmanager
    async def timeout(self, seconds: float) -> AsyncIterator[object]:
        async with asyncio.timeout(None) as scope:
            timer = self.call_later(seconds, lambda: scope.reschedule(asyncio.get_running_loop().time()))
            try:
                yield scope
            finally:
                timer.cancel()

    def call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> Timer:
        timer = _VirtualTimer(callback, args)
        heapq.heappush(self._timers, (self._elapsed + max(seconds, 0.0), next(self._sequence), timer))
        return timer

    async def advance(self, seconds: float, *, settle: int = 20) -> None:
        """Move time forward, firing timers on the way; after each one, give tasks `settle` turns of the loop."""
        await self._settle(settle)
        target = self._elapsed + seconds
        while self._timers and self._timers[0][0] <= target:
            due, _, timer = heapq.heappop(self._timers)
            if timer.cancelled:
                continue
            self._elapsed = max(self._elapsed, due)
            timer.callback(*timer.args)
            await self._settle(settle)
        self._elapsed = target
        await self._settle(settle)

    @staticmethod
    async def _settle(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
