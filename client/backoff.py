"""Exponential back-off with jitter for loops that wait for somebody else (the API server, a lease, a peer).

Owns the arithmetic only; the caller sleeps through its clock. Used by informers, the controller runner, the event
recorder and the loops of components.
"""

from __future__ import annotations

import random
from typing import Final

from machinery.clock import Clock

DEFAULT_INITIAL: Final = 0.05
DEFAULT_CAP: Final = 2.0
_FASTEST: Final = 5.0


class Backoff:
    """Delays initial, initial*factor, … up to cap, each stretched by up to `jitter` of itself.

    The cap is low on purpose: a component should notice within about two seconds that the API server is back.
    """

    def __init__(
        self,
        initial: float = DEFAULT_INITIAL,
        cap: float = DEFAULT_CAP,
        *,
        factor: float = 2.0,
        jitter: float = 0.5,
        rng: random.Random | None = None,
    ) -> None:
        self._initial = initial
        self._cap = cap
        self._factor = factor
        self._jitter = jitter
        # the interpreter's own is seeded anew in every forked process; seeding one here would cost more than its use
        self._random = random.random if rng is None else rng.random
        self._next = initial

    def next(self) -> float:
        """The delay to wait now, in cluster seconds."""
        delay = self._next
        self._next = min(self._next * self._factor, self._cap)
        return delay * (1.0 + self._jitter * self._random())

    def reset(self) -> None:
        """Something worked: start again from the shortest delay."""
        self._next = self._initial


async def wait_for_server(clock: Clock, seconds: float) -> None:
    """Wait before asking a server again that is away."""
    await clock.sleep(outage_seconds(clock, seconds))


def outage_seconds(clock: Clock, seconds: float) -> float:
    """Cluster seconds to wait for a server that is away, where `seconds` would do at scale 1.

    Starting a process takes its real time however fast the timers run: beyond a scale of 5 the retries of many loops
    would only burn the CPU that the server needs in order to come back.
    """
    return seconds * max(1.0, clock.scale / _FASTEST)
