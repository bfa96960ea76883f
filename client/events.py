"""Events: what a component tells the user about an object (core/v1 Event).

Owns: correlation as upstream does it (one Event per repeated message with a count; many similar messages combined into
one; a token bucket per object against spam), a bounded queue and the loop that writes it. Never: blocks or fails its
caller; an Event is a courtesy, and dropped when the queue is full. Used by every component.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from api import resources
from api.models import core_v1, meta_v1
from client.backoff import Backoff, wait_for_server
from client.client import Client
from machinery import log
from machinery.clock import Clock
from machinery.errors import AlreadyExists, NotFound, ServiceUnavailable, StatusError
from machinery.log import kv
from machinery.meta import rfc3339

NORMAL: Final = "Normal"
WARNING: Final = "Warning"

QUEUE_SIZE: Final = 1000
CACHE_SIZE: Final = 4096
SIMILAR_LIMIT: Final = 10
SIMILAR_WINDOW: Final = 600.0
SPAM_BURST: Final = 25
SPAM_REFILL: Final = 1.0 / 300.0
MAX_TRIES: Final = 12
_log = log.get(__name__)


class Involved(NamedTuple):
    """core/v1 ObjectReference of the object an event is about."""

    kind: str
    namespace: str
    name: str
    uid: str
    api_version: str
    resource_version: str
    field_path: str = ""


class Occurrence(NamedTuple):
    """Something that happened, before correlation."""

    involved: Involved
    type: str
    reason: str
    message: str


class Verdict(NamedTuple):
    """What correlation decided: write this (the first time: create, later: patch `name`)."""

    occurrence: Occurrence
    name: str
    times: int
    first: datetime
    last: datetime


@dataclass(slots=True)
class _Similar:
    messages: set[str] = field(default_factory=set)
    last: float = 0.0


@dataclass(slots=True)
class _Logged:
    name: str
    count: int
    first: datetime


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Correlator:
    """Pure but for its memory: turns occurrences into events to write, or drops them as spam. Bounded LRU caches."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._similar: OrderedDict[tuple[Any, ...], _Similar] = OrderedDict()
        self._logged: OrderedDict[tuple[Any, ...], _Logged] = OrderedDict()
        self._buckets: OrderedDict[tuple[Any, ...], _Bucket] = OrderedDict()

    def correlate(self, occurrence: Occurrence) -> Verdict | None:
        """What to write for the occurrence; None if its object has used up its events."""
        now = self._clock.monotonic()
        if not self._admit(occurrence, now):
            return None
        combined = self._combine(occurrence, now)
        subject, wall = occurrence.involved._replace(resource_version=""), self._clock.now()
        identity = (subject, occurrence.type, occurrence.reason, *(() if combined else (occurrence.message,)))
        if combined:
            occurrence = occurrence._replace(message=f"(combined from similar events): {occurrence.message}")
        logged = self._logged.get(identity)
        if logged is None:
            logged = _put(self._logged, identity, _Logged(event_name(subject.name, wall), 0, wall))
        self._logged.move_to_end(identity)
        logged.count += 1
        return Verdict(occurrence, logged.name, logged.count, logged.first, wall)

    def renew(self, verdict: Verdict) -> Verdict:
        """The event that was counted is gone (it outlived its TTL): start a fresh one with the same count."""
        wall = self._clock.now()
        name = event_name(verdict.occurrence.involved.name, wall)
        for logged in self._logged.values():
            if logged.name == verdict.name:
                logged.name = name
        return verdict._replace(name=name)

    def _admit(self, occurrence: Occurrence, now: float) -> bool:
        key = (occurrence.involved._replace(resource_version="", field_path=""),)
        bucket = self._buckets.get(key) or _put(self._buckets, key, _Bucket(SPAM_BURST, now))
        self._buckets.move_to_end(key)
        bucket.tokens = min(SPAM_BURST, bucket.tokens + (now - bucket.at) * SPAM_REFILL)
        bucket.at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    def _combine(self, occurrence: Occurrence, now: float) -> bool:
        key = (occurrence.involved._replace(resource_version="", field_path=""), occurrence.type, occurrence.reason)
        similar = self._similar.get(key)
        if similar is None or now - similar.last > SIMILAR_WINDOW:
            similar = _put(self._similar, key, _Similar())
        self._similar.move_to_end(key)
        similar.last = now
        if len(similar.messages) >= SIMILAR_LIMIT and occurrence.message not in similar.messages:
            return True
        similar.messages.add(occurrence.message)
        return len(similar.messages) >= SIMILAR_LIMIT


def event_name(involved: str, moment: datetime) -> str:
    """`web-0.18c5a…`: the object's name and the nanoseconds since 1970 in hex."""
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    nanoseconds = (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1_000
    return f"{involved}.{nanoseconds:x}"


class EventRecorder:
    """Non-blocking `event()`; `run()` writes in the background."""

    def __init__(self, client: Client, clock: Clock, component: str, host: str = "") -> None:
        self._client = client
        self._clock = clock
        self._component = component
        self._host = host
        self._queue: asyncio.Queue[Occurrence] = asyncio.Queue(QUEUE_SIZE)
        self._correlator = Correlator(clock)
        self.dropped = 0

    def event(self, obj: Any, type: str, reason: str, message: str) -> None:
        """Tell something about an object: a typed object, a plain dict or a core/v1 ObjectReference."""
        try:
            self._queue.put_nowait(Occurrence(involved_in(obj), type, reason, message))
        except asyncio.QueueFull:
            self.dropped += 1

    async def run(self) -> None:
        """Write events until cancelled."""
        while True:
            occurrence = await self._queue.get()
            verdict = self._correlator.correlate(occurrence)
            if verdict is not None:
                await self._write(verdict)
            self._queue.task_done()

    async def flush(self) -> None:
        """Wait until everything queued was written (tests, clean exits)."""
        await self._queue.join()

    async def _write(self, verdict: Verdict) -> None:
        backoff = Backoff(initial=0.2)
        for _ in range(MAX_TRIES):
            try:
                if verdict.times > 1:
                    await self._count(verdict)
                else:
                    await self._client.create(self._event(verdict))
                return
            except NotFound as error:
                if verdict.times <= 1:
                    _log.debug("Dropped event", extra=kv(event=verdict.name, error=error.message))
                    return  # its namespace is gone
                verdict = self._correlator.renew(verdict)
                try:
                    await self._client.create(self._event(verdict))
                except StatusError as again:
                    _log.debug("Dropped event", extra=kv(event=verdict.name, error=again.message))
                return
            except AlreadyExists:
                return  # an earlier try was carried out though its answer got lost
            except ServiceUnavailable:
                await wait_for_server(self._clock, backoff.next())
            except StatusError as error:
                # Refused (a terminating namespace, for instance): repeating it will not help.
                _log.debug("Dropped event", extra=kv(event=verdict.name, error=error.message))
                return

    async def _count(self, verdict: Verdict) -> None:
        patch = {
            "count": verdict.times,
            "lastTimestamp": rfc3339(verdict.last),
            "message": verdict.occurrence.message,
        }
        namespace = verdict.occurrence.involved.namespace or "default"
        await self._client.patch(core_v1.Event, verdict.name, patch, namespace)

    def _event(self, verdict: Verdict) -> core_v1.Event:
        occurrence, involved = verdict.occurrence, verdict.occurrence.involved
        return core_v1.Event(
            metadata=meta_v1.ObjectMeta(name=verdict.name, namespace=involved.namespace or "default"),
            involvedObject=core_v1.ObjectReference(
                kind=involved.kind,
                namespace=involved.namespace or None,
                name=involved.name,
                uid=involved.uid or None,
                apiVersion=involved.api_version,
                resourceVersion=involved.resource_version or None,
                fieldPath=involved.field_path or None,
            ),
            type=occurrence.type,
            reason=occurrence.reason,
            message=occurrence.message,
            source=core_v1.EventSource(component=self._component, host=self._host or None),
            reportingComponent=self._component,
            reportingInstance=self._host,
            count=verdict.times,
            firstTimestamp=verdict.first.replace(microsecond=0),
            lastTimestamp=verdict.last.replace(microsecond=0),
        )


def involved_in(obj: Any) -> Involved:
    """The reference by which an event names its object."""
    if isinstance(obj, core_v1.ObjectReference):
        return Involved(
            obj.kind or "",
            obj.namespace or "",
            obj.name or "",
            obj.uid or "",
            obj.apiVersion or "",
            obj.resourceVersion or "",
            obj.fieldPath or "",
        )
    if isinstance(obj, dict):
        metadata = obj.get("metadata") or {}
        return Involved(
            obj.get("kind", ""),
            metadata.get("namespace") or "",
            metadata.get("name") or "",
            metadata.get("uid") or "",
            obj.get("apiVersion", ""),
            metadata.get("resourceVersion") or "",
        )
    model: Any = type(obj)
    resource = resources.of(model)
    metadata = obj.metadata
    return Involved(
        resource.kind,
        metadata.namespace or "",
        metadata.name or "",
        metadata.uid or "",
        resource.group_version,
        metadata.resourceVersion or "",
    )


def _put(cache: OrderedDict[tuple[Any, ...], Any], key: tuple[Any, ...], value: Any) -> Any:
    cache[key] = value
    if len(cache) > CACHE_SIZE:
        cache.popitem(last=False)
    return value
