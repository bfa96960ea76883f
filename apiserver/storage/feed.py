"""One store watch that feeds every resource's cache, and the rule for consistent reads.

Owns the watch on `/registry/`, its resumption (a broken stream resumes, a compacted one lists again and tells watchers
what they missed) and the revision up to which all caches are complete. A consistent read asks the store for its current
revision, once for all readers that wait at that moment, and waits until the caches have reached it; so it sees every
write acknowledged by any API server.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Sequence

from apiserver.storage.cache import ResourceCache
from apiserver.storage.interface import (
    Compacted,
    KeyValue,
    Store,
    StoreError,
    StoreEvent,
    StoreUnavailable,
    StoreWatch,
    prefix_end,
)
from apiserver.storage.keys import ROOT
from machinery import log
from machinery.clock import Clock
from machinery.errors import ServerTimeout, ServiceUnavailable
from machinery.log import kv

PAGE = 2_000
HISTORY = 2_000
"""So many revisions are replayed at start, so that watches survive a restart of the API server by resuming."""
OWN_LIMIT = 10_000
CATCH_UP_SECONDS = 10.0
"""Real seconds that a consistent read waits: what is waited for is the disk of the real etcd."""
PROGRESS_AFTER = 0.05
RETRY_FIRST, RETRY_MOST = 0.02, 1.0
BOOKMARK_SECONDS = 60.0
HISTORY_BOOKMARKS = 5
"""So many bookmarks later an event is forgotten: upstream's etcd keeps what is older no longer than that either."""

_log = log.get(__name__)


class WatchCache:
    """All resources' caches. `run` must be running for them to move."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.revision = 0
        self._ready = asyncio.Event()
        self._own: dict[int, tuple[bytes, bytes | None, int]] = {}
        self._loaded = False
        self._head = 0  # the revision that the replay of history must reach before the caches may be read
        self._short: dict[bytes, ResourceCache] = {}
        self._long: dict[bytes, ResourceCache] = {}
        self._unclaimed: dict[bytes, KeyValue] = {}
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._sequence = itertools.count()
        self._watch: StoreWatch | None = None
        self._asking: asyncio.Task[None] | None = None
        self._readers: list[asyncio.Future[int]] = []
        self._bookmarked: deque[int] = deque(maxlen=HISTORY_BOOKMARKS)

    # -- resources ----------------------------------------------------------------------------------------------------

    def add(self, cache: ResourceCache) -> None:
        """Start caching a resource; objects seen before are handed over."""
        route = cache.prefix[len(ROOT) : -1]
        table = self._long if b"/" in route else self._short
        if route in table:
            raise ValueError(f"{cache.prefix!r} is cached already")
        table[route] = cache
        if self._loaded:
            mine = [self._unclaimed.pop(key) for key in sorted(self._unclaimed) if key.startswith(cache.prefix)]
            cache.load(mine, self.revision)

    def remove(self, cache: ResourceCache) -> None:
        """Stop caching a resource; its watchers end."""
        route = cache.prefix[len(ROOT) : -1]
        (self._long if b"/" in route else self._short).pop(route, None)
        for watcher in cache.watchers:
            watcher.fail(ServiceUnavailable("the resource is no longer served"))
        form = cache.form
        for name in cache.names(""):
            entry = cache.get("", name)
            if entry is not None:
                key, stored = cache.prefix + name.encode(), form.without_revision(entry.raw)
                self._unclaimed[key] = KeyValue(key, stored, entry.created, entry.revision)

    def _route(self, key: bytes) -> ResourceCache | None:
        first = key.find(b"/", len(ROOT))
        cache = self._short.get(key[len(ROOT) : first])
        if cache is None:
            cache = self._long.get(key[len(ROOT) : key.find(b"/", first + 1)])
        return cache

    # -- consistency --------------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        return self._ready.is_set()

    async def wait_ready(self, seconds: float = CATCH_UP_SECONDS) -> None:
        """Until the first snapshot is in. Raises ServiceUnavailable."""
        if self._ready.is_set():
            return
        try:
            async with asyncio.timeout(seconds):
                await self._ready.wait()
        except TimeoutError:
            raise ServiceUnavailable("storage is (re)initializing") from None

    async def sync(self) -> None:
        """Until the caches show every write that was acknowledged before this call."""
        await self.wait_ready()
        try:
            revision = await self._ask_revision()
        except StoreError as error:
            raise ServiceUnavailable(f"the storage cannot be reached: {error}") from error
        if revision > self.revision:
            await self.reach(revision)

    async def reach(self, revision: int, seconds: float = CATCH_UP_SECONDS) -> None:
        """Until the caches are complete up to `revision`. Raises ServerTimeout."""
        if revision <= self.revision:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (revision, next(self._sequence), future))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while loop.time() < deadline:
            # A revision without an event under our prefix shows only in a progress report: ask for one.
            await asyncio.wait((future,), timeout=PROGRESS_AFTER)
            if future.done():
                return
            if self._watch is not None:
                await self._watch.request_progress()
        future.cancel()
        raise ServerTimeout("the watch cache did not catch up with the storage in time")

    async def _ask_revision(self) -> int:
        """Readers that arrive while a question is on its way share the next one: an answer may predate them."""
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._readers.append(answer)
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._ask())
        return await answer

    async def _ask(self) -> None:
        readers: list[asyncio.Future[int]] = []
        try:
            while self._readers:
                readers, self._readers = self._readers, []
                try:
                    revision = await self._store.current_revision()
                except StoreError as error:
                    for reader in readers:
                        if not reader.done():
                            reader.set_exception(error)
                else:
                    for reader in readers:
                        if not reader.done():
                            reader.set_result(revision)
        finally:
            self._asking = None
            left, self._readers = [*readers, *self._readers], []
            for reader in left:
                if not reader.done():
                    reader.set_exception(StoreUnavailable("the server is stopping"))

    # -- own writes ---------------------------------------------------------------------------------------------------

    def offer(self, revision: int, key: bytes, value: bytes | None, expected: int) -> None:
        """A write of this server that the store has just acknowledged (`value` None: a deletion).

        It is shown at once if it is the very next revision; otherwise when those before it are in. What cannot be shown
        from here comes with the watch, which tells everything in any case.
        """
        if self._ready.is_set() and revision > self.revision:
            if len(self._own) >= OWN_LIMIT:
                self._own.clear()
            self._own[revision] = (key, value, expected)
            self._show_own()

    def _show_own(self) -> None:
        while (own := self._own.pop(self.revision + 1, None)) is not None:
            revision = self.revision + 1
            key, value, expected = own
            cache = self._route(key)
            created = (revision if not expected else cache.created(key)) if cache is not None else None
            if cache is None or created is None:
                return
            cache.apply([StoreEvent(KeyValue(key, value or b"", created, revision), value is None)])
            self._advance(revision)

    # -- the feed -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Feed the caches until cancelled; survives restarts of the store."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._feed())
                group.create_task(self._bookmarks())
        finally:
            if self._asking is not None:
                self._asking.cancel()

    async def _feed(self) -> None:
        delay, current = RETRY_FIRST, False
        while True:
            try:
                if not current:
                    await self._load()
                    current = True
                self._watch = await self._store.watch(ROOT, self.revision)
                if not self._ready.is_set():  # the newest revisions need not be ours: a report tells that all is in
                    await self._watch.request_progress()
                while True:
                    batch = await self._watch.next()
                    delay = RETRY_FIRST
                    self._apply(batch.events, batch.revision)
            except Compacted as error:
                _log.warning("Lost the watch to compaction", extra=kv(revision=self.revision, compacted=error.revision))
                current = False
            except StoreError as error:
                _log.warning("Lost the storage", extra=kv(error=error, retry_seconds=delay))
                await self._clock.sleep(delay)
                delay = min(delay * 2, RETRY_MOST)
            finally:
                watch, self._watch = self._watch, None
                if watch is not None:
                    await watch.close()

    async def _load(self) -> None:
        """Take a snapshot: the first one of a while ago, so that the watch replays history; later ones of now."""
        self._head = (await self._store.range(ROOT, prefix_end(ROOT), limit=1)).revision
        if not self._loaded:
            try:
                await self._snapshot(max(1, self._head - HISTORY))
                return
            except Compacted:
                _log.info("Started without history", extra=kv(revision=self._head))
        await self._snapshot(0)

    async def _snapshot(self, revision: int) -> None:
        start, end = ROOT, prefix_end(ROOT)
        items: dict[bytes, KeyValue] = {}
        while True:
            page = await self._store.range(start, end, limit=PAGE, revision=revision)
            revision = revision or page.revision
            items.update((item.key, item) for item in page.items)
            if not page.more:
                break
            start = page.items[-1].key + b"\0"
        shares: dict[bytes, list[KeyValue]] = {
            cache.prefix: [] for cache in (*self._short.values(), *self._long.values())
        }
        self._unclaimed.clear()
        self._own.clear()
        for key, item in items.items():
            cache = self._route(key)
            if cache is None:
                self._unclaimed[key] = item
            else:
                shares[cache.prefix].append(item)
        for cache in (*self._short.values(), *self._long.values()):
            cache.load(shares[cache.prefix], revision)
        self._loaded = True
        self._advance(revision)
        _log.info("Loaded the storage", extra=kv(objects=len(items), revision=revision, head=self._head))

    def _apply(self, events: Sequence[StoreEvent], revision: int) -> None:
        shares: dict[ResourceCache, list[StoreEvent]] = {}
        for event in events:
            if event.kv.mod_revision <= self.revision:  # a write of our own, shown already
                continue
            cache = self._route(event.kv.key)
            if cache is not None:
                shares.setdefault(cache, []).append(event)
            elif event.deleted:
                self._unclaimed.pop(event.kv.key, None)
            else:
                self._unclaimed[event.kv.key] = event.kv
        for cache, share in shares.items():
            cache.apply(share)
        self._advance(revision)
        if self._own:
            self._own = {number: own for number, own in self._own.items() if number > self.revision}
            self._show_own()

    def _advance(self, revision: int) -> None:
        if revision > self.revision:
            self.revision = revision
        if self._loaded and self.revision >= self._head:
            self._ready.set()
        while self._waiters and self._waiters[0][0] <= self.revision:
            future = heapq.heappop(self._waiters)[2]
            if not future.done():
                future.set_result(None)

    async def _bookmarks(self) -> None:
        while True:
            await self._clock.sleep(BOOKMARK_SECONDS)
            self.bookmark()
            self.grow_old()

    def grow_old(self) -> None:
        """Forget the events that are as old as HISTORY_BOOKMARKS bookmarks."""
        if len(self._bookmarked) == HISTORY_BOOKMARKS:
            for cache in (*self._short.values(), *self._long.values()):
                cache.forget_until(self._bookmarked[0])
        self._bookmarked.append(self.revision)

    def bookmark(self) -> None:
        """Send bookmarks to the watchers that asked for them."""
        for cache in (*self._short.values(), *self._long.values()):
            for watcher in cache.watchers:
                if watcher.bookmarks:
                    watcher.bookmark(self.revision)
