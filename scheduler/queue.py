"""Unscheduled pods: who is next, who backs off, who waits for an event that can help.

Four places: *active* (by priority, then by time), *backing off* (after a failure: 1 s doubling to 10 s), *waiting*
(unschedulable until an event may turn a refusal, at most five minutes; gated pods until their gates are gone), and *in
flight* (popped, until `done`). An event that comes while a pod is in flight is remembered for it, since the attempt
may not have seen its effect. All times are cluster seconds. No I/O; used by the scheduler's loop and event handlers,
all in one event loop.
"""

from __future__ import annotations

import asyncio
import enum
import heapq
import itertools
from collections.abc import Callable, Iterable
from typing import Any, Final

from machinery.clock import Clock, Timer
from scheduler import changes
from scheduler.framework.events import ClusterEvent, EventResource
from scheduler.framework.framework import Framework
from scheduler.framework.pod_info import PodInfo

INITIAL_BACKOFF: Final = 1.0
MAX_BACKOFF: Final = 10.0
MAX_WAIT: Final = 300.0
FLUSH_PERIOD: Final = 30.0
EARLY_RATE: Final = 100.0  # pods a second that may cut their back-off short
_EVENTS_KEPT: Final = 4096


class Place(enum.Enum):
    """Where a pod is."""

    ACTIVE = "active"
    BACKOFF = "backoff"
    WAITING = "unschedulable"
    GATED = "gated"
    IN_FLIGHT = "in flight"


Group = tuple[str, bytes, frozenset[str]]


class QueuedPod:
    """A pod in the queue and its history there."""

    __slots__ = (
        "attempts",
        "errors",
        "failures",
        "info",
        "place",
        "plugins",
        "ready_at",
        "since",
        "ticket",
    )

    def __init__(self, info: PodInfo, now: float) -> None:
        self.info = info
        self.place = Place.ACTIVE
        self.since = now  # when it came to its place; orders pods of one priority
        self.ready_at = now
        self.attempts = 0
        self.failures = 0  # attempts that found no node
        self.errors = 0  # attempts in a row that failed otherwise
        self.plugins: frozenset[str] = frozenset()
        self.ticket = 0  # heap entries with another ticket are stale


def backoff(count: int, initial: float = INITIAL_BACKOFF, most: float = MAX_BACKOFF) -> float:
    """Cluster seconds to stay away after the count-th failure."""
    return float(min(initial * 2 ** max(min(count, 16) - 1, 0), most))


class SchedulingQueue:
    """One consumer (`pop`); everything else is called from event handlers and returns at once."""

    def __init__(
        self,
        clock: Clock,
        framework_of: Callable[[PodInfo], Framework],
        initial_backoff: float = INITIAL_BACKOFF,
        max_backoff: float = MAX_BACKOFF,
    ) -> None:
        self._backoff_range = (initial_backoff, max_backoff)
        self._clock = clock
        self._framework_of = framework_of
        self._pods: dict[str, QueuedPod] = {}
        self._active: list[tuple[Any, int, QueuedPod]] = []
        self._backoff: list[tuple[float, int, QueuedPod]] = []  # after refusals
        self._errors: list[tuple[float, int, QueuedPod]] = []  # after errors
        self._early = EARLY_RATE
        self._early_at = clock.monotonic()
        self._groups: dict[Group, dict[str, QueuedPod]] = {}
        self._listening: dict[str, Framework] = {}
        self._in_flight: dict[str, int] = {}  # uid -> position in the event history
        self._events: list[ClusterEvent] = []
        self._events_start = 0
        self._tickets = itertools.count(1)
        self._wake = asyncio.Event()
        self._timer: Timer | None = None
        self._timer_at = 0.0

    # --- the consumer --------------------------------------------------------------------------------------------

    async def pop(self) -> QueuedPod:
        """The next pod to try; it is in flight until `done`, `park` or `retry`."""
        while (queued := self.take()) is None:
            self._wake.clear()
            await self._wake.wait()
        return queued

    def take(self) -> QueuedPod | None:
        """`pop` without waiting. With nothing active, a pod that backs off from a refusal may go early: the wait
        exists to let others through, and there are none. A wait after errors is kept: it spares the API server."""
        queued = self._next(self._active, Place.ACTIVE)
        if queued is None and self._backoff and self._may_go_early():
            queued = self._next(self._backoff, Place.BACKOFF)
        if queued is None:
            return None
        queued.attempts += 1
        queued.place = Place.IN_FLIGHT
        framework = self._framework_of(queued.info)
        self._listening[framework.name] = framework
        self._in_flight[queued.info.uid] = self._events_start + len(self._events)
        return queued

    @staticmethod
    def _next(heap: list[tuple[Any, int, QueuedPod]], place: Place) -> QueuedPod | None:
        while heap:
            _, ticket, queued = heapq.heappop(heap)
            if queued.ticket == ticket and queued.place is place:
                return queued
        return None

    def _may_go_early(self) -> bool:
        """A bounded number a second, or every deleted pod would make all that wait for room try again at once."""
        now = self._clock.monotonic()
        self._early = min(self._early + (now - self._early_at) * EARLY_RATE, EARLY_RATE)
        self._early_at = now
        if self._early < 1.0:
            return False
        self._early -= 1.0
        return True

    def done(self, uid: str) -> None:
        """The pod was bound or is not to be scheduled any more."""
        self._land(uid)
        queued = self._pods.get(uid)
        if queued is not None and queued.place is Place.IN_FLIGHT:
            del self._pods[uid]

    def park(self, queued: QueuedPod, plugins: Iterable[str]) -> None:
        """No node fits: wait for an event that could turn the refusal of one of these plugins."""
        missed = self._land(queued.info.uid)
        if missed is None:
            return  # deleted meanwhile
        now = self._clock.monotonic()
        queued.failures += 1
        queued.errors = 0
        queued.plugins = frozenset(plugins)
        queued.since = now
        queued.ready_at = now + backoff(queued.failures, *self._backoff_range)
        framework = self._framework_of(queued.info)
        if any(framework.may_help(queued.info, queued.plugins, event) for event in missed):
            self._resume(queued)
        else:
            self._wait(queued, Place.WAITING)

    def retry(self, queued: QueuedPod) -> None:
        """The attempt failed for another reason than the pod: try again after a back-off."""
        if self._land(queued.info.uid) is None:
            return
        now = self._clock.monotonic()
        queued.errors += 1
        queued.plugins = frozenset()
        queued.since = now
        queued.ready_at = now + backoff(queued.errors, *self._backoff_range)
        self._resume(queued)

    def _land(self, uid: str) -> list[ClusterEvent] | None:
        """End the flight; returns the events that came meanwhile, None if the pod is not in flight."""
        position = self._in_flight.pop(uid, None)
        if position is None:
            return None
        missed = self._events[max(position - self._events_start, 0) :]
        if not self._in_flight:
            self._events_start += len(self._events)
            self._events.clear()
        return missed

    # --- event handlers ------------------------------------------------------------------------------------------

    def add(self, info: PodInfo) -> None:
        """A new unscheduled pod (or, after a restart of the watch, one we know)."""
        if info.uid in self._pods:
            self.update(info)
            return
        queued = QueuedPod(info, self._clock.monotonic())
        self._pods[info.uid] = queued
        self._enter(queued)

    def _enter(self, queued: QueuedPod) -> None:
        plugin, _ = self._framework_of(queued.info).gate(queued.info)
        if plugin:
            queued.plugins = frozenset((plugin,))
            self._wait(queued, Place.GATED)
        else:
            self._activate(queued)

    def update(self, info: PodInfo) -> None:
        """The pod's object changed."""
        queued = self._pods.get(info.uid)
        if queued is None:
            self.add(info)
            return
        old = queued.info
        event = ClusterEvent(EventResource.TARGET_POD, changes.pod_change(old, info), old, info)
        if queued.place in (Place.WAITING, Place.GATED):
            self._leave(queued)
            queued.info = info
            if queued.place is Place.GATED:
                self._enter(queued)
            elif event.action and self._framework_of(info).may_help(info, queued.plugins, event):
                self._resume(queued)
            else:
                self._wait(queued, Place.WAITING)
            return
        queued.info = info
        if queued.place is Place.IN_FLIGHT and event.action:
            self._remember(event)

    def delete(self, uid: str) -> None:
        """The pod is gone, or assigned."""
        self._land(uid)
        queued = self._pods.pop(uid, None)
        if queued is not None:
            self._leave(queued)
            queued.ticket = 0

    def resume(self, uid: str) -> None:
        """Try a waiting pod again, whatever refused it."""
        queued = self._pods.get(uid)
        if queued is not None and queued.place is Place.WAITING:
            self._leave(queued)
            self._resume(queued)

    def on_event(self, event: ClusterEvent) -> None:
        """Let the waiting pods go that the event may help. Pods alike are asked about once."""
        if not any(framework.listens(event) for framework in self._listening.values()):
            return
        self._remember(event)
        for group in list(self._groups):
            pods = self._groups.get(group)
            if not pods:
                continue
            sample = next(iter(pods.values()))
            if sample.place is Place.GATED:
                continue
            if self._framework_of(sample.info).may_help(sample.info, group[2], event):
                for queued in list(pods.values()):
                    self._leave(queued)
                    self._resume(queued)

    def _remember(self, event: ClusterEvent) -> None:
        if not self._in_flight:
            return
        self._events.append(event)
        if len(self._events) > _EVENTS_KEPT:
            # Bindings hang for long: forget the oldest half. Their pods are retried after a back-off in any case.
            cut = len(self._events) // 2
            del self._events[:cut]
            self._events_start += cut

    # --- places --------------------------------------------------------------------------------------------------

    def _activate(self, queued: QueuedPod) -> None:
        info = queued.info
        queued.place = Place.ACTIVE
        queued.ticket = next(self._tickets)
        key = self._framework_of(info).queue_sort.sort_key(info, queued.since)
        heapq.heappush(self._active, (key, queued.ticket, queued))
        self._wake.set()

    def _resume(self, queued: QueuedPod) -> None:
        """To the active pods, or through the rest of its back-off."""
        if queued.ready_at <= self._clock.monotonic():
            self._activate(queued)
            return
        queued.place = Place.BACKOFF
        queued.ticket = next(self._tickets)
        heapq.heappush(self._errors if queued.errors else self._backoff, (queued.ready_at, queued.ticket, queued))
        self._arm()
        if not queued.errors:
            self._wake.set()

    def _group_of(self, queued: QueuedPod) -> Group:
        framework = self._framework_of(queued.info)
        return (framework.name, framework.signature(queued.info), queued.plugins)

    def _wait(self, queued: QueuedPod, place: Place) -> None:
        queued.place = place
        queued.ticket = 0
        self._groups.setdefault(self._group_of(queued), {})[queued.info.uid] = queued

    def _leave(self, queued: QueuedPod) -> None:
        if queued.place not in (Place.WAITING, Place.GATED):
            return
        group = self._group_of(queued)
        pods = self._groups.get(group)
        if pods is not None:
            pods.pop(queued.info.uid, None)
            if not pods:
                del self._groups[group]

    def _arm(self) -> None:
        """Set the timer for the first back-off that ends."""
        ends = [heap[0][0] for heap in (self._backoff, self._errors) if heap]
        if not ends:
            return
        first = min(ends)
        if self._timer is not None:
            if self._timer_at <= first:
                return
            self._timer.cancel()
        self._timer_at = first
        self._timer = self._clock.call_later(max(first - self._clock.monotonic(), 0.0), self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        for heap in (self._backoff, self._errors):
            while heap and heap[0][0] <= now:
                _, ticket, queued = heapq.heappop(heap)
                if queued.ticket == ticket and queued.place is Place.BACKOFF:
                    self._activate(queued)
        self._arm()

    def flush(self) -> None:
        """Let pods go that have waited too long: a hint may be wrong."""
        limit = self._clock.monotonic() - MAX_WAIT
        for pods in list(self._groups.values()):
            for queued in list(pods.values()):
                if queued.place is Place.WAITING and queued.since <= limit:
                    self._leave(queued)
                    self._resume(queued)

    async def run(self) -> None:
        """Flush from time to time, until cancelled."""
        while True:
            await self._clock.sleep(FLUSH_PERIOD)
            self.flush()

    # --- reading -------------------------------------------------------------------------------------------------

    def get(self, uid: str) -> QueuedPod | None:
        return self._pods.get(uid)

    def count(self, place: Place) -> int:
        """For metrics and tests."""
        return sum(queued.place is place for queued in self._pods.values())

    def __len__(self) -> int:
        return len(self._pods)
