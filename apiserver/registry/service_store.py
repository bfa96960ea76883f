"""Services in the store: whoever writes one writes the records of its addresses and ports in the same transaction.

Owns the guarantee that no two Services hold one value, whichever servers write them: the record of a value can be
created once only. The allocators' index, which is as old as the watch, merely finds values that are free; when a
record tells otherwise, the index learns of it and the request is carried out again, choosing another value or saying
that the asked one is taken. A record that its Service does not hold (it was removed behind our back) is taken over
after a minute, upstream's time for servers that record first and write the Service then. Serves v1 Services.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from apiserver.registry.accounting import Account
from apiserver.registry.allocation_records import Record, read_record, record_key, write_record
from apiserver.registry.allocators import Key, ServiceAllocators, Value
from apiserver.registry.context import RequestContext
from apiserver.registry.strategies.services import ServiceStrategy
from apiserver.registry.strategy import Strategy
from apiserver.registry.tracking import Tracker
from apiserver.registry.writing import ResourceStore
from apiserver.storage.cache import ResourceCache
from apiserver.storage.form import BadObject, Obj, ObjectForm, decode, encode
from apiserver.storage.interface import Beside, KeyValue, OnWrite, Page, Store, StoreWatch, WriteResult
from apiserver.storage.keys import parse_suffix
from machinery.clock import Clock
from machinery.errors import Conflict
from machinery.meta import parse_time, rfc3339

if TYPE_CHECKING:
    from api.resources import Resource
    from apiserver.registry.changing import Build
    from apiserver.storage.feed import WatchCache

T = TypeVar("T")
GRACE = 60.0
"""Cluster seconds that a record may wait for its Service."""
ATTEMPTS = 16


class TakenElsewhere(Conflict):
    """Another Service holds a value that our index took for free."""

    def __init__(self, values: dict[Value, Key]) -> None:
        super().__init__("another Service has just been given the same address or port")
        self.values = values


class ServiceStore(ResourceStore):
    """v1 Services."""

    def __init__(
        self,
        resource: Resource,
        strategy: Strategy,
        store: Store,
        feed: WatchCache,
        cache: ResourceCache,
        clock: Clock,
        admission: list[Any],
    ) -> None:
        assert isinstance(strategy, ServiceStrategy)
        self._services = strategy
        recording = RecordingStore(store, cache, clock, lambda: strategy.allocators)
        super().__init__(resource, strategy, recording, feed, cache, clock, admission)

    async def _create_once(self, ctx: RequestContext, namespace: str, obj: Obj, tracker: Tracker | None) -> bytes:
        pristine, unused = encode(obj), [obj]
        create = super()._create_once
        return await self._again(lambda: create(ctx, namespace, unused.pop() if unused else decode(pristine), tracker))

    async def _rewrite(
        self,
        ctx: RequestContext,
        namespace: str,
        name: str,
        build: Build,
        strategy: Strategy,
        subresource: str,
        account: Account,
    ) -> bytes:
        rewrite = super()._rewrite
        return await self._again(lambda: rewrite(ctx, namespace, name, build, strategy, subresource, account))

    async def _again(self, write: Callable[[], Awaitable[T]]) -> T:
        """Until no value was found taken, or the strategy refuses what it now knows to be taken."""
        for _ in range(ATTEMPTS):
            try:
                return await write()
            except TakenElsewhere as error:
                self._services.allocators.learn(error.values)
                last = error
        raise last


class RecordingStore:
    """A store of Services: values beside them are recorded and released as they come and go."""

    def __init__(
        self, store: Store, cache: ResourceCache, clock: Clock, allocators: Callable[[], ServiceAllocators]
    ) -> None:
        self._store = store
        self._cache = cache
        self._clock = clock
        self._allocators = allocators
        self.on_write: OnWrite | None = None  # the store below tells its own

    async def get(self, key: bytes) -> tuple[KeyValue | None, int]:
        return await self._store.get(key)

    async def range(self, start: bytes, end: bytes, *, limit: int = 0, revision: int = 0) -> Page:
        return await self._store.range(start, end, limit=limit, revision=revision)

    async def create(self, key: bytes, value: bytes, ttl: float = 0.0, beside: Iterable[Beside] = ()) -> WriteResult:
        return await self._write(key, value, 0, ttl)

    async def replace(
        self, key: bytes, value: bytes, expected: int, ttl: float = 0.0, beside: Iterable[Beside] = ()
    ) -> WriteResult:
        return await self._write(key, value, expected, ttl)

    async def delete(self, key: bytes, expected: int, beside: Iterable[Beside] = ()) -> WriteResult:
        return await self._write(key, None, expected)

    async def current_revision(self) -> int:
        return await self._store.current_revision()

    async def watch(self, prefix: bytes, after: int) -> StoreWatch:
        return await self._store.watch(prefix, after)

    async def size(self) -> int:
        return await self._store.size()

    async def compact(self, revision: int) -> None:
        await self._store.compact(revision)

    async def close(self) -> None:
        await self._store.close()

    # -- writing ------------------------------------------------------------------------------------------------------

    async def _write(self, key: bytes, value: bytes | None, expected: int, ttl: float = 0.0) -> WriteResult:
        """Raises TakenElsewhere."""
        owner = self._owner(key)
        before = await self._held(key, owner, expected)
        after = self._values(value) if value is not None else ()
        new, now = [each for each in after if each not in before], rfc3339(self._clock.now())
        records = {each: Beside(record_key(each), write_record(each, owner, now)) for each in new}
        gone = [Beside(record_key(each)) for each in before if each not in after]
        for _ in range(ATTEMPTS):
            beside = (*records.values(), *gone)
            if value is None:
                result = await self._store.delete(key, expected, beside)
            elif expected:
                result = await self._store.replace(key, value, expected, ttl, beside)
            else:
                result = await self._store.create(key, value, ttl, beside)
            if result.ok or (result.current.mod_revision if result.current else 0) != expected:
                return result
            taken: dict[Value, Key] = {}
            for each, found in zip(new, result.beside, strict=False):  # what goes comes behind what is new
                if found is None:
                    records[each] = records[each]._replace(expected=0)
                    continue
                record = read_record(each, found.value)
                if await self._is_held(each, record, owner):
                    taken[each] = record.owner
                records[each] = records[each]._replace(expected=found.mod_revision)
            if taken:
                raise TakenElsewhere(taken)
        return result

    async def _is_held(self, value: Value, record: Record, ours: Key) -> bool:
        """Does the Service that a record names hold the value, or may it come to do so?"""
        if not record.ours:
            return True
        if record.owner == ours:
            return False
        found, _ = await self._store.get(self._cache.prefix + "/".join(record.owner).encode())
        if found is not None and value in self._values(found.value):
            return True
        try:
            return self._clock.elapsed(parse_time(record.created)) < GRACE
        except ValueError:
            return False

    async def _held(self, key: bytes, owner: Key, revision: int) -> frozenset[Value]:
        """The values of the stored Service at a revision; none when it is not that one that is stored."""
        if not revision:
            return frozenset()
        entry = self._cache.get(*owner)
        if entry is not None and entry.revision == revision:
            return self._allocators().values_of(entry.decoded())
        found, _ = await self._store.get(key)
        return self._values(found.value) if found is not None and found.mod_revision == revision else frozenset()

    def _values(self, stored: bytes) -> frozenset[Value]:
        try:
            return self._allocators().values_of(decode(_FORM.adopt(stored)))
        except BadObject:
            return frozenset()

    def _owner(self, key: bytes) -> Key:
        return parse_suffix(key[len(self._cache.prefix) :].decode())


_FORM = ObjectForm("Service", "v1")
