"""The client library against a real API server: caches, patches, elections, events; restarts and kills in between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from api import resources
from api.models import core_v1, meta_v1
from client.backoff import Backoff
from client.client import Client, PatchType, Write, recorded_writes
from client.events import NORMAL, EventRecorder
from client.informer import EventHandler, Informer
from client.leases import LeaderElector
from machinery.clock import RealClock
from machinery.errors import AlreadyExists, Conflict, NotFound, ServiceUnavailable, StatusError
from machinery.meta import ObjectKey
from tests.contract.etcd_server import EtcdServer
from tests.harness.apiserver import RunningApiServer, running_apiserver
from tests.integration.controller_manager.hollow import eventually

NS = "default"
MAPS = resources.of(core_v1.ConfigMap)


@pytest.fixture
async def server() -> AsyncIterator[RunningApiServer]:
    async with running_apiserver() as running:
        yield running


@pytest.fixture
async def client(server: RunningApiServer) -> AsyncIterator[Client]:
    made = Client.connect(server.grpc_target, server.admin_tls)
    yield made
    await made.close()


def config_map(name: str, **data: str) -> core_v1.ConfigMap:
    return core_v1.ConfigMap(metadata=meta_v1.ObjectMeta(name=name, namespace=NS), data=data)


@contextlib.asynccontextmanager
async def running(informer: Informer[Any]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(informer.run())
    try:
        await asyncio.wait_for(informer.wait_synced(), 10)
        yield
    finally:
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_verbs_and_errors(client: Client) -> None:
    made = await client.create(config_map("a", x="1"))
    assert made.metadata is not None
    with pytest.raises(AlreadyExists):
        await client.create(config_map("a"))
    changed = await client.patch(core_v1.ConfigMap, "a", {"data": {"x": "2"}}, NS)
    assert changed.data == {"x": "2"}
    with pytest.raises(Conflict):
        await client.patch(
            core_v1.ConfigMap, "a", {"data": {"x": "3"}}, NS, resource_version=made.metadata.resourceVersion
        )
    with pytest.raises(Conflict):
        await client.delete(core_v1.ConfigMap, "a", NS, uid="another")
    assert (await client.get(MAPS, "a", NS))["data"] == {"x": "2"}
    page = await client.list(core_v1.ConfigMap, NS, limit=1)
    assert len(page.items) == 1
    with recorded_writes() as writes:
        await client.delete(core_v1.ConfigMap, "a", NS)
    assert [(each.key, each.gone) for each in writes] == [(ObjectKey(NS, "a"), True)]
    with pytest.raises(NotFound):
        await client.get(core_v1.ConfigMap, "a", NS)


async def test_a_cache_follows_and_knows_when_it_has_seen_a_write(client: Client) -> None:
    informer: Informer[core_v1.ConfigMap] = Informer(client, core_v1.ConfigMap, clock=RealClock(), namespace=NS)
    told: list[str] = []
    informer.add_handler(
        EventHandler(
            lambda new: told.append(f"+{new.metadata.name}"),  # type: ignore[union-attr]
            lambda _, new: told.append(f"~{new.metadata.name}"),  # type: ignore[union-attr]
            lambda old: told.append(f"-{old.metadata.name}"),  # type: ignore[union-attr]
        )
    )
    async with running(informer):
        told.clear()
        with recorded_writes() as writes:
            await client.create(config_map("a"))
            await client.patch(core_v1.ConfigMap, "a", {"data": {"x": "1"}}, NS)
            await client.delete(core_v1.ConfigMap, "a", NS)
        seen = asyncio.Event()
        informer.when_seen(writes[-1], seen.set)
        await asyncio.wait_for(seen.wait(), 5)
        assert told == ["+a", "~a", "-a"]
        assert all(informer.has_seen(each) for each in writes)
        assert not informer.has_seen(Write(MAPS, ObjectKey(NS, "a"), writes[-1].revision + 10**6))


async def test_strategic_patches_of_status_conditions_merge_by_type(client: Client) -> None:
    await client.create(core_v1.Node(metadata=meta_v1.ObjectMeta(name="n")))
    for type_ in ("Ready", "MemoryPressure"):
        patch = {"status": {"conditions": [{"type": type_, "status": "True"}]}}
        node = await client.patch(core_v1.Node, "n", patch, type=PatchType.STRATEGIC, subresource="status")
    assert node.status is not None
    assert {each.type for each in node.status.conditions or ()} == {"Ready", "MemoryPressure"}


async def test_events_are_counted_on_the_server(client: Client) -> None:
    recorder = EventRecorder(client, RealClock(), "tester", "here")
    task = asyncio.ensure_future(recorder.run())
    made = await client.create(config_map("a"))
    for _ in range(3):
        recorder.event(made, NORMAL, "Tested", "it works")
    await asyncio.wait_for(recorder.flush(), 5)
    found = [each for each in (await client.list(core_v1.Event, NS)).items if each.reason == "Tested"]
    assert [(each.count, each.message, each.type) for each in found] == [(3, "it works", "Normal")]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_two_electors_share_one_lease(client: Client) -> None:
    clock = RealClock(50)
    leading: list[str] = []
    gates = {name: asyncio.Event() for name in ("one", "two")}

    async def run(name: str) -> None:
        async def work() -> None:
            leading.append(name)
            await gates[name].wait()
            leading.remove(name)

        await LeaderElector(client, clock, "kube-system", "test", name).run(work)

    async with asyncio.TaskGroup() as group:
        group.create_task(run("one"))
        group.create_task(run("two"))

        async def one_leads() -> bool:
            return len(leading) == 1

        await eventually(one_leads, "a leader")
        first = leading[0]
        await clock.sleep(40)
        assert leading == [first], "a live leader is not replaced"
        gates[first].set()

        async def other_leads() -> bool:
            return bool(leading) and leading[0] != first

        await eventually(other_leads, "the other to lead")
        gates[leading[0]].set()


async def test_an_unreachable_server_is_service_unavailable() -> None:
    client = Client.connect("127.0.0.1:1")
    with pytest.raises(ServiceUnavailable):
        await client.get(core_v1.Node, "n")
    await client.close()


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdServer]:
    member = EtcdServer(tmp_path)
    member.start()
    yield member
    member.kill()


async def test_a_cache_survives_a_restart_of_the_api_server(etcd: EtcdServer) -> None:
    """The same cache goes on after the server it watched is gone and another has come in its place."""
    clock = RealClock()

    class Switch:
        """Calls go to whichever server is there now."""

        def __init__(self) -> None:
            self.now: Client | None = None

        def __getattr__(self, name: str) -> Any:
            if self.now is None:
                raise ServiceUnavailable("no server")
            return getattr(self.now, name)

    switch = Switch()
    informer: Informer[core_v1.ConfigMap] = Informer(
        switch,  # type: ignore[arg-type]
        core_v1.ConfigMap,
        clock=clock,
        namespace=NS,
        backoff=Backoff(initial=0.02, cap=0.1),
    )
    deleted: list[str] = []
    informer.add_handler(EventHandler(on_delete=lambda old: deleted.append(old.metadata.name or "")))  # type: ignore[union-attr]

    async def named(*wanted: str) -> bool:
        found = {each.metadata.name for each in informer.lister.list() if each.metadata}
        return found - {"kube-root-ca.crt"} == set(wanted)

    task = asyncio.ensure_future(informer.run())
    for round_ in range(3):
        async with running_apiserver("etcd", etcd=etcd.target) as server:
            direct = Client.connect(server.grpc_target, server.admin_tls)
            switch.now = direct
            await direct.create(config_map(f"m{round_}"))
            if round_ == 1:
                await direct.delete(core_v1.ConfigMap, "m0", NS)
            expected = {0: ("m0",), 1: ("m1",), 2: ("m1", "m2")}[round_]

            async def caught_up(expected: tuple[str, ...] = expected) -> bool:
                return await named(*expected)

            await eventually(caught_up, f"{expected} in the cache")
            switch.now = None
            await direct.close()
        assert informer.has_synced, "what is cached stays readable while no server is there"
    assert deleted == ["m0"]
    assert informer.relists == 0, "it resumed; history was never too old"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_writes_during_an_etcd_outage_fail_clearly_and_the_cache_goes_on(etcd: EtcdServer) -> None:
    async with running_apiserver("etcd", etcd=etcd.target) as server:
        client = Client.connect(server.grpc_target, server.admin_tls)
        informer: Informer[core_v1.ConfigMap] = Informer(client, core_v1.ConfigMap, clock=RealClock(), namespace=NS)
        async with running(informer):
            await client.create(config_map("before"))
            etcd.kill()
            await asyncio.to_thread(etcd.start)

            async def written() -> bool:
                try:
                    await client.create(config_map("after"))
                except AlreadyExists:
                    return True
                except StatusError:
                    return False
                return True

            await eventually(written, "a write after the outage")

            async def seen() -> bool:
                names = {each.metadata.name for each in informer.lister.list() if each.metadata}
                return {"before", "after"} <= names

            await eventually(seen, "the cache to see it")
        await client.close()
