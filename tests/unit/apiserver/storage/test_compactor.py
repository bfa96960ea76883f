"""Compaction keeps one interval of history."""

from __future__ import annotations

import asyncio

import pytest

from apiserver.storage.compactor import Compactor
from apiserver.storage.interface import Compacted, prefix_end
from apiserver.storage.memory import MemoryStore
from machinery.clock import VirtualClock

PREFIX = b"/registry/"


async def test_history_older_than_an_interval_goes() -> None:
    store, clock = MemoryStore(), VirtualClock()
    task = asyncio.create_task(Compactor(store, clock).run())
    first = await store.create(b"/registry/a", b"1")
    await clock.advance(300)
    second = await store.create(b"/registry/b", b"1")
    assert (await store.range(PREFIX, prefix_end(PREFIX), revision=first.revision)).total == 1
    await clock.advance(300)
    assert (await store.range(PREFIX, prefix_end(PREFIX), revision=first.revision)).total == 1
    await clock.advance(300)
    with pytest.raises(Compacted):
        await store.range(PREFIX, prefix_end(PREFIX), revision=first.revision)
    assert (await store.range(PREFIX, prefix_end(PREFIX), revision=second.revision)).total == 2
    task.cancel()
    await asyncio.wait((task,))


async def test_an_unreachable_store_is_tried_again() -> None:
    clock = VirtualClock()

    class Flaky(MemoryStore):
        broken = False

        async def current_revision(self) -> int:
            if self.broken:
                self._check_open()
                from apiserver.storage.interface import StoreUnavailable

                raise StoreUnavailable("gone")
            return await super().current_revision()

    store = Flaky()
    await store.create(b"/registry/a", b"1")
    task = asyncio.create_task(Compactor(store, clock).run())
    await clock.advance(1)
    store.broken = True
    await clock.advance(600)
    store.broken = False
    await store.create(b"/registry/b", b"1")
    await clock.advance(600)
    assert not task.done()
    with pytest.raises(Compacted):
        await store.range(PREFIX, prefix_end(PREFIX), revision=2)
    task.cancel()
    await asyncio.wait((task,))
