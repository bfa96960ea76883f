"""How long to wait before a failed pod is replaced by one that will probably fail, too.

Owns: a bounded memory of which owners' pods failed lately and where (a node, an ordinal). A restart only forgets it.
Called by the DaemonSet and the StatefulSet controller.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from machinery.clock import Clock

FIRST_BACKOFF: Final = 1.0
MAX_BACKOFF: Final = 900.0
REMEMBERED: Final = 4096


class _Failure(NamedTuple):
    delay: float
    at: float


class FailureMemory:
    """Doubles the wait with every failure in the same place, from 1 s to 15 min; forgets after twice that."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: OrderedDict[tuple[str, str], _Failure] = OrderedDict()

    def wait(self, uid: str, place: str) -> float:
        """Cluster seconds until the owner's failed pod there may be replaced; 0 notes that it is replaced now."""
        now, key = self._clock.monotonic(), (uid, place)
        last = self._failures.get(key)
        if last is not None and now - last.at < last.delay:
            return last.delay - (now - last.at)
        fresh = last is None or now - last.at > 2 * MAX_BACKOFF
        delay = FIRST_BACKOFF if last is None or fresh else min(last.delay * 2, MAX_BACKOFF)
        self._failures[key] = _Failure(delay, now)
        self._failures.move_to_end(key)
        if len(self._failures) > REMEMBERED:
            self._failures.popitem(last=False)
        return 0.0
