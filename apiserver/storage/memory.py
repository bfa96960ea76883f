"""A store in memory with etcd's semantics, for in-process tests and `--storage=memory`.

Owns revisions, history and compaction of its own keys. Never writes to disk. Chosen by flag only, never as a fallback.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from apiserver.storage.interface import (
    Beside,
    Compacted,
    FutureRevision,
    KeyValue,
    OnWrite,
    Page,
    StoreEvent,
    StoreUnavailable,
    StoreWatch,
    WatchBatch,
    WriteResult,
    prefix_end,
)


class _Version(NamedTuple):
    mod_revision: int
    create_revision: int
    value: bytes | None  # None: deleted


class MemoryStore:
    """Every call completes without waiting; watchers are fed synchronously."""

    def __init__(self) -> None:
        self.on_write: OnWrite | None = None  # never called: its watches know a write before the writer does
        self._revision = 1
        self._compacted = 0
        self._keys: list[bytes] = []
        self._versions: dict[bytes, list[_Version]] = {}
        self._history: deque[StoreEvent] = deque()
        self._watches: set[_MemoryWatch] = set()
        self._closed = False

    async def get(self, key: bytes) -> tuple[KeyValue | None, int]:
        self._check_open()
        return self._current(key), self._revision

    async def range(self, start: bytes, end: bytes, *, limit: int = 0, revision: int = 0) -> Page:
        self._check_open()
        if revision > self._revision:
            raise FutureRevision(f"revision {revision} is in the future ({self._revision})")
        if revision and revision < self._compacted:
            raise Compacted(self._compacted)
        at = revision or self._revision
        first, last = bisect_left(self._keys, start), bisect_left(self._keys, end)
        found = [kv for key in self._keys[first:last] if (kv := self._at(key, at)) is not None]
        items = found[:limit] if limit else found
        return Page(items, self._revision, len(found), len(items) < len(found))

    async def create(self, key: bytes, value: bytes, ttl: float = 0.0, beside: Sequence[Beside] = ()) -> WriteResult:
        return self._mortal(key, self._write(key, value, 0, beside), ttl)

    async def replace(
        self, key: bytes, value: bytes, expected: int, ttl: float = 0.0, beside: Sequence[Beside] = ()
    ) -> WriteResult:
        return self._mortal(key, self._write(key, value, expected, beside), ttl)

    def _mortal(self, key: bytes, result: WriteResult, ttl: float) -> WriteResult:
        if result.ok and ttl:
            asyncio.get_running_loop().call_later(ttl, self._expire, key, result.revision)
        return result

    def _expire(self, key: bytes, revision: int) -> None:
        if not self._closed:
            self._write(key, None, revision)

    async def delete(self, key: bytes, expected: int, beside: Sequence[Beside] = ()) -> WriteResult:
        return self._write(key, None, expected, beside)

    async def current_revision(self) -> int:
        self._check_open()
        return self._revision

    async def watch(self, prefix: bytes, after: int) -> StoreWatch:
        self._check_open()
        watch = _MemoryWatch(self, prefix)
        if after and after + 1 < self._compacted:
            watch.fail(Compacted(self._compacted))
            return watch
        if after:
            backlog = [e for e in self._history if e.kv.mod_revision > after and e.kv.key.startswith(prefix)]
            if backlog:
                watch.push(WatchBatch(backlog, self._revision))
        self._watches.add(watch)
        return watch

    async def size(self) -> int:
        self._check_open()
        return sum(len(key) + sum(len(each.value or b"") for each in found) for key, found in self._versions.items())

    async def compact(self, revision: int) -> None:
        self._check_open()
        if revision > self._revision:
            raise FutureRevision(f"revision {revision} is in the future ({self._revision})")
        if revision <= self._compacted:
            return
        self._compacted = revision
        while self._history and self._history[0].kv.mod_revision < revision:
            self._history.popleft()
        for key in list(self._keys):
            versions = self._versions[key]
            kept = [v for v in versions if v.mod_revision >= revision]
            older = versions[: len(versions) - len(kept)]
            if older and older[-1].value is not None:
                kept.insert(0, older[-1])
            if kept:
                self._versions[key] = kept
            else:
                del self._versions[key]
                self._keys.pop(bisect_left(self._keys, key))

    async def close(self) -> None:
        self._closed = True
        for watch in list(self._watches):
            watch.fail(StoreUnavailable("the store was closed"))

    def forget(self, watch: _MemoryWatch) -> None:
        self._watches.discard(watch)

    @property
    def revision(self) -> int:
        return self._revision

    def break_watches(self) -> None:
        """Cut every watch, as a lost connection does (for tests)."""
        for watch in list(self._watches):
            watch.fail(StoreUnavailable("connection lost"))

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store was closed")

    def _at(self, key: bytes, revision: int) -> KeyValue | None:
        for version in reversed(self._versions[key]):
            if version.mod_revision <= revision:
                if version.value is None:
                    return None
                return KeyValue(key, version.value, version.create_revision, version.mod_revision)
        return None

    def _current(self, key: bytes) -> KeyValue | None:
        return self._at(key, self._revision) if key in self._versions else None

    def _write(self, key: bytes, value: bytes | None, expected: int, beside: Sequence[Beside] = ()) -> WriteResult:
        self._check_open()
        current, others = self._current(key), [self._current(each.key) for each in beside]
        failed = any(
            each.value is not None and each.expected != (found.mod_revision if found else 0)
            for each, found in zip(beside, others, strict=True)
        )
        if failed or (current.mod_revision if current else 0) != expected or (value is None and current is None):
            return WriteResult(False, self._revision, current, tuple(others))
        self._revision += 1
        events = [self._put(key, value, current)]
        for each, found in zip(beside, others, strict=True):
            if each.value is not None or found is not None:
                events.append(self._put(each.key, each.value, found))
        self._history.extend(events)
        for watch in list(self._watches):
            told = [event for event in events if event.kv.key.startswith(watch.prefix)]
            if told:
                watch.push(WatchBatch(told, self._revision))
        return WriteResult(True, self._revision, None)

    def _put(self, key: bytes, value: bytes | None, current: KeyValue | None) -> StoreEvent:
        created = current.create_revision if current else self._revision
        if key not in self._versions:
            insort(self._keys, key)
            self._versions[key] = []
        self._versions[key].append(_Version(self._revision, created, value))
        kv = KeyValue(key, value or b"", created if value is not None else 0, self._revision)
        return StoreEvent(kv, value is None)


class _MemoryWatch:
    """Unbounded queue: the one consumer is the watch cache, which never stops reading."""

    def __init__(self, store: MemoryStore, prefix: bytes) -> None:
        self.prefix = prefix
        self.end = prefix_end(prefix)
        self._store = store
        self._queue: asyncio.Queue[WatchBatch | Exception] = asyncio.Queue()

    def push(self, batch: WatchBatch) -> None:
        self._queue.put_nowait(batch)

    def fail(self, error: Exception) -> None:
        self._store.forget(self)
        self._queue.put_nowait(error)

    async def next(self) -> WatchBatch:
        item = await self._queue.get()
        if isinstance(item, Exception):
            raise item
        events, revision = list(item.events), item.revision
        while not self._queue.empty():  # what has gathered meanwhile is one batch, as etcd sends it
            follower = self._queue.get_nowait()
            if isinstance(follower, Exception):
                self._queue.put_nowait(follower)
                break
            events.extend(follower.events)
            revision = max(revision, follower.revision)
        return WatchBatch(events, revision)

    async def request_progress(self) -> None:
        self.push(WatchBatch((), self._store.revision))

    async def close(self) -> None:
        self._store.forget(self)
