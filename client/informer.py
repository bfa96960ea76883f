"""A cache of one kind, kept by list and watch.

Owns: the state machine below, the store behind a Lister, the handlers, the question "has this cache seen my write?".
Never: writes to the API server, decides anything. Used by controllers, scheduler, kubelet, kube-proxy.

    EMPTY ──list──► LISTING ──all pages in──► LISTED ──stream opened──► WATCHING
      ▲                                         ▲                          │
      │ 410: too old, list again                └── stream ended or broke ─┘ (resume after the last version seen)
      └──────────────────────────────────────────────────────────────────────

Objects are decoded once, filed by the key and revision that stand beside them on the wire, and handed to handlers
synchronously in the loop. managedFields are dropped: they are a third of an object and no cache reads them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Generic, TypeVar, overload

import msgspec

from api.resources import Resource
from client.backoff import Backoff, wait_for_server
from client.client import Client, Write
from client.kinds import Target, Unstructured, View, resolve
from client.listers import Indexer, Lister
from machinery import log
from machinery.clock import Clock
from machinery.errors import Forbidden, Gone, MethodNotAllowed, NotFound, StatusError, Unauthorized
from machinery.log import kv
from machinery.meta import ObjectKey
from proto.api.v1 import resource_pb2 as pb

T = TypeVar("T")

PAGE_SIZE: Final = 500
UNSERVED_RETRY: Final = 10.0
AHEAD_LIMIT: Final = 4
"""Refusals of our version as one of the future, in a row, after which the history is taken to be another one."""
_log = log.get(__name__)


class State(Enum):
    """Where the cache is in its life; every transition is in `Informer.run`."""

    EMPTY = "Empty"
    LISTING = "Listing"
    LISTED = "Listed"
    WATCHING = "Watching"


@dataclass(frozen=True)
class EventHandler(Generic[T]):
    """Callbacks of one listener, run in the loop after the cache changed; they must not block."""

    on_add: Callable[[T], None] | None = None
    on_update: Callable[[T, T], None] | None = None
    on_delete: Callable[[T], None] | None = None


class Informer(Generic[T]):
    """List + watch cache of one kind (optionally of one namespace or selection)."""

    def __init__(
        self,
        client: Client,
        kind: Any,
        *,
        clock: Clock,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        indexers: Mapping[str, Indexer[T]] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._client = client
        self._target: Target[T] = resolve(kind)
        self._clock = clock
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._backoff = backoff or Backoff()
        self._handlers: list[EventHandler[T]] = []
        self._revisions: dict[ObjectKey, int] = {}
        self._revision = 0
        self._ahead = 0
        self._synced = asyncio.Event()
        self._waiting: list[tuple[Write, Callable[[], None]]] = []
        self.lister: Lister[T] = Lister(indexers)
        self.state = State.EMPTY
        self.relists = 0
        self.disconnects = 0

    @property
    def resource(self) -> Resource:
        return self._target.resource

    @property
    def selective(self) -> bool:
        """Whether it holds only part of its kind."""
        return bool(self._namespace or self._label_selector or self._field_selector)

    @property
    def resource_version(self) -> str:
        """The version up to which the cache is known to be complete."""
        return str(self._revision)

    @property
    def has_synced(self) -> bool:
        """Whether the first list is in the cache (it stays true while disconnected)."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        await self._synced.wait()

    def add_handler(self, handler: EventHandler[T]) -> None:
        """Register callbacks; what is already cached is told as added at once."""
        self._handlers.append(handler)
        if handler.on_add is not None:
            for obj in self.lister.list():
                self._call(handler.on_add, obj)

    def has_seen(self, write: Write) -> bool:
        """Whether the cache reflects a write of this process to this kind."""
        if self._revision < write.revision:
            return False
        # A deletion's answer may carry the revision before the deletion: then only its absence proves it.
        return not write.gone or self._revisions.get(write.key, write.revision + 1) > write.revision

    def when_seen(self, write: Write, callback: Callable[[], None]) -> None:
        """Call back once the cache has caught up with the write."""
        if self.has_seen(write):
            callback()
        else:
            self._waiting.append((write, callback))

    async def run(self) -> None:
        """Keep the cache until cancelled. Every failure is survived: wait a little, then go on where it makes sense."""
        while True:
            try:
                if self.state in (State.EMPTY, State.LISTING):
                    await self._list()
                await self._watch()
            except Gone:
                # The history since our version is compacted. Listing again must not spin if it keeps happening.
                self.state = State.EMPTY
                self.relists += 1
                _log.debug("Listing again", extra=kv(resource=self.resource.plural, version=self._revision))
                await wait_for_server(self._clock, self._backoff.next())
            except (NotFound, MethodNotAllowed):
                # The server does not know the kind (yet): there are none of it, and that is a complete answer.
                self.state = State.EMPTY
                self._replace({}, 0)
                await self._clock.sleep(UNSERVED_RETRY)
            except StatusError as error:
                self._disconnected()
                self._note_future(error)
                # A refusal does not mend itself as an outage does; unsaid, the component would just seem to hang.
                tell = _log.warning if isinstance(error, (Forbidden, Unauthorized)) else _log.debug
                tell("Lost the API server", extra=kv(resource=self.resource.plural, error=error.message))
                await wait_for_server(self._clock, self._backoff.next())
            except Exception:  # noqa: BLE001  # logged; a fault here must not end the process that lives on this cache
                self._disconnected()
                _log.exception("Informer failed", extra=kv(resource=self.resource.plural))
                await wait_for_server(self._clock, self._backoff.next())

    def _note_future(self, error: StatusError) -> None:
        """A server behind our version may lag a moment; one that never reaches it was restored from a backup."""
        if not any(cause.get("reason") == "ResourceVersionTooLarge" for cause in error.causes):
            self._ahead = 0
            return
        self._ahead += 1
        if self._ahead >= AHEAD_LIMIT:
            # Versions are being given out again, for other contents: trust none of ours.
            self._ahead = 0
            self._revisions.clear()
            self._revision = 0
            self.state = State.EMPTY
            self.relists += 1

    def _disconnected(self) -> None:
        self.disconnects += 1
        self.state = State.EMPTY if self.state in (State.EMPTY, State.LISTING) else State.LISTED

    async def _list(self) -> None:
        self.state = State.LISTING
        seen: dict[ObjectKey, tuple[int, T]] = {}
        token = ""
        while True:
            page = await self._client.list_raw(
                self._target,
                self._namespace,
                label_selector=self._label_selector,
                field_selector=self._field_selector,
                limit=PAGE_SIZE,
                continue_=token,
            )
            for item in page.items:
                key = ObjectKey(item.namespace, item.name)
                if self._revisions.get(key) == item.resource_version:
                    kept = self.lister.get(key)
                    if kept is not None:
                        seen[key] = (item.resource_version, kept)
                        continue
                obj = self._decode(item)
                if obj is not None:
                    seen[key] = (item.resource_version, obj)
            token = page.continue_token
            if not token:
                break
            await asyncio.sleep(0)
        self._replace(seen, page.resource_version)
        self.state = State.LISTED

    def _replace(self, seen: dict[ObjectKey, tuple[int, T]], revision: int) -> None:
        for key in set(self.lister.keys()).difference(seen):
            self._deleted(key, None)
        for key, (version, obj) in seen.items():
            self._stored(key, version, obj)
        self._revision = revision  # not max(): a restored etcd may be behind what was seen, and that is the truth now
        self._synced.set()
        self._wake()

    async def _watch(self) -> None:
        stream = self._client.watch_raw(
            self._target,
            self._namespace,
            resource_version=str(self._revision),
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        )
        opened = self._clock.monotonic()
        self.state = State.WATCHING
        try:
            async for batch in stream:
                self._backoff.reset()
                self._ahead = 0
                for event in batch.events:
                    self._apply(event)
                self._wake()
        finally:
            await _close(stream)
        self.state = State.LISTED
        # A server that closes streams at once must not be asked in a tight loop; one that ends them now and then may.
        if self._clock.monotonic() - opened < 1.0:
            await wait_for_server(self._clock, self._backoff.next())

    def _apply(self, event: pb.WatchEvent) -> None:
        item = event.object
        if event.type == pb.EVENT_TYPE_BOOKMARK:
            self._revision = max(self._revision, item.resource_version)
            return
        key = ObjectKey(item.namespace, item.name)
        if event.type == pb.EVENT_TYPE_DELETED:
            if self._revisions.get(key, 0) <= item.resource_version:
                self._deleted(key, item)
        elif self._revisions.get(key, 0) < item.resource_version:  # else a duplicate, or older than what we listed
            obj = self._decode(item)
            if obj is not None:
                self._stored(key, item.resource_version, obj)
        self._revision = max(self._revision, item.resource_version)

    def _decode(self, item: pb.Object) -> T | None:
        try:
            obj = self._target.decode(item.json)
        except msgspec.MsgspecError as error:
            # One unreadable object (written past the validation) must not blind the cache to all others.
            _log.error(  # the message tells it all
                "Skipped unreadable object",
                extra=kv(resource=self.resource.plural, object=ObjectKey(item.namespace, item.name), error=error),
            )
            return None
        _drop_managed_fields(obj)
        return obj

    def _stored(self, key: ObjectKey, version: int, obj: T) -> None:
        known = self._revisions.get(key)
        if known == version:
            return
        self._revisions[key] = version
        old = self.lister.put(key, obj)
        for handler in self._handlers:
            if old is None:
                if handler.on_add is not None:
                    self._call(handler.on_add, obj)
            elif handler.on_update is not None:
                self._call(handler.on_update, old, obj)

    def _deleted(self, key: ObjectKey, item: pb.Object | None) -> None:
        self._revisions.pop(key, None)
        old = self.lister.remove(key)
        if old is None:
            return
        last = (self._decode(item) if item is not None and item.json else None) or old
        for handler in self._handlers:
            if handler.on_delete is not None:
                self._call(handler.on_delete, last)

    def _call(self, callback: Callable[..., None], *args: T) -> None:
        try:
            callback(*args)
        except Exception:  # noqa: BLE001  # logged below
            # A listener's fault must not stop the cache that others live on.
            _log.exception("Event handler failed", extra=kv(resource=self.resource.plural))

    def _wake(self) -> None:
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for write, callback in waiting:
            if self.has_seen(write):
                callback()
            else:
                self._waiting.append((write, callback))


class Informers:
    """Shared informers of one process: one cache and one watch per kind and selection."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._informers: dict[tuple[Any, ...], Informer[Any]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._tasks: dict[Informer[Any], asyncio.Task[None]] = {}

    @overload
    def informer(
        self,
        kind: Resource,
        *,
        namespace: str | None = ...,
        label_selector: str = ...,
        field_selector: str = ...,
        indexers: Mapping[str, Indexer[Unstructured]] | None = ...,
    ) -> Informer[Unstructured]: ...
    @overload
    def informer(
        self,
        kind: type[T] | View[T],
        *,
        namespace: str | None = ...,
        label_selector: str = ...,
        field_selector: str = ...,
        indexers: Mapping[str, Indexer[T]] | None = ...,
    ) -> Informer[T]: ...
    def informer(
        self,
        kind: Any,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        indexers: Mapping[str, Indexer[Any]] | None = None,
    ) -> Informer[Any]:
        """The informer of that kind and selection, made on first use; more indexers are added to a shared one."""
        identity = (kind, namespace, label_selector, field_selector)
        informer = self._informers.get(identity)
        if informer is None:
            informer = Informer(
                self._client,
                kind,
                clock=self._clock,
                namespace=namespace,
                label_selector=label_selector,
                field_selector=field_selector,
            )
            self._informers[identity] = informer
            if self._group is not None:
                self._tasks[informer] = self._group.create_task(informer.run())
        for name, indexer in (indexers or {}).items():
            informer.lister.add_indexer(name, indexer)
        return informer

    def drop(self, informer: Informer[Any]) -> None:
        """Stop an informer whose kind is gone; its cache stays as it was and is nobody's any more."""
        self._informers = {key: each for key, each in self._informers.items() if each is not informer}
        task = self._tasks.pop(informer, None)
        if task is not None:
            task.cancel()
        informer._synced.set()  # whoever waits for it would wait for ever

    def all(self) -> list[Informer[Any]]:
        return list(self._informers.values())

    async def run(self) -> None:
        """Run every informer, also those made later, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                for informer in self._informers.values():
                    self._tasks[informer] = group.create_task(informer.run())
                await asyncio.get_running_loop().create_future()  # forever: the group is open for later informers
            finally:
                self._group = None
                self._tasks.clear()

    async def wait_synced(self) -> None:
        for informer in self.all():
            await informer.wait_synced()


def _drop_managed_fields(obj: Any) -> None:
    if isinstance(obj, dict):
        obj.get("metadata", {}).pop("managedFields", None)
    else:
        metadata = obj.metadata
        if metadata is not None and getattr(metadata, "managedFields", None) is not None:
            metadata.managedFields = None


async def _close(stream: AsyncIterator[Any]) -> None:
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()
