"""etcd is killed while it is used: nothing acknowledged is lost, nothing in doubt is called a success."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.resources import RESOURCES
from apiserver.auth.user import UserInfo
from apiserver.registry.store import Registry, RequestContext, WatchOptions
from apiserver.storage.etcd import EtcdStore, settle
from apiserver.storage.interface import KeyValue, OutcomeUnknown, StoreUnavailable, WriteResult
from machinery.clock import RealClock
from machinery.errors import StatusError
from tests.contract.etcd_server import EtcdServer

CTX = RequestContext(UserInfo("tester"))


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def registry(etcd: EtcdServer) -> AsyncIterator[Registry]:
    store = EtcdStore(etcd.target)
    registry = Registry(store, RealClock(), RESOURCES)
    task = asyncio.create_task(registry.run())
    await registry.wait_ready()
    yield registry
    task.cancel()
    await asyncio.wait((task,))
    await store.close()


def config_map(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": {"a": "1"}}


async def test_acknowledged_writes_survive_kills_and_watchers_see_each_once(
    etcd: EtcdServer, registry: Registry
) -> None:
    maps = registry.resource("", "v1", "configmaps")
    acknowledged: dict[str, int] = {}
    seen: list[tuple[str, int]] = []
    stop, wrote = asyncio.Event(), asyncio.Semaphore(0)

    async def write(worker: int) -> None:
        number = 0
        while not stop.is_set():
            name = f"w{worker}-{number}"
            number += 1
            with contextlib.suppress(StatusError):
                raw = await maps.create(CTX, "ns", config_map(name))
                acknowledged[name] = int(msgspec.json.decode(raw)["metadata"]["resourceVersion"])
                wrote.release()

    async def watch() -> None:
        async for batch in watcher:
            seen.extend((event.key.name, event.resource_version) for event in batch)

    watcher = maps.watch(CTX, "ns", WatchOptions(resource_version=str(registry.feed.revision)))
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        writers = [group.create_task(write(worker)) for worker in range(8)]
        for _ in range(3):
            for _ in range(100):
                await wrote.acquire()
            etcd.kill()
            await asyncio.sleep(0.1)
            await asyncio.to_thread(etcd.start)
        stop.set()
        await asyncio.wait(writers)
        await maps.sync()
        await watcher.aclose()
        await watching
    assert len(acknowledged) >= 300
    for name, revision in acknowledged.items():
        found = msgspec.json.decode(await maps.get(CTX, "ns", name))
        assert found["metadata"]["resourceVersion"] == str(revision)
    assert len(set(seen)) == len(seen), "an event was told twice"
    assert acknowledged.items() <= dict(seen).items()
    assert [revision for _, revision in seen] == sorted(revision for _, revision in seen)


async def test_reads_and_writes_wait_out_a_restart(etcd: EtcdServer, registry: Registry) -> None:
    maps = registry.resource("", "v1", "configmaps")
    await maps.create(CTX, "ns", config_map("a"))
    etcd.kill()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        made = group.create_task(maps.create(CTX, "ns", config_map("b")))
        read = group.create_task(maps.get(CTX, "ns", "a"))
        await asyncio.sleep(0.2)
        assert not made.done() and not read.done()
        await asyncio.to_thread(etcd.start)
    assert msgspec.json.decode(made.result())["metadata"]["name"] == "b"
    # Without asking the store, the cache still answers.
    assert await maps.get(CTX, "ns", "a", resource_version="0") == read.result()


async def test_compaction_while_the_watch_is_cut_tells_what_was_missed(etcd: EtcdServer, registry: Registry) -> None:
    maps = registry.resource("", "v1", "configmaps")
    for name in ("kept", "changed", "gone"):
        await maps.create(CTX, "ns", config_map(name))
    await maps.sync()
    watcher = maps.watch(CTX, "ns", WatchOptions(resource_version=str(registry.feed.revision)))
    watch = registry.feed._watch
    assert watch is not None
    resume = asyncio.Event()
    original = registry.feed._store.watch

    async def delayed(prefix: bytes, after: int) -> Any:
        await resume.wait()
        return await original(prefix, after)

    registry.feed._store.watch = delayed  # type: ignore[method-assign]
    await watch.close()
    other = EtcdStore(etcd.target)
    prefix = b"/registry/configmaps/ns/"
    for name, action in (("changed", "replace"), ("gone", "delete"), ("new", "create")):
        key = prefix + name.encode()
        value = b'{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"%b","namespace":"ns"}}' % name.encode()
        current, _ = await other.get(key)
        if action == "create":
            await other.create(key, value)
        elif current is not None and action == "replace":
            await other.replace(key, value, current.mod_revision)
        elif current is not None:
            await other.delete(key, current.mod_revision)
    await other.compact(await other.current_revision())
    resume.set()
    events: dict[str, bytes] = {}
    async with asyncio.timeout(20):
        while len(events) < 3:
            events.update({event.key.name: event.type for event in await watcher.__anext__()})
    assert events == {"changed": b"MODIFIED", "gone": b"DELETED", "new": b"ADDED"}
    await watcher.aclose()
    await other.close()


async def test_a_frozen_etcd_is_reported_in_time(etcd: EtcdServer) -> None:
    store = EtcdStore(etcd.target, timeout=0.5)
    made = await store.create(b"/registry/a", b"1")
    etcd.pause()
    try:
        async with asyncio.timeout(5):
            with pytest.raises(OutcomeUnknown):
                await store.replace(b"/registry/a", b"2", made.revision)
            with pytest.raises(StoreUnavailable):
                await store.get(b"/registry/a")
    finally:
        etcd.resume()
    await store.close()


async def test_a_store_that_was_never_there_is_unavailable(tmp_path: Path) -> None:
    store = EtcdStore(f"unix:{tmp_path}/missing.sock", timeout=0.3)
    with pytest.raises(StoreUnavailable) as caught:
        await store.create(b"/registry/a", b"1")
    assert not isinstance(caught.value, OutcomeUnknown)
    await store.close()


def kv(value: bytes, created: int, modified: int) -> KeyValue:
    return KeyValue(b"/k", value, created, modified)


@pytest.mark.parametrize(
    ("current", "value", "expected", "outcome"),
    [
        pytest.param(kv(b"mine", 8, 8), b"mine", 0, 8, id="create landed"),
        pytest.param(kv(b"theirs", 4, 4), b"mine", 0, "refused", id="create refused by an older object"),
        pytest.param(kv(b"theirs", 7, 7), b"mine", 0, "unknown", id="create and somebody else's"),
        pytest.param(kv(b"mine", 2, 8), b"mine", 5, 8, id="replace landed"),
        pytest.param(kv(b"theirs", 2, 6), b"mine", 5, "refused", id="replace refused by what was there before"),
        pytest.param(kv(b"theirs", 2, 9), b"mine", 5, "unknown", id="replace and changed again"),
        pytest.param(None, b"mine", 5, "unknown", id="replace and deleted"),
        pytest.param(None, None, 5, 10, id="delete landed"),
        pytest.param(kv(b"new", 9, 9), None, 5, 10, id="delete landed and created again"),
        pytest.param(kv(b"theirs", 2, 9), None, 5, "refused", id="delete refused by a change"),
    ],
)
def test_settling_a_repeated_write(
    current: KeyValue | None, value: bytes | None, expected: int, outcome: int | str
) -> None:
    refused = WriteResult(False, 10, current)
    if outcome == "unknown":
        with pytest.raises(OutcomeUnknown):
            settle(refused, value, expected, seen_before=6)
    elif outcome == "refused":
        assert settle(refused, value, expected, seen_before=6) == refused
    else:
        assert settle(refused, value, expected, seen_before=6) == WriteResult(True, int(outcome), None)
