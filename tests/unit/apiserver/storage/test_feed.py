"""The feed behind all caches: consistent reads, resources that come and go, lost watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from apiserver.storage.cache import ResourceCache
from apiserver.storage.entry import Selection
from apiserver.storage.feed import HISTORY_BOOKMARKS, WatchCache
from apiserver.storage.form import ObjectForm
from apiserver.storage.interface import StoreUnavailable, StoreWatch, WatchBatch
from apiserver.storage.memory import MemoryStore
from machinery.clock import RealClock
from machinery.errors import Expired, ServerTimeout, ServiceUnavailable

FORM = ObjectForm("ConfigMap", "v1")


def cache(prefix: bytes = b"/registry/configmaps/") -> ResourceCache:
    return ResourceCache(prefix, FORM, lambda obj: {})


def value(name: str) -> bytes:
    return FORM.encode({"metadata": {"name": name, "namespace": "ns"}})


class CountingStore(MemoryStore):
    """Answers questions for the revision slowly, and counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def current_revision(self) -> int:
        self.asked += 1
        await self.gate.wait()
        return await super().current_revision()


Serve = Callable[[WatchCache], "asyncio.Task[None]"]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    tasks: list[asyncio.Task[None]] = []

    def start(feed: WatchCache) -> asyncio.Task[None]:
        tasks.append(asyncio.create_task(feed.run()))
        return tasks[-1]

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_waiting_readers_share_a_question(serve: Serve) -> None:
    store = CountingStore()
    feed = WatchCache(store, RealClock())
    serve(feed)
    await feed.wait_ready()
    store.gate.clear()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        first = group.create_task(feed.sync())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for _ in range(50):
            group.create_task(feed.sync())
        await asyncio.sleep(0.01)
        assert store.asked == 1 and not first.done()
        store.gate.set()
    assert store.asked == 2, "those who came later may not use the first answer, but share the second"


async def test_a_question_that_fails_is_told_to_all(serve: Serve) -> None:
    class Broken(CountingStore):
        async def current_revision(self) -> int:
            raise StoreUnavailable("gone")

    feed = WatchCache(Broken(), RealClock())
    serve(feed)
    results = await asyncio.gather(*(feed.sync() for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [ServiceUnavailable] * 3


async def test_before_the_first_snapshot_reads_are_refused() -> None:
    feed = WatchCache(MemoryStore(), RealClock())
    with pytest.raises(ServiceUnavailable):
        await feed.wait_ready(0.01)


async def test_a_revision_that_never_comes_is_told() -> None:
    feed = WatchCache(MemoryStore(), RealClock())
    with pytest.raises(ServerTimeout):
        await feed.reach(10, 0.05)


async def test_resources_come_and_go_without_losing_objects(serve: Serve) -> None:
    store = MemoryStore()
    await store.create(b"/registry/example.com/widgets/ns/early", value("early"))
    feed = WatchCache(store, RealClock())
    serve(feed)
    await feed.wait_ready()
    await store.create(b"/registry/example.com/widgets/ns/late", value("late"))
    await store.create(b"/registry/configmaps/ns/other", value("other"))
    await feed.sync()
    widgets = cache(b"/registry/example.com/widgets/")
    feed.add(widgets)
    assert [entry.key.name for entry in widgets.select(Selection())] == ["early", "late"]
    feed.remove(widgets)
    found, _ = await store.get(b"/registry/example.com/widgets/ns/late")
    assert found is not None
    await store.delete(found.key, found.mod_revision)
    await feed.sync()
    again = cache(b"/registry/example.com/widgets/")
    feed.add(again)
    entry = again.get("ns", "early")
    assert entry is not None and entry.decoded()["metadata"]["name"] == "early"
    assert again.get("ns", "late") is None
    with pytest.raises(ValueError, match="cached already"):
        feed.add(cache(b"/registry/example.com/widgets/"))


async def test_a_broken_watch_resumes_where_it_was(serve: Serve) -> None:
    class Cutting(MemoryStore):
        watched: list[int]

        async def watch(self, prefix: bytes, after: int) -> StoreWatch:
            self.watched.append(after)
            return await super().watch(prefix, after)

    store = Cutting()
    store.watched = []
    feed = WatchCache(store, RealClock(scale=20))
    maps = cache()
    feed.add(maps)
    serve(feed)
    await feed.wait_ready()
    await store.create(b"/registry/configmaps/ns/a", value("a"))
    await feed.sync()
    store.break_watches()
    last = await store.create(b"/registry/configmaps/ns/b", value("b"))
    await feed.sync()
    assert [entry.key.name for entry in maps.select(Selection())] == ["a", "b"]
    assert store.watched == [1, last.revision - 1]
    assert [event.key.name for event in maps.events_after(1, Selection())] == ["a", "b"]


async def test_unreadable_objects_are_skipped(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    await store.create(b"/registry/configmaps/ns/bad", b"k8s\x00protobuf")
    await store.create(b"/registry/configmaps/ns/good", value("good"))
    feed = WatchCache(store, RealClock())
    maps = cache()
    feed.add(maps)
    serve(feed)
    await feed.wait_ready()
    assert [entry.key.name for entry in maps.select(Selection())] == ["good"]
    assert "Skipped unreadable object" in caplog.text


async def test_a_restarted_server_knows_what_happened_before(serve: Serve) -> None:
    store = MemoryStore()
    revisions = []
    for number in range(6):
        written = await store.create(b"/registry/configmaps/ns/x%d" % number, value(f"x{number}"))
        revisions.append(written.revision)
    feed, configmaps = WatchCache(store, RealClock()), cache()
    feed.add(configmaps)
    serve(feed)
    await feed.wait_ready()
    assert len(configmaps) == 6
    seen = configmaps.events_after(revisions[0], Selection())
    assert [event.resource_version for event in seen] == revisions[1:]


async def test_a_compacted_history_is_no_obstacle(serve: Serve) -> None:
    store = MemoryStore()
    for number in range(5):
        written = await store.create(b"/registry/configmaps/ns/x%d" % number, value(f"x{number}"))
    await store.compact(written.revision)
    feed, configmaps = WatchCache(store, RealClock()), cache()
    feed.add(configmaps)
    serve(feed)
    await feed.wait_ready()
    assert len(configmaps) == 5


class SilentStore(MemoryStore):
    """Acknowledges writes long before its watch tells of them, as etcd does under load."""

    released: asyncio.Event

    async def watch(self, prefix: bytes, after: int) -> StoreWatch:
        real = await super().watch(prefix, after)
        released = self.released = asyncio.Event()

        class Late:
            async def next(self) -> WatchBatch:
                await released.wait()
                return await real.next()

            async def request_progress(self) -> None:
                await real.request_progress()

            async def close(self) -> None:
                await real.close()

        return Late()


async def started(serve: Serve, store: MemoryStore) -> tuple[WatchCache, ResourceCache]:
    feed, configmaps = WatchCache(store, RealClock()), cache()
    feed.add(configmaps)
    serve(feed)
    await feed.wait_ready()
    return feed, configmaps


def key(name: str) -> bytes:
    return b"/registry/configmaps/ns/" + name.encode()


async def test_own_writes_show_before_the_watch_tells_of_them(serve: Serve) -> None:
    store = SilentStore()
    feed, configmaps = await started(serve, store)
    start = feed.revision
    made = (await store.create(key("a"), value("a"))).revision
    feed.offer(made, key("a"), value("a"), 0)
    changed = (await store.replace(key("a"), value("a"), made)).revision
    feed.offer(changed, key("a"), value("a"), made)
    gone = (await store.delete(key("a"), changed)).revision
    feed.offer(gone, key("a"), None, changed)
    assert feed.revision == gone
    seen = [(event.type, event.resource_version) for event in configmaps.events_after(start, Selection())]
    assert seen == [(b"ADDED", made), (b"MODIFIED", changed), (b"DELETED", gone)]
    # The watch tells the same later: nothing is shown twice, and what follows is shown.
    last = (await store.create(key("b"), value("b"))).revision
    store.released.set()
    await feed.reach(last)
    assert [event.resource_version for event in configmaps.events_after(start, Selection())] == [
        made,
        changed,
        gone,
        last,
    ]


async def test_an_own_write_waits_for_those_of_others_before_it(serve: Serve) -> None:
    store = SilentStore()
    feed, configmaps = await started(serve, store)
    start = feed.revision
    theirs = (await store.create(key("theirs"), value("theirs"))).revision
    ours = (await store.create(key("ours"), value("ours"))).revision
    feed.offer(ours, key("ours"), value("ours"), 0)
    assert feed.revision == start and len(configmaps) == 0
    store.released.set()
    await feed.reach(ours)
    assert [event.resource_version for event in configmaps.events_after(start, Selection())] == [theirs, ours]


async def test_own_writes_out_of_order_are_shown_in_order(serve: Serve) -> None:
    store = SilentStore()
    feed, configmaps = await started(serve, store)
    start = feed.revision
    revisions = [(await store.create(key(name), value(name))).revision for name in "abc"]
    for name, revision in reversed(list(zip("abc", revisions, strict=True))):
        feed.offer(revision, key(name), value(name), 0)
    assert [event.resource_version for event in configmaps.events_after(start, Selection())] == revisions


async def test_events_are_forgotten_some_bookmarks_later(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apiserver.storage.cache.RING_KEEP", 0)
    store = MemoryStore()
    feed, configmaps = await started(serve, store)
    start = feed.revision
    old = (await store.create(key("a"), value("a"))).revision
    await feed.reach(old)
    feed.grow_old()
    young = (await store.create(key("b"), value("b"))).revision
    await feed.reach(young)
    for _ in range(HISTORY_BOOKMARKS - 1):
        feed.grow_old()
    assert len(configmaps.events_after(start, Selection())) == 2
    feed.grow_old()
    assert [event.resource_version for event in configmaps.events_after(old, Selection())] == [young]
    with pytest.raises(Expired):
        configmaps.events_after(start, Selection())
