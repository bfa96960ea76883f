"""The gRPC door: the same registry, errors and rights, for components with certificates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from api.models import core_v1, meta_v1
from client.client import Client, PatchType
from machinery.errors import AlreadyExists, Conflict, Forbidden, Invalid, NotFound, StatusError
from tests.harness.apiserver import RunningApiServer


@pytest.fixture
async def client(apiserver: RunningApiServer) -> AsyncIterator[Client]:
    made = Client.connect(apiserver.grpc_target, apiserver.admin_tls)
    yield made
    await made.close()


def config_map(name: str, **data: str) -> core_v1.ConfigMap:
    return core_v1.ConfigMap(metadata=meta_v1.ObjectMeta(name=name, namespace="default"), data=data)


async def test_an_object_lives_from_create_to_delete(apiserver: RunningApiServer, client: Client) -> None:
    made = await client.create(config_map("web", a="1"))
    assert made.metadata is not None
    assert made.metadata.uid
    read = await client.get(core_v1.ConfigMap, "web", "default")
    assert read == made
    read.data = {"a": "2"}
    assert (await client.update(read)).data == {"a": "2"}
    with pytest.raises(Conflict):
        await client.update(made)
    patched = await client.patch(core_v1.ConfigMap, "web", {"data": {"b": "3"}}, "default", type=PatchType.MERGE)
    assert patched.data == {"a": "2", "b": "3"}
    seen_by_rest = await apiserver.rest().get("/api/v1/namespaces/default/configmaps/web")
    assert seen_by_rest.json["data"] == patched.data
    await client.delete(core_v1.ConfigMap, "web", "default")
    with pytest.raises(NotFound, match='configmaps "web" not found'):
        await client.get(core_v1.ConfigMap, "web", "default")


async def test_errors_are_the_same_as_over_rest(apiserver: RunningApiServer, client: Client) -> None:
    await client.create(config_map("web"))
    with pytest.raises(AlreadyExists) as over_grpc:
        await client.create(config_map("web"))
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}}
    over_rest = await apiserver.rest().post("/api/v1/namespaces/default/configmaps", body)
    assert over_rest.json == over_grpc.value.to_status()
    with pytest.raises(Invalid, match=r"metadata\.name"):
        await client.create(config_map("No_Such_Name"))


async def test_a_watch_brings_batches_and_ends_with_the_server(apiserver: RunningApiServer, client: Client) -> None:
    page = await client.list(core_v1.ConfigMap, "default")
    names: list[str] = []

    async def follow() -> None:
        async for batch in client.watch(core_v1.ConfigMap, "default", resource_version=page.resource_version):
            for event in batch:
                assert event.object is not None
                assert event.object.metadata is not None
                names.append(str(event.object.metadata.name))
            if len(names) >= 50:
                return

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(follow())
        for number in range(50):
            group.create_task(_create(client, f"m-{number}"))
    assert sorted(names) == sorted(f"m-{number}" for number in range(50))


async def _create(client: Client, name: str) -> None:
    await client.create(config_map(name))


@pytest.mark.parametrize(
    ("common_name", "groups", "message"),
    [
        pytest.param("bob", (), 'User "bob" cannot list resource "configmaps"', id="nobody"),
        pytest.param("system:node:n1", ("system:nodes",), "No Object name found", id="node-lists-all"),
    ],
)
async def test_rights_are_asked_for(
    apiserver: RunningApiServer, common_name: str, groups: tuple[str, ...], message: str
) -> None:
    stranger = Client.connect(apiserver.grpc_target, apiserver.pki.client(common_name, *groups))
    try:
        with pytest.raises(Forbidden, match=message):
            await stranger.list(core_v1.ConfigMap, "default")
    finally:
        await stranger.close()


async def test_without_a_certificate_there_is_no_connection(apiserver: RunningApiServer) -> None:
    stranger = Client.connect(apiserver.grpc_target)
    try:
        with pytest.raises(StatusError):
            async with asyncio.timeout(5):
                await stranger.list(core_v1.ConfigMap, "default")
    finally:
        await stranger.close()
