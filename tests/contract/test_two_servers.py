"""Two API servers on one etcd: each read sees what the other one has acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.resources import RESOURCES
from apiserver.auth.user import UserInfo
from apiserver.registry.store import DeleteOptions, ListOptions, Registry, RequestContext
from apiserver.storage.etcd import EtcdStore
from machinery.clock import RealClock
from machinery.errors import Conflict, NotFound
from tests.contract.etcd_server import EtcdServer

MERGE = "application/merge-patch+json"


def ctx() -> RequestContext:
    return RequestContext(UserInfo("tester"))


@contextlib.asynccontextmanager
async def serving(target: str) -> AsyncIterator[Registry]:
    store = EtcdStore(target)
    registry = Registry(store, RealClock(), RESOURCES)
    task = asyncio.create_task(registry.run())
    await registry.wait_ready()
    yield registry
    task.cancel()
    await asyncio.wait((task,))
    await store.close()


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[tuple[Registry, Registry]]:
    etcd = EtcdServer(tmp_path)
    etcd.start()
    try:
        async with serving(etcd.target) as first, serving(etcd.target) as second:
            yield first, second
    finally:
        etcd.kill()


def load(raw: bytes) -> dict[str, Any]:
    obj: dict[str, Any] = msgspec.json.decode(raw)
    return obj


async def test_reads_see_acknowledged_writes_of_the_other(servers: tuple[Registry, Registry]) -> None:
    here, there = (server.resource("", "v1", "configmaps") for server in servers)

    async def hop(worker: int) -> None:
        name = f"c{worker}"
        for number in range(10):
            writer, reader = (here, there) if number % 2 else (there, here)
            if number == 0:
                await writer.create(ctx(), "ns", {"metadata": {"name": name}, "data": {"n": "0"}})
            else:
                await writer.patch(ctx(), "ns", name, MERGE, b'{"data":{"n":"%d"}}' % number)
            assert load(await reader.get(ctx(), "ns", name))["data"]["n"] == str(number)
            page = await reader.list(ctx(), "ns", ListOptions(field_selector=f"metadata.name={name}"))
            assert load(page.items[0])["data"]["n"] == str(number)
        await here.delete(ctx(), "ns", name, DeleteOptions())
        with pytest.raises(NotFound):
            await there.get(ctx(), "ns", name)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for worker in range(8):
            group.create_task(hop(worker))


async def test_writes_race_fairly(servers: tuple[Registry, Registry]) -> None:
    here, there = (server.resource("", "v1", "configmaps") for server in servers)
    await here.create(ctx(), "ns", {"metadata": {"name": "n"}, "data": {}})
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for number in range(20):
            store = here if number % 2 else there
            group.create_task(store.patch(ctx(), "ns", "n", MERGE, b'{"data":{"k%d":"v"}}' % number))
    assert len(load(await here.get(ctx(), "ns", "n"))["data"]) == 20
    stale = load(await there.get(ctx(), "ns", "n"))
    await here.patch(ctx(), "ns", "n", MERGE, b'{"data":{"last":"v"}}')
    with pytest.raises(Conflict):
        await there.update(ctx(), "ns", "n", stale)


async def test_a_revision_without_events_does_not_stall_reads(servers: tuple[Registry, Registry]) -> None:
    here, there = (server.resource("", "v1", "configmaps") for server in servers)
    await here.create(ctx(), "ns", {"metadata": {"name": "n"}})
    assert (await servers[0]._store.create(b"/elsewhere/key", b"x")).ok
    async with asyncio.timeout(3):
        assert await there.get(ctx(), "ns", "n")
