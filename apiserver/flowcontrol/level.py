"""One priority level: its seats, and the queues of those who wait for one.

Owns: who runs next. Requests of one flow are dealt to few of the queues (shuffle sharding), so that a flow that floods
leaves others a queue of their own; among queues the one that has had the least service goes first (fair queuing).
Everything happens between two awaits of one event loop: no locks. Called by `control`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache


@dataclass(frozen=True)
class LevelSpec:
    """A PriorityLevelConfiguration, with its share of the server as a number of seats."""

    name: str
    uid: str = ""
    exempt: bool = False
    seats: int = 0
    lendable: int = 0
    """Seats that others may use while they are idle here."""
    borrowing: int | None = None
    """Seats that may be used beyond the own ones; None = no limit but what others lend."""
    queues: int = 0
    """0 = whoever finds no seat is turned away."""
    hand: int = 1
    length: int = 50


class Full(Exception):
    """The request is turned away; `reason` is the metric's label."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(eq=False)
class _Waiting:
    future: asyncio.Future[None]
    seats: int


@dataclass(eq=False)
class _Queue:
    waiting: deque[_Waiting] = field(default_factory=deque)
    served: float = 0.0  # seats given so far, in the level's virtual time


@lru_cache(maxsize=4096)
def hand_of(schema: str, flow: str, queues: int, size: int) -> tuple[int, ...]:
    """The queues that a flow may wait in: a hand of different cards, the same for the same flow."""
    value = int.from_bytes(hashlib.sha256(f"{schema}\0{flow}".encode()).digest()[:8], "big")
    dealt: list[int] = []
    for number in range(min(size, queues)):
        value, card = divmod(value, queues - number)
        for earlier in sorted(dealt):
            if card >= earlier:
                card += 1
        dealt.append(card)
    return tuple(dealt)


class Level:
    """`may_borrow(level, seats)` tells whether seats beyond the own ones are to be had."""

    def __init__(self, spec: LevelSpec, may_borrow: Callable[[Level, int], bool]) -> None:
        self.spec = spec
        self._may_borrow = may_borrow
        self._queues: list[_Queue] = [_Queue() for _ in range(spec.queues)]
        self._virtual = 0.0
        self.executing = 0  # requests
        self.seats = 0  # that they hold
        self.queued = 0
        self.dispatched = 0

    def change(self, spec: LevelSpec) -> None:
        """Another spec; those who wait stay where they are, in queues that are emptied before they go."""
        self.spec = spec
        for _ in range(spec.queues - len(self._queues)):
            self._queues.append(_Queue())
        while len(self._queues) > spec.queues and not self._queues[-1].waiting:
            self._queues.pop()
        self.dispatch()

    def take(self, seats: int) -> bool:
        """Run at once, if nobody waits and there are seats."""
        if self.spec.exempt or (not self.queued and self._fits(seats)):
            self.seats += seats
            self.executing += 1
            self.dispatched += 1
            return True
        return False

    async def wait(self, schema: str, flow: str, seats: int, limit: float) -> None:
        """Until the request may run. Raises Full: no queue, a full queue, or `limit` real seconds are over."""
        if not self.spec.queues:
            raise Full("concurrency-limit")
        hand = hand_of(schema, flow, self.spec.queues, self.spec.hand)
        queue = min((self._queues[card] for card in hand), key=lambda each: (len(each.waiting), each.served))
        if len(queue.waiting) >= self.spec.length:
            raise Full("queue-full")
        waiting = _Waiting(asyncio.get_running_loop().create_future(), seats)
        if not queue.waiting:  # who was idle has not saved up service
            queue.served = max(queue.served, self._virtual)
        queue.waiting.append(waiting)
        self.queued += 1
        try:
            async with asyncio.timeout(limit):
                await waiting.future
        except TimeoutError:
            self._give_up(queue, waiting)
            raise Full("time-out") from None
        except asyncio.CancelledError:
            self._give_up(queue, waiting)
            raise

    def _give_up(self, queue: _Queue, waiting: _Waiting) -> None:
        if waiting in queue.waiting:
            queue.waiting.remove(waiting)
            self.queued -= 1
        else:  # the seat came at the same moment
            self.leave(waiting.seats)

    def leave(self, seats: int) -> None:
        """The request is done."""
        self.seats -= seats
        self.executing -= 1
        if self.queued:
            self.dispatch()

    def dispatch(self) -> None:
        """Give free seats to those who wait."""
        while self.queued:
            queue = min((each for each in self._queues if each.waiting), key=lambda each: each.served)
            waiting = queue.waiting[0]
            if not self._fits(waiting.seats):
                return
            queue.waiting.popleft()
            self.queued -= 1
            self._virtual = queue.served
            queue.served += waiting.seats
            self.seats += waiting.seats
            self.executing += 1
            self.dispatched += 1
            if not waiting.future.done():
                waiting.future.set_result(None)

    def _fits(self, seats: int) -> bool:
        spec = self.spec
        if self.seats + seats <= spec.seats:
            return True
        if not self.seats:  # wider than the level: it may run alone
            return True
        if spec.borrowing is not None and self.seats + seats > spec.seats + spec.borrowing:
            return False
        return self._may_borrow(self, seats)
