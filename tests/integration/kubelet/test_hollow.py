"""Hollow nodes against a real API server: what they register, how their pods live, what they answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from api.models import coordination_v1, core_v1
from client.client import Client
from client.informer import Informers
from kubelet.hollow.fleet import STATE, Fleet, FleetSettings
from kubelet.hollow.labels import LABEL
from kubelet.hollow.pods import HollowPods
from kubelet.hollow.roster import Roster
from kubelet.hollow.service import HollowService
from kubelet.hollow.simulation import EXIT_CODE, RUN_SECONDS
from machinery.clock import RealClock
from machinery.errors import AlreadyExists, NotFound
from machinery.tls import write_private
from tests.harness.apiserver import running_apiserver

CONTAINERS = [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "200m", "memory": "64Mi"}}}]


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    """Poll until truthy."""
    async with asyncio.timeout(20):
        while True:
            found = await condition()
            if found:
                return found
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def playing(client: Client, count: int, **options: Any) -> AsyncIterator[HollowPods]:
    """A fleet in this process."""
    clock = RealClock(20.0)
    informers = Informers(client, clock)
    fleet = Fleet(client, informers, clock, FleetSettings(count, **options))
    pods = HollowPods(client, informers, clock, fleet, start_seconds=0.2)
    tasks = [asyncio.create_task(work) for work in (informers.run(), fleet.run(), pods.run())]
    try:
        await asyncio.wait_for(fleet.ready.wait(), 20)
        yield pods
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with running_apiserver() as server:
        made = Client.connect(server.grpc_target, server.admin_tls)
        try:
            account = {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": "default", "namespace": "default"},
            }
            with contextlib.suppress(AlreadyExists):
                await made.create(account)
            yield made
        finally:
            await made.close()


def pod(name: str, node: str, annotations: dict[str, str] | None = None, policy: str = "Always") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations or {}},
        "spec": {"nodeName": node, "containers": CONTAINERS, "restartPolicy": policy},
    }


def phase_of(client: Client, name: str, *wanted: str) -> Callable[[], Awaitable[Any]]:
    async def look() -> Any:
        found = await client.get(core_v1.Pod, name, "default")
        return found if found.status and found.status.phase in wanted else None

    return look


async def test_nodes_register_as_hollow_ones_with_leases_and_zones(client: Client) -> None:
    async with playing(client, 5, zones=("a", "b")):
        nodes = (await client.list(core_v1.Node)).items
        assert {node.metadata.name for node in nodes if node.metadata} == {f"hollow-{n}" for n in range(1, 6)}
        for node in nodes:
            assert node.metadata is not None
            assert node.metadata.labels is not None
            assert node.status is not None
            assert node.status.nodeInfo is not None
            assert node.metadata.labels[LABEL] == "true"
            assert node.status.nodeInfo.osImage == "hollow node"
            assert any(each.type == "Ready" and each.status == "True" for each in node.status.conditions or ())
        zones = [(node.metadata.labels or {})["topology.kubernetes.io/zone"] for node in nodes if node.metadata]
        assert sorted(zones) == ["a", "a", "a", "b", "b"]
        lease = await client.get(coordination_v1.Lease, "hollow-1", "kube-node-lease")

        async def renewed() -> bool:
            now = await client.get(coordination_v1.Lease, "hollow-1", "kube-node-lease")
            assert now.spec is not None
            assert lease.spec is not None
            return now.spec.renewTime != lease.spec.renewTime

        await until(renewed)


async def test_a_fleet_shrinks_and_comes_back_after_deletion(client: Client) -> None:
    async with playing(client, 4):
        pass
    async with playing(client, 2):
        assert len((await client.list(core_v1.Node)).items) == 2
        await client.delete(core_v1.Node, "hollow-2")

        async def back() -> bool:
            with contextlib.suppress(NotFound):
                return bool(await client.get(core_v1.Node, "hollow-2"))
            return False

        await until(back)


async def test_pods_run_end_and_go(client: Client) -> None:
    async with playing(client, 2) as pods:
        await client.create(pod("stays", "hollow-1"))
        await client.create(pod("works", "hollow-2", {RUN_SECONDS: "1", EXIT_CODE: "3"}, "Never"))
        stays = await until(phase_of(client, "stays", "Running"))
        assert stays.status.podIP.startswith("100.64.")
        assert stays.status.hostIP == "127.0.0.1"
        await until(phase_of(client, "works", "Failed"))
        service = HollowService(pods, secure=False)
        start = time.time_ns()
        service.summary("hollow-1", start)
        summary = service.summary("hollow-1", start + 10_000_000_000)
        (entry,) = summary.pods
        assert (entry.name, entry.usage.cpu_usage_nanocores) == ("stays", 100_000_000)
        assert entry.usage.cpu_usage_core_nanoseconds == 1_000_000_000
        assert entry.usage.memory_working_set_bytes == 64 << 20
        assert not service.summary("hollow-2", start).pods
        await client.delete(core_v1.Pod, "stays", "default")

        async def gone() -> bool:
            return "stays" not in [
                each.metadata.name for each in (await client.list(core_v1.Pod)).items if each.metadata
            ]

        await until(gone)


async def test_a_dead_node_is_silent_until_it_is_revived(client: Client) -> None:
    async with playing(client, 1):
        await client.patch(core_v1.Node, "hollow-1", {"metadata": {"annotations": {STATE: "dead"}}})
        await client.create(pod("waits", "hollow-1"))

        async def lease_time() -> Any:
            lease = await client.get(coordination_v1.Lease, "hollow-1", "kube-node-lease")
            assert lease.spec is not None
            return lease.spec.renewTime

        async def silent() -> bool:
            before = await lease_time()
            await asyncio.sleep(1.2)  # 24 seconds of the cluster: two renewals would fit
            return bool(before == await lease_time())

        await until(silent)
        assert (await client.get(core_v1.Pod, "waits", "default")).status.phase == "Pending"  # type: ignore[union-attr]
        await client.patch(core_v1.Node, "hollow-1", {"metadata": {"annotations": {STATE: None}}})
        await until(phase_of(client, "waits", "Running"))


async def test_a_roster_is_followed_and_who_is_struck_off_does_not_come_back(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "hollow.json"

    def name(*names: str) -> None:
        entries = [{"name": each, "cpu": "3", "memory": "2Gi", "labels": "a=b"} for each in names]
        write_private(file, json.dumps(entries).encode())

    async def names() -> set[str]:
        found = await client.list(core_v1.Node, label_selector=f"{LABEL}=true")
        return {node.metadata.name or "" for node in found.items if node.metadata}

    async def has(*wanted: str) -> bool:
        return await names() == set(wanted)

    name("x-1", "x-2")
    clock = RealClock(20.0)
    informers = Informers(client, clock)
    fleet = Fleet(client, informers, clock, Roster(file))
    tasks = [asyncio.create_task(work) for work in (informers.run(), fleet.run())]
    try:
        await until(lambda: has("x-1", "x-2"))
        name("x-2", "y-1")
        await client.delete(core_v1.Node, "x-1")
        await until(lambda: has("x-2", "y-1"))
        node = await client.get(core_v1.Node, "y-1")
        assert node.metadata is not None
        assert node.status is not None
        assert (node.metadata.labels or {})["a"] == "b"
        assert (node.status.capacity or {})["cpu"] == "3"
        file.write_text("[{")
        await client.delete(core_v1.Node, "x-2")
        await until(lambda: has("x-2", "y-1"))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
