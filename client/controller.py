"""The one loop that every reconciler runs in.

Owns: waiting for cache sync, workers, one worker per key at a time, deferral of a key until the caches show every write
it made (KEP-5647), retries with back-off, metrics and the log line of a failure. Never: knows what is reconciled.

A reconciler is level-based: `async reconcile(key) -> Result`, called with a key whose object may be anything or gone.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from client.backoff import outage_seconds
from client.client import Write, key_of, recorded_writes
from client.informer import EventHandler, Informer
from client.workqueue import ShutDown, WorkQueue
from machinery import log
from machinery.clock import Clock, Timer
from machinery.errors import Conflict, ServiceUnavailable, StatusError
from machinery.log import kv
from machinery.meta import ObjectKey

STALE_LIMIT: Final = 10.0
"""Real seconds a key waits at most for its own writes to show up: a cache this far behind is disconnected, and every
write is fenced by resourceVersion or uid anyway."""


OUTAGE_RETRY: Final = 1.0
"""Seconds after which a key is tried again while nothing answers."""


class Result(NamedTuple):
    """What to do with the key next: nothing, or another pass after so many cluster seconds."""

    requeue_after: float | None = None


DONE: Final = Result()


class TerminalError(Exception):
    """Retrying cannot help until the object changes: log it and drop the key."""


Reconcile = Callable[[ObjectKey], Awaitable[Result]]


@dataclass
class ControllerMetrics:
    """Counters of one controller, read by /metrics."""

    reconciles: int = 0
    errors: int = 0
    conflicts: int = 0
    deferred: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class _Deferral:
    """A key that waits until its writes are in the caches."""

    remaining: set[int]
    timer: Timer | None = None
    wanted: bool = False  # somebody queued the key meanwhile


class Controller:
    """Runs a reconciler over a work queue with several workers."""

    def __init__(
        self,
        name: str,
        reconcile: Reconcile,
        *,
        clock: Clock,
        informers: Sequence[Informer[Any]] = (),
        workers: int = 1,
        queue: WorkQueue[ObjectKey] | None = None,
    ) -> None:
        self.name = name
        self.metrics = ControllerMetrics()
        self.queue = queue or WorkQueue[ObjectKey](clock)
        self._reconcile = reconcile
        self._clock = clock
        self._informers = tuple(informers)
        self._by_resource: dict[Any, Informer[Any]] = {i.resource: i for i in informers if not i.selective}
        self._workers = workers
        self._deferrals: dict[ObjectKey, _Deferral] = {}
        self._log = log.get(f"controller.{name}")

    def enqueue(self, key: ObjectKey) -> None:
        self.queue.add(key)

    def enqueue_after(self, key: ObjectKey, seconds: float) -> None:
        self.queue.add_after(key, seconds)

    def enqueue_object(self, obj: Any) -> None:
        """Queue an object's own key: the plainest event handler."""
        self.queue.add(key_of(obj))

    def watches(self, informer: Informer[Any], keys: Callable[[Any], Iterable[ObjectKey]] | None = None) -> None:
        """Queue `keys(object)` at every change (default: its own key); of an update, for the old object too."""
        if keys is None:
            informer.add_handler(
                EventHandler(self.enqueue_object, lambda _old, new: self.enqueue_object(new), self.enqueue_object)
            )
            return
        mapping = keys

        def queue_all(obj: Any) -> None:
            for key in mapping(obj):
                self.queue.add(key)

        def queue_both(old: Any, new: Any) -> None:
            queue_all(old)
            queue_all(new)

        informer.add_handler(EventHandler(queue_all, queue_both, queue_all))

    async def run(self) -> None:
        """Work until cancelled."""
        for informer in self._informers:
            await informer.wait_synced()
        self._log.debug("Started controller", extra=kv(workers=self._workers))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._work())
        finally:
            self.queue.shut_down()
            for deferral in self._deferrals.values():
                if deferral.timer is not None:
                    deferral.timer.cancel()

    async def _work(self) -> None:
        while True:
            try:
                key = await self.queue.get()
            except ShutDown:
                return
            try:
                await self._process(key)
            except asyncio.CancelledError:
                # A call that was cancelled under a reconciler looks like a cancelled worker: only the second may end.
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                self._failed(key)
            except Exception:  # noqa: BLE001  logged; without its workers a controller is dead and nobody notices
                self._failed(key)
            finally:
                self.queue.done(key)

    def _failed(self, key: ObjectKey) -> None:
        self.metrics.errors += 1
        self.queue.add_rate_limited(key)
        self._log.exception("Failed to process", extra=kv(key=key, retries=self.queue.retries(key)))

    async def _process(self, key: ObjectKey) -> None:
        deferral = self._deferrals.get(key)
        if deferral is not None:
            deferral.wanted = True  # it comes back when the caches have caught up
            return
        started = time.perf_counter()
        self.metrics.reconciles += 1
        with recorded_writes() as writes:
            try:
                result = await self._reconcile(key)
            except Conflict:
                # Somebody else was faster; the cache will show what they wrote. Nothing to tell anybody.
                self.metrics.conflicts += 1
                self.queue.add_rate_limited(key)
            except TerminalError as error:
                self.metrics.errors += 1
                self.queue.forget(key)
                self._log.warning("Gave up", extra=kv(key=key, error=error))
            except ServiceUnavailable as error:
                self.metrics.errors += 1
                # Not the key's fault: no exponential back-off, or recovery would take as long as the outage did.
                self.queue.add_after(key, outage_seconds(self._clock, random.uniform(0.2, OUTAGE_RETRY)))
                self._log.debug("Lost the API server", extra=kv(key=key, error=error.message))
            except StatusError as error:
                self.metrics.errors += 1
                self.queue.add_rate_limited(key)
                self._log.warning(
                    "Failed to reconcile", extra=kv(key=key, error=error.message, retries=self.queue.retries(key))
                )
            except Exception:  # noqa: BLE001  # logged below; the loop must go on
                self.metrics.errors += 1
                self.queue.add_rate_limited(key)
                self._log.exception("Failed to reconcile", extra=kv(key=key, retries=self.queue.retries(key)))
            else:
                self.queue.forget(key)
                if result.requeue_after is not None:
                    self.queue.add_after(key, result.requeue_after)
            finally:
                self.metrics.seconds += time.perf_counter() - started
        self._defer(key, writes)

    def _defer(self, key: ObjectKey, writes: Sequence[Write]) -> None:
        """Hold the key back until the informers this controller reads have seen what it wrote."""
        unseen = [
            (informer, write)
            for write in _decisive(writes)
            if (informer := self._by_resource.get(write.resource)) is not None and not informer.has_seen(write)
        ]
        if not unseen:
            return
        self.metrics.deferred += 1
        deferral = _Deferral(set(range(len(unseen))))
        self._deferrals[key] = deferral
        deferral.timer = self._clock.call_later(STALE_LIMIT * self._clock.scale, self._caught_up, key, deferral)

        def seen(index: int) -> None:
            deferral.remaining.discard(index)
            if not deferral.remaining:
                self._caught_up(key, deferral)

        for index, (informer, write) in enumerate(unseen):
            informer.when_seen(write, lambda index=index: seen(index))  # type: ignore[misc]

    def _caught_up(self, key: ObjectKey, deferral: _Deferral) -> None:
        if self._deferrals.get(key) is not deferral:
            return
        del self._deferrals[key]
        if deferral.timer is not None:
            deferral.timer.cancel()
        if deferral.wanted:
            self.queue.add(key)


def _decisive(writes: Sequence[Write]) -> list[Write]:
    """The writes that matter: of those that only need a revision to be reached, the last of each resource."""
    last: dict[Any, Write] = {}
    for write in writes:
        if not write.gone and (write.resource not in last or write.revision > last[write.resource].revision):
            last[write.resource] = write
    return [*last.values(), *(write for write in writes if write.gone)]
