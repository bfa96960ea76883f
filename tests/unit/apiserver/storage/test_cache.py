"""The watch cache of one resource: order, history, watchers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.storage import cache as cache_module
from apiserver.storage import watcher as watcher_module
from apiserver.storage.cache import ResourceCache
from apiserver.storage.entry import ADDED, BOOKMARK, DELETED, MODIFIED, Event, Selection
from apiserver.storage.form import ObjectForm
from apiserver.storage.interface import KeyValue, StoreEvent
from apiserver.storage.watcher import Watcher
from machinery.errors import Expired
from machinery.selectors import FieldSelector, LabelSelector

FORM = ObjectForm("ConfigMap", "v1")
PREFIX = b"/registry/configmaps/"


def read_fields(obj: dict[str, Any]) -> dict[str, str]:
    return {"data.color": obj.get("data", {}).get("color", "")}


def kv(name: str, revision: int, created: int = 0, **data: str) -> KeyValue:
    namespace, _, bare = name.partition("/")
    obj = {"metadata": {"name": bare, "namespace": namespace, "labels": data}, "data": data}
    return KeyValue(PREFIX + name.encode(), FORM.encode(obj), created or revision, revision)


def put(name: str, revision: int, created: int = 0, **data: str) -> StoreEvent:
    return StoreEvent(kv(name, revision, created, **data), False)


def gone(name: str, revision: int) -> StoreEvent:
    return StoreEvent(KeyValue(PREFIX + name.encode(), b"", 0, revision), True)


def loaded(*items: KeyValue, revision: int = 10) -> ResourceCache:
    cache = ResourceCache(PREFIX, FORM, read_fields)
    cache.load(items, revision)
    return cache


def watcher(cache: ResourceCache, selection: Selection | None = None, limit: int = 100, after: int = 0) -> Watcher:
    made = Watcher(
        selection or Selection(), FORM, after=after, bookmarks=True, forget=cache.forget, start=None, limit=limit
    )
    cache.join(made)
    return made


async def batch(source: Watcher) -> list[tuple[bytes, str, int]]:
    async with asyncio.timeout(2):
        return [(event.type, str(event.key), event.resource_version) for event in await source.__anext__()]


async def test_large_events_do_not_pile_up_for_a_watcher_who_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher_module, "BUFFER_BYTES", 100_000)
    cache = loaded()
    slow, quick = watcher(cache, limit=10_000), watcher(cache, limit=10_000)
    for number in range(100):
        cache.apply([put("ns/a", 11 + number, 11, color="x" * 10_000)])
        assert await batch(quick)
    with pytest.raises(Expired):
        await batch(slow)
    assert list(cache.watchers) == [quick]


async def test_many_small_events_wait_and_initial_ones_weigh_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher_module, "BUFFER_BYTES", 1_000_000)
    items = [kv(f"ns/i{number}", 3, color="x" * 10_000) for number in range(200)]
    cache = loaded(*items)
    late = watcher(cache, limit=10_000)
    late.preload(cache.initial_events(Selection()))
    for number in range(1000):
        cache.apply([put("ns/a", 11 + number, 11)])
    assert len(await batch(late)) == 1200


def test_history_starts_with_the_first_snapshot() -> None:
    cache = loaded(kv("ns/a", 3), revision=10)
    assert cache.events_after(10, Selection()) == []
    with pytest.raises(Expired, match=r"too old resource version: 9 \(10\)"):
        cache.events_after(9, Selection())


def test_events_after_a_revision() -> None:
    cache = loaded(kv("ns/a", 3))
    cache.apply([put("ns/b", 11), put("ns/a", 12, 3), gone("ns/b", 13), put("other/c", 14)])
    events = cache.events_after(11, Selection("ns"))
    assert [(event.type, event.key.name) for event in events] == [(MODIFIED, "a"), (DELETED, "b")]
    assert FORM.restamp(events[1].raw, 0) == FORM.with_revision(kv("ns/b", 11).value, 0)


def test_deleting_the_unknown_is_nothing() -> None:
    cache = loaded()
    cache.apply([gone("ns/a", 11)])
    assert cache.events_after(10, Selection()) == []


def test_the_ring_is_bounded_by_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "RING_EVENTS", 5)
    cache = loaded()
    for number in range(8):
        cache.apply([put("ns/a", 11 + number, 11)])
    assert [event.resource_version for event in cache.events_after(13, Selection())] == [14, 15, 16, 17, 18]
    with pytest.raises(Expired):
        cache.events_after(12, Selection())


def test_the_ring_is_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "RING_BYTES", 1000)
    monkeypatch.setattr(cache_module, "RING_KEEP", 2)
    cache = loaded()
    for number in range(8):
        cache.apply([put("ns/a", 11 + number, 11, color="x" * 600)])
    assert len(cache.events_after(16, Selection())) == 2
    with pytest.raises(Expired):
        cache.events_after(15, Selection())


def test_old_events_are_forgotten_but_for_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "RING_KEEP", 2)
    cache = loaded()
    cache.apply([put("ns/a", 11 + number, 11) for number in range(8)])
    cache.forget_until(14)
    assert [event.resource_version for event in cache.events_after(14, Selection())] == [15, 16, 17, 18]
    with pytest.raises(Expired):
        cache.events_after(13, Selection())
    cache.forget_until(99)
    assert [event.resource_version for event in cache.events_after(16, Selection())] == [17, 18]


async def test_a_second_snapshot_tells_what_was_missed() -> None:
    cache = loaded(kv("ns/same", 2), kv("ns/changed", 3), kv("ns/gone", 4))
    seen = watcher(cache)
    cache.load([kv("ns/same", 2), kv("ns/changed", 15, 3), kv("ns/new", 14)], 20)
    assert await batch(seen) == [(ADDED, "ns/new", 14), (MODIFIED, "ns/changed", 15), (DELETED, "ns/gone", 20)]
    assert [entry.key.name for entry in cache.select(Selection())] == ["changed", "new", "same"]


async def test_a_slow_watcher_ends_alone() -> None:
    cache = loaded()
    slow, fast = watcher(cache, limit=3), watcher(cache)
    cache.apply([put(f"ns/a{number}", 11 + number) for number in range(4)])
    with pytest.raises(Expired):
        await slow.__anext__()
    assert len(await batch(fast)) == 4
    cache.apply([put("ns/b", 20)])
    assert await batch(fast) == [(ADDED, "ns/b", 20)]
    assert list(cache.watchers) == [fast]


async def test_a_watch_of_the_future_starts_there() -> None:
    cache = loaded()
    seen = watcher(cache, after=12)
    cache.apply([put("ns/a", 11), put("ns/b", 12)])
    cache.apply([put("ns/c", 13)])
    assert await batch(seen) == [(ADDED, "ns/c", 13)]


async def test_closing_ends_the_iteration() -> None:
    cache = loaded()
    seen = watcher(cache)
    async with asyncio.timeout(2), asyncio.TaskGroup() as group:
        task = group.create_task(batches(seen))
        await asyncio.sleep(0)
        await seen.aclose()
    assert task.result() == []
    assert list(cache.watchers) == []


async def batches(source: Watcher) -> list[object]:
    return [each async for each in source]


async def test_bookmarks_come_in_order() -> None:
    cache = loaded()
    seen = watcher(cache)
    cache.apply([put("ns/a", 11)])
    seen.bookmark(12)
    assert [event[0] for event in await batch(seen)] == [ADDED, BOOKMARK]


async def test_many_watchers_get_bursts_together_and_whoever_joins_meanwhile_nothing_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("apiserver.storage.cache.PACE", 0.05)
    cache = loaded()
    crowd = [watcher(cache, Selection("ns") if number % 2 else None) for number in range(20)]
    cache.apply([put("ns/a", 11)])
    assert [await batch(each) for each in crowd] == [[(ADDED, "ns/a", 11)]] * 20
    cache.apply([put("ns/b", 12)])
    late = Watcher(Selection(), FORM, after=0, bookmarks=True, forget=cache.forget)
    late.preload(cache.events_after(11, Selection()))
    cache.join(late)
    cache.apply([put("ns/c", 13), put("other/d", 14)])
    assert [event[1] for event in await batch(late)] == ["ns/b"]
    assert [event[1] for event in await batch(late)] == ["ns/c", "other/d"]
    for number, each in enumerate(crowd):
        assert [event[1] for event in await batch(each)] == ["ns/b", "ns/c", "other/d"][: 2 if number % 2 else 3]


async def test_bookmarks_never_overtake_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apiserver.storage.cache.PACE", 60.0)
    cache = loaded()
    crowd = [watcher(cache) for _ in range(20)]
    cache.apply([put("ns/a", 11)])
    assert [await batch(each) for each in crowd] == [[(ADDED, "ns/a", 11)]] * 20
    cache.apply([put("ns/b", 12)])
    for each in cache.watchers:
        each.bookmark(12)
    assert [[event[0] for event in await batch(each)] for each in crowd] == [[ADDED, BOOKMARK]] * 20


async def test_a_sink_takes_events_only_while_the_reader_waits() -> None:
    cache = loaded()
    seen = watcher(cache)
    taken: list[list[str]] = []
    free = True

    def sink(events: list[Event]) -> bool:
        if free:
            taken.append([str(event.key) for event in events])
        return free

    seen.sink = sink
    cache.apply([put("ns/a", 11)])
    assert taken == [] and [event[1] for event in await batch(seen)] == ["ns/a"], "nobody was waiting"
    reading = asyncio.ensure_future(batch(seen))
    await asyncio.sleep(0)
    cache.apply([put("ns/b", 12)])
    assert taken == [["ns/b"]] and not reading.done()
    free = False
    cache.apply([put("ns/c", 13)])
    cache.apply([put("ns/d", 14)])
    assert [event[1] for event in await reading] == ["ns/c", "ns/d"] and taken == [["ns/b"]]


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        pytest.param(Selection(), ["a-b/x", "a/x", "a/y"], id="all"),
        pytest.param(Selection("a"), ["a/x", "a/y"], id="namespace"),
        pytest.param(Selection("a", None, FieldSelector.parse("metadata.name=y")), ["a/y"], id="name"),
        pytest.param(Selection("", None, FieldSelector.parse("metadata.name=x")), ["a-b/x", "a/x"], id="name anywhere"),
        pytest.param(Selection("", None, FieldSelector.parse("metadata.namespace=a-b")), ["a-b/x"], id="in namespace"),
        pytest.param(Selection("", LabelSelector.parse("color=red")), ["a-b/x", "a/y"], id="label"),
        pytest.param(
            Selection("a", None, FieldSelector.parse("data.color!=red"), read_fields), ["a/x"], id="field differs"
        ),
    ],
)
def test_selections(selection: Selection, names: list[str]) -> None:
    cache = loaded(kv("a/x", 1, color="blue"), kv("a/y", 2, color="red"), kv("a-b/x", 3, color="red"))
    assert [str(entry.key) for entry in cache.select(selection)] == names


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(["red", "blue", None])), min_size=1, max_size=30
)


@given(OPERATIONS, st.integers(0, 30))
def test_a_selective_watch_replays_to_the_selected_state(operations: list[tuple[str, str | None]], split: int) -> None:
    """Whoever starts anywhere and follows the events ends with exactly what a list selects."""
    cache = loaded(revision=1)
    selection = Selection("ns", LabelSelector.parse("color=red"))
    state: dict[str, int] = {}
    start = 1
    revision = 1
    for index, (name, color) in enumerate(operations):
        if index == split:
            state = {str(entry.key): entry.revision for entry in cache.select(selection)}
            start = revision
        revision += 1
        cache.apply([gone(f"ns/{name}", revision) if color is None else put(f"ns/{name}", revision, color=color)])
    for event in cache.events_after(start, selection):
        key = str(event.key)
        assert (event.type == ADDED) == (key not in state), "only what is not there can be added"
        if event.type == DELETED:
            del state[key]
        else:
            state[key] = event.resource_version
    assert state == {str(entry.key): entry.revision for entry in cache.select(selection)}
