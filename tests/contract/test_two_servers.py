"""Two API servers on one etcd: each read sees what the other one has acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
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
from tests.harness.apiserver import USER_TOKEN, RestClient, RunningApiServer, running_apiserver

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


# Whole servers.


@dataclass
class Pair:
    """Two API servers and their etcd."""

    first: RunningApiServer
    second: RunningApiServer
    stop_second: Callable[[], Awaitable[None]]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    etcd = EtcdServer(tmp_path)
    etcd.start()
    settings: dict[str, Any] = {"etcd": etcd.target, "master_lease": 1.5}
    try:
        async with contextlib.AsyncExitStack() as stack, contextlib.AsyncExitStack() as other:
            first = await stack.enter_async_context(running_apiserver("etcd", advertise="10.1.0.1", **settings))
            second = await other.enter_async_context(running_apiserver("etcd", advertise="10.1.0.2", **settings))
            yield Pair(first, second, other.aclose)
    finally:
        etcd.kill()


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"port": 80}], **spec}}


async def until(read: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not await read():  # noqa: ASYNC110  what is waited for has no event to wait on
            await asyncio.sleep(0.01)


async def test_addresses_and_node_ports_are_handed_out_once(pair: Pair) -> None:
    path = "/api/v1/namespaces/default/services"
    made = []
    for number in range(40):
        rest = (pair.first if number % 2 else pair.second).rest()
        answer = await rest.post(path, service(f"s-{number}"))
        assert answer.status == 201, answer.body
        made.append(answer.json["spec"])
    assert len({spec["clusterIP"] for spec in made}) == 40
    assert len({spec["ports"][0]["nodePort"] for spec in made}) == 40
    taken = made[1]  # the first server's: the second refuses it, and has it when it is free again
    wanted = service(
        "again", clusterIP=taken["clusterIP"], ports=[{"port": 80, "nodePort": taken["ports"][0]["nodePort"]}]
    )
    refused = await pair.second.rest().post(path, wanted)
    assert refused.status == 422 and "already allocated" in refused.json["message"]
    assert (await pair.first.rest().request("DELETE", f"{path}/s-1")).status == 200
    rest = pair.second.rest()

    async def is_free() -> bool:
        return (await rest.post(path, wanted)).status == 201

    await until(is_free)


async def test_a_quota_holds_across_servers(pair: Pair) -> None:
    rest = pair.first.rest()
    assert (await rest.post("/api/v1/namespaces", {"metadata": {"name": "small"}})).status == 201
    hard = {"count/configmaps": "5"}
    quota = {"metadata": {"name": "q"}, "spec": {"hard": hard}}
    assert (await rest.post("/api/v1/namespaces/small/resourcequotas", quota)).status == 201
    status = {"status": {"hard": hard, "used": {"count/configmaps": "0"}}}
    headers = {"content-type": MERGE}
    patched = await rest.request("PATCH", "/api/v1/namespaces/small/resourcequotas/q/status", status, headers)
    assert patched.status == 200

    async def create(number: int) -> int:
        server = pair.first if number % 2 else pair.second
        body = {"metadata": {"name": f"c-{number}"}}
        return (await server.rest().post("/api/v1/namespaces/small/configmaps", body)).status

    for server in (pair.first, pair.second):

        async def knows(server: RunningApiServer = server) -> bool:
            answer = await server.rest().get("/api/v1/namespaces/small/resourcequotas/q")
            return bool(answer.json.get("status", {}).get("used"))

        await until(knows)
    async with asyncio.timeout(60):
        codes = await asyncio.gather(*(create(number) for number in range(20)))
    stored = (await rest.get("/api/v1/namespaces/small/configmaps")).json["items"]
    assert codes.count(201) == len(stored) <= 5
    assert set(codes) <= {201, 403, 409, 500, 504}


async def test_definitions_and_rights_reach_the_other_server(pair: Pair) -> None:
    here, there = pair.first.rest(), pair.second.rest()
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    definition = {
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    assert (await here.post(crds, definition)).status == 201
    path = "/apis/example.com/v1/namespaces/default/widgets"

    async def is_served() -> bool:
        return (await there.get(path)).status == 200

    await until(is_served)
    assert (
        await there.post(path, {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}})
    ).status == 201
    assert (await here.get(f"{path}/w")).status == 200

    alice = pair.second.rest(USER_TOKEN)
    assert (await alice.get("/api/v1/namespaces/default/configmaps")).status == 403
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    role = {"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}
    assert (await here.post(f"{rbac}/roles", role)).status == 201
    binding = {"metadata": {"name": "b"}, "roleRef": reference, "subjects": [subject]}
    assert (await here.post(f"{rbac}/rolebindings", binding)).status == 201

    async def may() -> bool:
        return (await alice.get("/api/v1/namespaces/default/configmaps")).status == 200

    await until(may)


async def test_tokens_of_one_are_good_at_the_other(pair: Pair) -> None:
    rest = pair.first.rest()
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    assert (await rest.post(accounts, {"metadata": {"name": "app"}})).status == 201
    asked = await rest.post(f"{accounts}/app/token", {"spec": {}})
    assert asked.status == 201
    review = {"spec": {"token": asked.json["status"]["token"]}}
    path = "/apis/authentication.k8s.io/v1/tokenreviews"
    for server in (pair.first, pair.second):
        status = (await server.rest().post(path, review)).json["status"]
        assert status["authenticated"] and status["user"]["username"] == "system:serviceaccount:default:app"


async def test_a_watch_at_one_tells_the_writes_of_both_in_order(pair: Pair) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    rest = pair.first.rest()
    version = (await rest.get(path)).json["metadata"]["resourceVersion"]
    async with asyncio.timeout(20), rest.watch(f"{path}?watch=1&resourceVersion={version}") as events:
        versions = []
        for number in range(20):
            server = pair.first if number % 2 else pair.second
            answer = await server.rest().post(path, {"metadata": {"name": f"w-{number}"}})
            versions.append(answer.json["metadata"]["resourceVersion"])
        seen = [(await anext(events))["object"]["metadata"] for _ in range(20)]
    assert [meta["resourceVersion"] for meta in seen] == versions
    assert [meta["name"] for meta in seen] == [f"w-{number}" for number in range(20)]


async def addresses(rest: RestClient) -> set[str]:
    found = await rest.get("/api/v1/namespaces/default/endpoints/kubernetes")
    parts = found.json.get("subsets") or ()
    slice_ = (await rest.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes")).json
    listed = {address["ip"] for part in parts for address in part["addresses"]}
    return listed & {each["addresses"][0] for each in slice_.get("endpoints") or ()}


async def test_the_kubernetes_service_leads_to_all_that_live(pair: Pair) -> None:
    rest = pair.first.rest()

    async def both() -> bool:
        return await addresses(rest) == {"10.1.0.1", "10.1.0.2"}

    await until(both)
    await pair.stop_second()
    assert await addresses(rest) == {"10.1.0.1"}


async def test_a_killed_server_is_no_endpoint_any_more(pair: Pair) -> None:
    rest = pair.first.rest()

    async def both() -> bool:
        return await addresses(rest) == {"10.1.0.1", "10.1.0.2"}

    async def alone() -> bool:
        return await addresses(rest) == {"10.1.0.1"}

    await until(both)
    leases = pair.second.server._masters
    assert leases is not None
    leases._left = True  # it renews no more, as if it had been killed
    await until(alone, 30.0)
