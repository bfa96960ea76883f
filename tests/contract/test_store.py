"""What every store must do: the memory store and a real etcd pass the same suite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from apiserver.storage.etcd import EtcdStore
from apiserver.storage.interface import (
    Beside,
    Compacted,
    FutureRevision,
    Store,
    StoreEvent,
    StoreWatch,
    prefix_end,
)
from apiserver.storage.memory import MemoryStore
from tests.contract.etcd_server import EtcdServer

PREFIX = b"/registry/things/"
END = prefix_end(PREFIX)


def key(name: str) -> bytes:
    return PREFIX + name.encode()


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path_factory.mktemp("etcd"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=["memory", "etcd"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    opened = EtcdStore(request.getfixturevalue("etcd").target)
    async with asyncio.timeout(10):
        for item in (await opened.range(b"/registry/", b"/registry0")).items:
            await opened.delete(item.key, item.mod_revision)
    yield opened
    await opened.close()


async def events(watch: StoreWatch, count: int) -> list[StoreEvent]:
    found: list[StoreEvent] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found += (await watch.next()).events
    return found


async def test_create_only_if_absent(store: Store) -> None:
    before = await store.current_revision()
    made = await store.create(key("a"), b"1")
    assert made.ok and made.revision == before + 1
    again = await store.create(key("a"), b"2")
    assert not again.ok and again.current is not None
    assert again.current == (key("a"), b"1", made.revision, made.revision)
    assert await store.current_revision() == made.revision


async def test_replace_compares_the_revision(store: Store) -> None:
    made = await store.create(key("a"), b"1")
    changed = await store.replace(key("a"), b"2", made.revision)
    assert changed.ok and changed.revision == made.revision + 1
    stale = await store.replace(key("a"), b"3", made.revision)
    assert not stale.ok and stale.current is not None and stale.current.value == b"2"
    assert stale.current.create_revision == made.revision
    missing = await store.replace(key("b"), b"3", made.revision)
    assert not missing.ok and missing.current is None


async def test_delete_compares_the_revision(store: Store) -> None:
    made = await store.create(key("a"), b"1")
    changed = await store.replace(key("a"), b"2", made.revision)
    stale = await store.delete(key("a"), made.revision)
    assert not stale.ok and stale.current is not None and stale.current.value == b"2"
    gone = await store.delete(key("a"), changed.revision)
    assert gone.ok and gone.revision == changed.revision + 1
    assert (await store.get(key("a")))[0] is None
    again = await store.delete(key("a"), changed.revision)
    assert not again.ok and again.current is None
    assert await store.current_revision() == gone.revision


async def test_keys_beside_are_written_with_it_or_not_at_all(store: Store) -> None:
    main, taken, free = (key(name) for name in ("main", "taken", "free"))
    held = await store.create(taken, b"theirs")
    refused = await store.create(main, b"v", beside=[Beside(free, b"f"), Beside(taken, b"t")])
    assert (refused.ok, refused.current, refused.beside[0]) == (False, None, None)
    assert refused.beside[1] is not None and refused.beside[1].value == b"theirs"
    assert (await store.get(main))[0] is None and (await store.get(free))[0] is None
    watch = await store.watch(PREFIX, held.revision)
    made = await store.create(main, b"v", beside=[Beside(free, b"f"), Beside(taken, b"t", held.revision)])
    assert made.ok
    found = [(await store.get(name))[0] for name in (main, free, taken)]
    assert [(each.value, each.mod_revision) for each in found if each] == [
        (b"v", made.revision),
        (b"f", made.revision),
        (b"t", made.revision),
    ]
    changed = await store.replace(main, b"w", made.revision, beside=[Beside(free)])
    assert changed.ok
    stale = await store.delete(main, made.revision, beside=[Beside(taken)])
    assert not stale.ok and stale.current is not None and stale.current.value == b"w"
    gone = await store.delete(main, changed.revision, beside=[Beside(taken), Beside(free)])
    assert gone.ok and (await store.range(PREFIX, END)).items == []
    seen = [(each.kv.key, each.deleted, each.kv.mod_revision) for each in await events(watch, 7)]
    await watch.close()
    first, second, third = made.revision, changed.revision, gone.revision
    assert sorted(seen, key=lambda each: (each[2], each[0])) == [
        (free, False, first),
        (main, False, first),
        (taken, False, first),
        (free, True, second),
        (main, False, second),
        (main, True, third),
        (taken, True, third),
    ]


async def test_it_tells_its_size(store: Store) -> None:
    assert (await store.create(key("a"), b"x" * 5000)).ok
    assert await store.size() > 5000


async def test_get_tells_the_revision(store: Store) -> None:
    made = await store.create(key("a"), b"1")
    other = await store.create(key("b"), b"1")
    found, revision = await store.get(key("a"))
    assert found == (key("a"), b"1", made.revision, made.revision)
    assert revision == other.revision
    assert await store.get(key("missing")) == (None, other.revision)


async def test_a_key_created_again_starts_anew(store: Store) -> None:
    made = await store.create(key("a"), b"1")
    await store.delete(key("a"), made.revision)
    again = await store.create(key("a"), b"2")
    assert again.ok
    assert (await store.get(key("a")))[0] == (key("a"), b"2", again.revision, again.revision)


async def test_range_is_ordered_and_limited(store: Store) -> None:
    for name in ("c", "a", "d", "b"):
        await store.create(key(name), name.encode())
    await store.create(b"/registry/thingsx/z", b"other")
    page = await store.range(PREFIX, END, limit=3)
    assert [item.value for item in page.items] == [b"a", b"b", b"c"]
    assert page.more and page.total == 4
    rest = await store.range(page.items[-1].key + b"\0", END)
    assert [item.value for item in rest.items] == [b"d"] and not rest.more and rest.total == 1


async def test_range_shows_the_past(store: Store) -> None:
    made = await store.create(key("a"), b"1")
    second = await store.create(key("b"), b"1")
    await store.replace(key("a"), b"2", made.revision)
    await store.delete(key("b"), second.revision)
    past = await store.range(PREFIX, END, revision=second.revision)
    assert [(item.key, item.value) for item in past.items] == [(key("a"), b"1"), (key("b"), b"1")]
    assert past.revision == await store.current_revision()
    now = await store.range(PREFIX, END)
    assert [(item.key, item.value) for item in now.items] == [(key("a"), b"2")]


async def test_range_of_the_future(store: Store) -> None:
    revision = await store.current_revision()
    with pytest.raises(FutureRevision):
        await store.range(PREFIX, END, revision=revision + 100)


async def test_compaction_forgets_the_past(store: Store) -> None:
    made = await store.create(key("a"), b"1")
    changed = await store.replace(key("a"), b"2", made.revision)
    other = await store.create(key("b"), b"1")
    await store.compact(changed.revision)
    await store.compact(changed.revision)  # again: no error
    with pytest.raises(Compacted):
        await store.range(PREFIX, END, revision=made.revision)
    kept = await store.range(PREFIX, END, revision=changed.revision)
    assert [item.value for item in kept.items] == [b"2"]
    assert len((await store.range(PREFIX, END, revision=other.revision)).items) == 2
    with pytest.raises(FutureRevision):
        await store.compact(other.revision + 100)


async def test_watch_from_a_revision(store: Store) -> None:
    made = await store.create(key("a"), b"1")
    changed = await store.replace(key("a"), b"2", made.revision)
    gone = await store.delete(key("a"), changed.revision)
    await store.create(b"/other/a", b"1")
    watch = await store.watch(PREFIX, made.revision)
    seen = await events(watch, 2)
    later = await store.create(key("b"), b"3")
    seen += await events(watch, 1)
    await watch.close()
    assert [event.deleted for event in seen] == [False, True, False]
    assert [event.kv.mod_revision for event in seen] == [changed.revision, gone.revision, later.revision]
    assert seen[0].kv == (key("a"), b"2", made.revision, changed.revision)
    assert seen[1].kv.value == b"" and seen[2].kv.create_revision == later.revision


async def test_watch_of_the_compacted_past(store: Store) -> None:
    made = await store.create(key("a"), b"1")
    changed = await store.replace(key("a"), b"2", made.revision)
    last = await store.replace(key("a"), b"3", changed.revision)
    await store.compact(last.revision)
    watch = await store.watch(PREFIX, made.revision - 1)
    with pytest.raises(Compacted):
        await events(watch, 1)
    await watch.close()
    resumed = await store.watch(PREFIX, changed.revision)
    assert [event.kv.value for event in await events(resumed, 1)] == [b"3"]
    await resumed.close()


async def test_watch_tells_its_progress(store: Store) -> None:
    made = await store.create(key("a"), b"1")
    watch = await store.watch(PREFIX, made.revision)
    other = await store.create(b"/other/unseen", b"1")
    revision = 0
    async with asyncio.timeout(10):
        while revision < other.revision:
            await watch.request_progress()
            batch = await watch.next()
            assert not batch.events
            revision = batch.revision
    await watch.close()
    await store.delete(b"/other/unseen", other.revision)


async def test_concurrent_writers_of_one_key_take_turns(store: Store) -> None:
    await store.create(key("n"), b"0")

    async def add() -> None:
        while True:
            current, _ = await store.get(key("n"))
            assert current is not None
            if (await store.replace(key("n"), b"%d" % (int(current.value) + 1), current.mod_revision)).ok:
                return

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(add())
    found, _ = await store.get(key("n"))
    assert found is not None and found.value == b"16"


async def test_big_values_and_batches_arrive_whole(store: Store) -> None:
    start = await store.current_revision()
    for number in range(8):
        await store.create(key(f"big{number}"), bytes([number]) * 1_000_000)
    watch = await store.watch(PREFIX, start)
    seen = await events(watch, 8)
    await watch.close()
    assert [event.kv.value[:1] for event in seen] == [bytes([number]) for number in range(8)]
    assert {len(event.kv.value) for event in seen} == {1_000_000}


def test_prefix_end() -> None:
    assert prefix_end(b"/a/") == b"/a0"
    assert prefix_end(b"a\xff") == b"b"
    assert Path(END.decode()).name == "things0"


async def test_a_value_with_a_lifetime_goes_away_and_one_that_was_kept_does_not(store: Store) -> None:
    watch = await store.watch(PREFIX, await store.current_revision())
    short = await store.create(key("short"), b"1", ttl=1.0)
    again = await store.replace(key("short"), b"2", short.revision, ttl=1.0)
    kept = await store.create(key("kept"), b"1", ttl=1.0)
    kept = await store.replace(key("kept"), b"2", kept.revision)
    found = await events(watch, 5)
    assert [(event.kv.key, event.deleted) for event in found[4:]] == [(key("short"), True)]
    assert found[4].kv.mod_revision > max(again.revision, kept.revision)
    assert (await store.get(key("short")))[0] is None
    present, _ = await store.get(key("kept"))
    assert present is not None and present.value == b"2"
    await watch.close()


async def test_a_transaction_may_have_as_many_keys_as_a_service_has_node_ports(store: Store) -> None:
    beside = [Beside(key(f"port-{number}"), b"taken") for number in range(400)]
    made = await store.create(key("service"), b"x", beside=beside)
    assert made.ok
    assert (await store.range(PREFIX, END, limit=1)).total == 401
    gone = [each._replace(value=None) for each in beside]
    assert (await store.delete(key("service"), made.revision, gone)).ok
    assert (await store.range(PREFIX, END, limit=1)).total == 0
