"""How many requests may be under way at once, whatever their priority.

Owns: the counts of reading and changing requests and the 429 past their sum. Watches and other streams do not count,
nor do members of system:masters, so that an administrator always gets in. Called by the door, which asks for priority
and fairness first.
"""

from __future__ import annotations

from apiserver.auth.user import MASTERS, UserInfo
from machinery.errors import TooManyRequests

LIMIT = 600  # upstream's 400 reading and 200 changing ones, which share their places under priority and fairness
_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class InFlight:
    """Two counters with one limit."""

    __slots__ = ("_limit", "counts")

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self.counts = [0, 0]

    def enter(self, method: str, user: UserInfo) -> int:
        """Take a place; returns what `leave` wants back. Raises TooManyRequests."""
        counts = self.counts
        lane = 1 if method in _CHANGING else 0
        if counts[0] + counts[1] >= self._limit and MASTERS not in user.groups:
            raise TooManyRequests.of("too many requests, please try again later", 1)
        counts[lane] += 1
        return lane

    def leave(self, lane: int) -> None:
        self.counts[lane] -= 1
