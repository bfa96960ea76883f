"""Puts the records of cluster IPs and node ports right, every three minutes as upstream does.

Owns: records that stored Services lack (written before there were records, or removed by somebody) are written, records
whose Service does not hold them are removed after a minute. Never touches Services. Every API server runs it: all
writes are conditional.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Final

from apiserver.registry.allocation_records import (
    ADDRESSES,
    PORTS,
    Record,
    read_record,
    record_key,
    recorded_port,
    write_record,
)
from apiserver.registry.allocators import Key, ServiceAllocators, Value
from apiserver.registry.service_store import GRACE
from apiserver.storage.cache import ResourceCache
from apiserver.storage.entry import Selection
from apiserver.storage.interface import KeyValue, Store, StoreError, prefix_end
from machinery import log
from machinery.clock import Clock
from machinery.log import kv
from machinery.meta import parse_time, rfc3339

PERIOD: Final = 180.0
"""Cluster seconds."""
PAGE: Final = 500
_log = log.get(__name__)


def plan_repair(
    held: Mapping[Value, Key], records: Mapping[Value, Record], clock: Clock
) -> tuple[dict[Value, Key], list[Value]]:
    """Which records to write, and which to remove. A user's own records are left alone."""
    missing = {value: key for value, key in held.items() if value not in records}
    stale = [
        value
        for value, record in records.items()
        if record.ours and held.get(value) != record.owner and _is_old(record.created, clock)
    ]
    return missing, stale


def _is_old(created: str, clock: Clock) -> bool:
    try:
        return clock.elapsed(parse_time(created)) >= GRACE
    except ValueError:
        return True


class AllocationRepair:
    """Looks at all Services and all records."""

    def __init__(self, store: Store, services: ResourceCache, allocators: ServiceAllocators, clock: Clock) -> None:
        self._store = store
        self._services = services
        self._allocators = allocators
        self._clock = clock

    async def run(self) -> None:
        """Repair until cancelled, once the caches are filled."""
        while True:
            try:
                await self.repair()
            except StoreError as error:
                _log.warning("Could not repair the allocations", extra=kv(error=error))
            await self._clock.sleep(PERIOD)

    async def repair(self) -> None:
        """One look. Raises StoreError."""
        found = {value: each async for value, each in self._records()}
        # The Services of after the records: what has been recorded meanwhile is not missing, and too young to be stale.
        held = dict(self._held())
        records = {value: read_record(value, each.value) for value, each in found.items()}
        missing, stale = plan_repair(held, records, self._clock)
        now = rfc3339(self._clock.now())
        for value, owner in missing.items():
            await self._store.create(record_key(value), write_record(value, owner, now))
        for value in stale:
            await self._store.delete(record_key(value), found[value].mod_revision)
        self._allocators.unlearn()
        if missing or stale:
            _log.info("Repaired the allocations", extra=kv(written=len(missing), removed=len(stale)))

    def _held(self) -> Iterator[tuple[Value, Key]]:
        for entry in self._services.select(Selection()):
            for value in self._allocators.values_of(entry.decoded()):
                yield value, entry.key

    async def _records(self) -> AsyncIterator[tuple[Value, KeyValue]]:
        for prefix in (ADDRESSES, PORTS):
            start = prefix
            while True:
                page = await self._store.range(start, prefix_end(prefix), limit=PAGE)
                for each in page.items:
                    value = _value_of(each)
                    if value is not None:
                        yield value, each
                if not page.more:
                    break
                start = page.items[-1].key + b"\0"


def _value_of(record: KeyValue) -> Value | None:
    if record.key.startswith(ADDRESSES):
        return record.key.removeprefix(ADDRESSES).decode("utf-8", "replace")
    return recorded_port(record.key)
