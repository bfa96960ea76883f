"""Waiting for pods to come in a batch: one second of silence, ten seconds at most.

Owns the window, on the cluster's clock. Source: karpenter.sh, settings BATCH_IDLE_DURATION and BATCH_MAX_DURATION.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from machinery.clock import Clock

IDLE: Final = 1.0
MOST: Final = 10.0


class Batcher:
    """`trigger` whenever something has come; `wait` returns once a batch is complete."""

    def __init__(self, clock: Clock, idle: float = IDLE, most: float = MOST) -> None:
        self._clock = clock
        self._idle = idle
        self._most = most
        self._wanted = asyncio.Event()

    def trigger(self) -> None:
        self._wanted.set()

    async def wait(self, at_most: float) -> bool:
        """Whether something has come within so many seconds, and the batch is complete."""
        if not await self._within(at_most):
            return False
        ends = self._clock.monotonic() + self._most
        while (left := ends - self._clock.monotonic()) > 0:
            if not await self._within(min(self._idle, left)):
                break
        return True

    async def _within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with self._clock.timeout(seconds):
                await self._wanted.wait()
            self._wanted.clear()
            return True
        return False
