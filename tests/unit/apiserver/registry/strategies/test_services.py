"""Services: what is allocated, kept and given back over their life."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from api.resources import RESOURCES, lookup
from apiserver.auth.user import UserInfo
from apiserver.registry.allocators import AllocationError, ServiceAllocators
from apiserver.registry.store import DeleteOptions, Registry, RequestContext
from apiserver.registry.strategies.services import ServiceStrategy, connect_allocators
from apiserver.storage.memory import MemoryStore
from machinery.clock import RealClock
from machinery.errors import InternalError, Invalid

Obj = dict[str, Any]
MERGE = "application/merge-patch+json"


def ctx(*, dry_run: bool = False) -> RequestContext:
    return RequestContext(UserInfo("tester"), dry_run=dry_run)


def service(name: str = "web", **spec: Any) -> Obj:
    meta = {"name": name, "namespace": "default"}
    spec.setdefault("ports", [{"port": 80}])
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}


@pytest.fixture
def rules() -> ServiceStrategy:
    resource = lookup("", "v1", "services")
    assert resource is not None
    strategy = ServiceStrategy(resource)
    strategy.allocators = ServiceAllocators(rng=random.Random(7))
    return strategy


def create(rules: ServiceStrategy, obj: Obj, *, done: bool = True) -> Obj:
    rules.canonicalize(obj)
    rules.default(obj)
    rules.prepare_create(ctx(), obj)
    assert rules.validate_create(ctx(), obj) == []
    finish = rules.begin_create(ctx(), obj)
    assert finish is not None
    finish(done)
    return obj


def update(rules: ServiceStrategy, new: Obj, old: Obj) -> Obj:
    rules.canonicalize(new)
    rules.default(new)
    rules.prepare_update(ctx(), new, old)
    assert rules.validate_update(ctx(), new, old) == []
    finish = rules.begin_update(ctx(), new, old)
    assert finish is not None
    finish(True)
    return new


def is_free(rules: ServiceStrategy, address: str) -> bool:
    try:
        rules.allocators.addresses.reserve(address)
    except AllocationError:
        return False
    rules.allocators.addresses.release(address)
    return True


def test_a_failed_write_gives_everything_back(rules: ServiceStrategy) -> None:
    obj = create(rules, service(type="NodePort", clusterIP="10.96.5.5"), done=False)
    assert is_free(rules, "10.96.5.5")
    rules.allocators.ports.reserve(obj["spec"]["ports"][0]["nodePort"])


def test_a_refused_port_gives_the_address_back(rules: ServiceStrategy) -> None:
    create(rules, service("a", type="NodePort", ports=[{"port": 80, "nodePort": 31000}]))
    clash = service("b", type="NodePort", clusterIP="10.96.5.6", ports=[{"port": 80, "nodePort": 31000}])
    rules.default(clash)
    rules.prepare_create(ctx(), clash)
    with pytest.raises(Invalid, match="provided port is already allocated"):
        rules.begin_create(ctx(), clash)
    assert is_free(rules, "10.96.5.6")


def test_a_put_without_addresses_keeps_them(rules: ServiceStrategy) -> None:
    old = create(rules, service(type="NodePort"))
    new = update(rules, service(type="NodePort"), old)
    assert new["spec"] == old["spec"]


def test_type_changes_take_and_return_ports(rules: ServiceStrategy) -> None:
    old = create(rules, service())
    node_port = update(rules, service(type="NodePort"), old)
    number = node_port["spec"]["ports"][0]["nodePort"]
    back = {**node_port, "spec": {**node_port["spec"], "type": "ClusterIP"}}
    back["spec"]["ports"] = [dict(port) for port in back["spec"]["ports"]]
    plain = update(rules, back, node_port)
    assert "nodePort" not in plain["spec"]["ports"][0]
    assert "externalTrafficPolicy" not in plain["spec"]
    assert plain["spec"]["clusterIP"] == old["spec"]["clusterIP"]
    rules.allocators.ports.reserve(number)


def test_external_name_returns_the_address(rules: ServiceStrategy) -> None:
    old = create(rules, service(clusterIP="10.96.7.7"))
    new = {**old, "spec": {**old["spec"], "type": "ExternalName", "externalName": "a.example.com"}}
    external = update(rules, new, old)
    assert not {"clusterIP", "clusterIPs", "ipFamilies"} & set(external["spec"])
    assert is_free(rules, "10.96.7.7")


def test_the_address_is_set_once(rules: ServiceStrategy) -> None:
    old = create(rules, service(clusterIP="10.96.7.8"))
    new = service(clusterIP="10.96.7.9")
    rules.default(new)
    rules.prepare_update(ctx(), new, old)
    findings = [str(finding) for finding in rules.validate_update(ctx(), new, old)]
    assert findings == ['spec.clusterIPs[0]: Invalid value: ["10.96.7.9"]: may not change once set']


def test_tcp_and_udp_of_one_port_share_a_node_port(rules: ServiceStrategy) -> None:
    ports = [{"name": "a", "port": 53}, {"name": "b", "port": 53, "protocol": "UDP"}]
    obj = create(rules, service(type="NodePort", ports=ports))
    first, second = (port["nodePort"] for port in obj["spec"]["ports"])
    assert first == second


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        pytest.param([(53, "TCP", 0), (53, "UDP", 30053)], [30053, 30053], id="told by a later entry"),
        pytest.param([(53, "TCP", 30053), (53, "UDP", 0)], [30053, 30053], id="told by an earlier one"),
        pytest.param([(53, "TCP", 30053), (53, "UDP", 30054)], [30053, 30054], id="different ones"),
        pytest.param([(53, "TCP", 30053), (53, "UDP", 30053)], [30053, 30053], id="the same"),
        pytest.param([(53, "TCP", 30053), (54, "UDP", 30053)], None, id="the same for two ports"),
    ],
)
def test_entries_of_one_port(
    rules: ServiceStrategy, given: list[tuple[int, str, int]], wanted: list[int] | None
) -> None:
    ports = [{"name": f"p{n}", "port": p, "protocol": t, "nodePort": own} for n, (p, t, own) in enumerate(given)]
    obj = service(type="NodePort", ports=ports)
    if wanted is None:
        with pytest.raises(Invalid, match=r"spec.ports\[1\].nodePort: Invalid value: 30053: provided port is already"):
            create(rules, obj)
        rules.allocators.ports.reserve(30053)
        return
    assert [port["nodePort"] for port in create(rules, obj)["spec"]["ports"]] == wanted


def test_a_node_port_is_one_services_whatever_the_protocol(rules: ServiceStrategy) -> None:
    create(rules, service(type="NodePort", ports=[{"port": 80, "nodePort": 30080}]))
    other = service("other", type="NodePort", ports=[{"port": 80, "nodePort": 30080, "protocol": "UDP"}])
    with pytest.raises(Invalid, match="provided port is already allocated"):
        create(rules, other)


def test_a_load_balancer_without_node_ports_may_still_ask_for_one(rules: ServiceStrategy) -> None:
    ports = [{"name": "a", "port": 80, "nodePort": 30080}, {"name": "b", "port": 81}]
    obj = create(rules, service(type="LoadBalancer", allocateLoadBalancerNodePorts=False, ports=ports))
    assert [port.get("nodePort") for port in obj["spec"]["ports"]] == [30080, None]
    with pytest.raises(AllocationError):
        rules.allocators.ports.reserve(30080)


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    made = Registry(MemoryStore(), RealClock(), RESOURCES)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(made.run())
        await made.wait_ready()
        yield made
        task.cancel()


async def test_a_connected_allocator_knows_the_stored_services(registry: Registry) -> None:
    connect_allocators(registry, "10.50.0.0/24")
    services = registry.resource("", "v1", "services")
    first = msgspec.json.decode(await services.create(ctx(), "default", service("a", clusterIP="10.50.0.10")))
    assert first["spec"]["clusterIPs"] == ["10.50.0.10"]
    connect_allocators(registry, "10.50.0.0/24")  # as after a restart: nothing but the store is known
    async with asyncio.timeout(5):
        while services.cache.get("default", "a") is None:  # noqa: ASYNC110 - polls with a deadline
            await asyncio.sleep(0)
    with pytest.raises(Invalid, match="provided IP is already allocated"):
        await services.create(ctx(), "default", service("b", clusterIP="10.50.0.10"))
    await services.create(ctx(dry_run=True), "default", service("c", clusterIP="10.50.0.11"))
    await services.create(ctx(), "default", service("d", clusterIP="10.50.0.11"))
    await services.delete(ctx(), "default", "a", DeleteOptions())
    await services.create(ctx(), "default", service("e", clusterIP="10.50.0.10"))


def test_a_health_check_port_that_is_taken_is_no_finding(rules: ServiceStrategy) -> None:
    local = {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30500}
    create(rules, service("one", **local))
    wanted = service("two", **local, ports=[{"port": 80, "nodePort": 30501}])
    why = "failed to allocate requested HealthCheck NodePort 30500: provided port is already allocated"
    with pytest.raises(InternalError, match=why):
        create(rules, wanted)
    create(rules, service("three", type="NodePort", ports=[{"port": 80, "nodePort": 30501}]))  # it was given back
