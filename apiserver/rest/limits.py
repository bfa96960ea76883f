"""How many requests may be under way at once.

Owns: the counts of reading and changing requests and the 429 past them. Watches and other streams do not count, nor do
members of system:masters, so that an administrator always gets in. Called by the door.
"""

from __future__ import annotations

from apiserver.auth.user import MASTERS, UserInfo
from machinery.errors import TooManyRequests

READING_LIMIT = 400
CHANGING_LIMIT = 200
_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class InFlight:
    """Two counters with limits."""

    __slots__ = ("_limits", "counts")

    def __init__(self, reading: int = READING_LIMIT, changing: int = CHANGING_LIMIT) -> None:
        self._limits = (reading, changing)
        self.counts = [0, 0]

    def enter(self, method: str, user: UserInfo) -> int:
        """Take a place; returns what `leave` wants back. Raises TooManyRequests."""
        lane = 1 if method in _CHANGING else 0
        if self.counts[lane] >= self._limits[lane] and MASTERS not in user.groups:
            raise TooManyRequests.of("too many requests, please try again later", 1)
        self.counts[lane] += 1
        return lane

    def leave(self, lane: int) -> None:
        self.counts[lane] -= 1
