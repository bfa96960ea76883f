"""How long to wait before something that failed is tried again: doubling, per key, forgotten when it works.

Owns the memory of failures. What a loop writes about a failure wakes the loop itself; `left` keeps it from trying again
at once, unless what it failed at has changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from client.backoff import Backoff
from machinery.clock import Clock
from machinery.meta import ObjectKey


@dataclass
class _Failure:
    backoff: Backoff
    what: Hashable
    until: float


class Retries:
    """Cluster seconds from `first` up to `cap`."""

    def __init__(self, clock: Clock, first: float, cap: float) -> None:
        self._clock = clock
        self._first = first
        self._cap = cap
        self._known: dict[ObjectKey, _Failure] = {}

    def after_failure(self, key: ObjectKey, what: Hashable = None, *, at_least: float = 0.0) -> float:
        """Seconds until the next attempt. `what` was tried; something else may be tried at once."""
        known = self._known.get(key)
        if known is None or known.what != what:
            known = self._known[key] = _Failure(Backoff(self._first, self._cap, jitter=0.1), what, 0.0)
        delay = max(known.backoff.next(), at_least)
        known.until = self._clock.monotonic() + delay
        return delay

    def left(self, key: ObjectKey, what: Hashable = None) -> float:
        """Seconds that are left to wait; 0 when it may be tried."""
        known = self._known.get(key)
        return max(0.0, known.until - self._clock.monotonic()) if known is not None and known.what == what else 0.0

    def forget(self, key: ObjectKey) -> None:
        self._known.pop(key, None)
