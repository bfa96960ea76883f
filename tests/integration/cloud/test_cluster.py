"""The cloud against the real API server: its Nodes, their interruption, and Services with an address."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from api.models import core_v1, meta_v1
from client.client import Client
from client.events import EventRecorder
from client.informer import Informers
from cloud.app import MANAGER
from cloud.balancers import FINALIZER, BalancerController
from cloud.core import Core
from cloud.engine import Engine
from cloud.machines import FakeMachines, Order
from cloud.model import Group, Instance, State, standard_types
from cloud.nodes import INTERRUPTION, NodeController
from cloud.requests import Requests
from cloud.store import Store
from cloud.termination import Drain
from machinery.clock import RealClock
from machinery.errors import NotFound
from tests.harness.apiserver import running_apiserver


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    """Poll until truthy."""
    async with asyncio.timeout(20):
        while True:
            found = await condition()
            if found:
                return found
            await asyncio.sleep(0.02)


@dataclass
class JoiningMachines(FakeMachines):
    """Machines whose kubelet registers a Node, without a providerID, as kubelets do."""

    client: Client = field(kw_only=True)

    async def launch(self, order: Order) -> None:
        await super().launch(order)
        await self.client.create(core_v1.Node(metadata=meta_v1.ObjectMeta(name=order.instance.name)))


@dataclass
class Cloud:
    """Everything of the process but its doors."""

    client: Client
    engine: Engine
    requests: Requests

    async def node(self, name: str) -> core_v1.Node | None:
        try:
            return await self.client.get(core_v1.Node, name)
        except NotFound:
            return None

    async def ready(self, name: str) -> core_v1.Node | None:
        node = await self.node(name)
        return node if node is not None and node.spec is not None and node.spec.providerID else None

    async def service(self, name: str) -> core_v1.Service:
        return await self.client.get(core_v1.Service, name, "default")

    async def address(self, name: str) -> str:
        service = await self.service(name)
        balancer = service.status.loadBalancer if service.status else None
        return next((each.ip or "" for each in (balancer.ingress if balancer else None) or ()), "")

    async def events(self, kind: str, name: str) -> list[str]:
        found = await self.client.list(core_v1.Event)
        return [
            each.reason or ""
            for each in found.items
            if (each.involvedObject.kind, each.involvedObject.name) == (kind, name)
        ]


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    clock = RealClock(20.0)
    async with running_apiserver() as server:
        client = Client.connect(server.grpc_target, server.admin_tls)
        informers = Informers(client, clock)
        events = EventRecorder(client, clock, MANAGER)
        state = State("c", 0.0, types=standard_types())
        engine = Engine(Core(state), JoiningMachines(client=client), Store(tmp_path / "cloud.json"), clock)
        nodes = NodeController(client, informers, clock, engine, events, Drain(client))
        engine.on_change = nodes.passed
        network = ipaddress.IPv4Network("10.251.0.0/30")
        balancers = BalancerController(client, informers, clock, events, network)
        works = (informers.run(), events.run(), engine.run(), nodes.controller.run(), balancers.controller.run())
        tasks = [asyncio.create_task(each) for each in works]
        try:
            yield Cloud(client, engine, Requests(engine.core))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(Exception):
                await client.close()


def group(**settings: Any) -> Group:
    given: dict[str, Any] = {"type": "standard-2x2", "min": 0, "max": 3, "desired": 1, "prefix": "g"}
    return Group(name="g", **{**given, **settings})


def service(name: str, **spec: Any) -> core_v1.Service:
    settings: dict[str, Any] = {"type": "LoadBalancer", "ports": [core_v1.ServicePort(port=80)], **spec}
    return core_v1.Service(
        metadata=meta_v1.ObjectMeta(name=name, namespace="default"), spec=core_v1.ServiceSpec(**settings)
    )


async def test_a_node_is_told_what_it_is_and_goes_with_its_machine(cloud: Cloud) -> None:
    cloud.requests.create_group(group(zones=["a"], labels={"team": "x"}))
    cloud.engine.wake()
    node = await until(lambda: cloud.ready("g-1"))
    assert node.spec.providerID == "nanokube://c/g-1"
    labels = node.metadata.labels
    assert labels["topology.kubernetes.io/zone"] == "a"
    assert (labels["node.kubernetes.io/instance-type"], labels["team"]) == ("standard-2x2", "x")
    await cloud.client.create(core_v1.Node(metadata=meta_v1.ObjectMeta(name="stranger")))

    cloud.requests.delete(cloud.requests.group("g"), [cloud.requests.instance("g-1")])
    cloud.engine.wake()

    async def is_gone() -> bool:
        return await cloud.node("g-1") is None

    await until(is_gone)
    assert await cloud.node("stranger") is not None

    async def is_told() -> bool:
        return "DeletingNode" in await cloud.events("Node", "g-1")

    await until(is_told)


async def test_an_interrupted_node_is_closed_and_drained_before_it_goes(cloud: Cloud) -> None:
    cloud.requests.create_group(group(spot=True))
    cloud.engine.wake()
    await until(lambda: cloud.ready("g-1"))
    account = core_v1.ServiceAccount(metadata=meta_v1.ObjectMeta(name="default", namespace="default"))
    with contextlib.suppress(Exception):
        await cloud.client.create(account)
    pod = core_v1.Pod(
        metadata=meta_v1.ObjectMeta(name="p", namespace="default"),
        spec=core_v1.PodSpec(
            nodeName="g-1",
            containers=[core_v1.Container(name="c", image="i")],
            terminationGracePeriodSeconds=0,
        ),
    )
    await cloud.client.create(pod)
    instance: Instance = cloud.requests.instance("g-1")
    cloud.requests.interrupt(instance, cloud.engine.now())
    cloud.engine.wake()

    async def is_closed() -> bool:
        node = await cloud.node("g-1")
        taints = (node.spec.taints if node is not None and node.spec else None) or ()
        return any(each.key == INTERRUPTION for each in taints)

    async def pod_is_leaving() -> bool:
        try:
            found = await cloud.client.get(core_v1.Pod, "p", "default")
        except NotFound:
            return True
        return found.metadata is not None and found.metadata.deletionTimestamp is not None

    await until(is_closed)
    await until(pod_is_leaving)
    await until(lambda: cloud.ready("g-2"))

    async def is_gone() -> bool:
        return await cloud.node("g-1") is None

    await until(is_gone)
    assert "SpotInterruption" in await cloud.events("Node", "g-1")


async def test_a_service_gets_an_address_keeps_it_and_gives_it_back(cloud: Cloud) -> None:
    await cloud.client.create(service("a"))
    await cloud.client.create(service("foreign", loadBalancerClass="example.com/other"))
    await until(lambda: cloud.address("a"))
    await cloud.client.create(service("b"))
    await until(lambda: cloud.address("b"))
    addresses = {await cloud.address("a"), await cloud.address("b")}
    assert addresses == {"10.251.0.1", "10.251.0.2"}
    assert await cloud.address("foreign") == ""
    found = await cloud.service("a")
    assert found.metadata is not None
    assert found.metadata.finalizers == [FINALIZER]

    await cloud.client.create(service("c"))

    async def is_refused() -> bool:
        return "SyncLoadBalancerFailed" in await cloud.events("Service", "c")

    await until(is_refused)
    await cloud.client.delete(core_v1.Service, "a", "default")
    address = await until(lambda: cloud.address("c"))
    assert address in addresses
    assert await cloud.events("Service", "b") == ["EnsuringLoadBalancer", "EnsuredLoadBalancer"]


async def test_a_service_that_is_no_balancer_any_more_loses_address_and_finalizer(cloud: Cloud) -> None:
    await cloud.client.create(service("a", loadBalancerIP="10.251.0.2"))
    await until(lambda: cloud.address("a"))
    assert await cloud.address("a") == "10.251.0.2"
    await cloud.client.patch(core_v1.Service, "a", {"spec": {"type": "ClusterIP"}}, "default")

    async def is_plain() -> bool:
        found = await cloud.service("a")
        return not await cloud.address("a") and not (found.metadata and found.metadata.finalizers)

    await until(is_plain)
