"""Objects of aggregated APIs: namespaces take them along, owners too; a server that is away holds a namespace up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from api import resources
from api.models import core_v1
from client.client import Client
from client.rest import RestClient
from controller_manager.aggregated import access_by
from controller_manager.app import ControllerManager
from controller_manager.environment import Options
from machinery.clock import RealClock
from machinery.errors import NotFound
from tests.harness import extension
from tests.harness.apiserver import RunningApiServer, running_apiserver, shared_pki
from tests.harness.extension import API_SERVICES, BASE, GROUP, NAME, SERVICE, VERSION, Extension, until_condition
from tests.integration.apiserver.test_proxy import own_address
from tests.integration.controller_manager.hollow import eventually

NAMESPACES = resources.of(core_v1.Namespace)
MAPS = resources.of(core_v1.ConfigMap)
CONTROLLERS = ["namespace-controller", "garbage-collector-controller"]
AWAY = (
    "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: "
    f"{GROUP}/{VERSION}: stale GroupVersion discovery: {GROUP}/{VERSION}"
)


@contextlib.asynccontextmanager
async def site() -> AsyncIterator[tuple[RunningApiServer, Client, Extension]]:
    """An API server, an extension that is available, both controllers that clear away."""
    pki = shared_pki()
    async with (
        running_apiserver() as server,
        extension.extension(pki.authority, pki.front_proxy, own_address()) as wardle,
    ):
        wardle.stamps = True
        await extension.register(server.rest(), wardle)
        await until_condition(server.rest(), "Passed")
        client = Client.connect(server.grpc_target, server.admin_tls)
        rest = RestClient(server.url, server.admin_tls, user_agent="kube-controller-manager")
        manager = ControllerManager(client, RealClock(), Options(), CONTROLLERS, aggregated=access_by(rest))
        task = asyncio.ensure_future(manager.run())
        try:
            yield server, client, wardle
            assert not task.done(), task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await client.close()
            await rest.close()


async def flunder(server: RunningApiServer, name: str, namespace: str, owner: dict[str, Any] | None = None) -> None:
    meta: dict[str, Any] = {"name": name}
    if owner is not None:
        reference = {key: owner[key] for key in ("apiVersion", "kind")}
        meta["ownerReferences"] = [{**reference, "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}]
    body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Flunder", "metadata": meta}
    assert (await server.rest().post(f"{BASE}/namespaces/{namespace}/flunders", body)).status == 201


async def away(server: RunningApiServer) -> None:
    """Nobody answers for the extension's Service any more."""
    slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    assert (await server.rest().request("DELETE", f"{slices}/{SERVICE}-1")).status == 200
    await until_condition(server.rest(), "EndpointsNotFound")


async def namespace(client: Client, name: str) -> None:
    await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


async def gone(client: Client, name: str) -> bool:
    try:
        await client.get(NAMESPACES, name)
    except NotFound:
        return True
    return False


def config_map(name: str, namespace: str, **meta: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace, **meta}}


async def test_a_namespace_takes_along_what_an_aggregated_server_keeps_in_it() -> None:
    async with site() as (server, client, wardle):
        await namespace(client, "shop")
        await flunder(server, "inside", "shop")
        await flunder(server, "outside", "default")
        await client.delete(NAMESPACES, "shop")
        await eventually(lambda: gone(client, "shop"), "the namespace to go")
        assert list(wardle.flunders) == [("default", "outside")]


async def test_a_server_that_is_away_holds_the_namespace_up_but_not_its_other_contents() -> None:
    async with site() as (server, client, wardle):
        for name in ("back", "removed"):
            await namespace(client, name)
            await client.create(config_map("held", name))
        await flunder(server, "inside", "back")
        await away(server)
        for name in ("back", "removed"):
            await client.delete(NAMESPACES, name)

        async def told(name: str) -> bool:
            found = (await client.get(NAMESPACES, name))["status"]["conditions"]
            (condition,) = [each for each in found if each["type"] == "NamespaceDeletionDiscoveryFailure"]
            assert (condition["status"], condition["reason"]) == ("True", "DiscoveryFailed"), condition
            assert condition["message"] == AWAY
            return not (await client.list(MAPS, name)).items

        await eventually(lambda: told("back"), "the condition, and the rest to be gone")
        await eventually(lambda: told("removed"), "the condition, and the rest to be gone")
        await extension.create_slice(server.rest(), wardle)
        await eventually(lambda: gone(client, "back"), "the namespace to go with its server back")
        assert not wardle.flunders


async def test_a_namespace_goes_when_the_api_that_is_away_is_removed() -> None:
    async with site() as (server, client, _):
        await namespace(client, "shop")
        await away(server)
        await client.delete(NAMESPACES, "shop")

        async def told() -> bool:
            return "DiscoveryFailed" in str((await client.get(NAMESPACES, "shop"))["status"]["conditions"])

        await eventually(told, "the condition")
        assert (await server.rest().request("DELETE", f"{API_SERVICES}/{NAME}")).status == 200
        await eventually(lambda: gone(client, "shop"), "the namespace to go")


async def test_owners_and_dependents_across_servers() -> None:
    async with site() as (server, client, wardle):
        owner = await client.create(config_map("owner", "default"))
        other = await client.create(config_map("other", "default"))
        await flunder(server, "owned", "default", owner)
        await flunder(server, "kept", "default", other)
        uid = "uid-of-kept"
        reference = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Flunder", "name": "kept", "uid": uid}
        await client.create(config_map("dependent", "default", ownerReferences=[reference]))
        await client.delete(MAPS, "owner", "default", propagation_policy="Background")

        async def only_kept() -> bool:
            return list(wardle.flunders) == [("default", "kept")]

        await eventually(only_kept, "the dependent on the other server to go")
        await client.delete(MAPS, "other", "default", propagation_policy="Orphan")

        async def orphaned() -> bool:
            return not wardle.flunders["default", "kept"]["metadata"].get("ownerReferences")

        await eventually(orphaned, "the dependent on the other server to be let go")
        assert await client.get(MAPS, "dependent", "default")
        assert (await server.rest().request("DELETE", f"{BASE}/namespaces/default/flunders/kept")).status == 200

        async def collected() -> bool:
            try:
                await client.get(MAPS, "dependent", "default")
            except NotFound:
                return True
            return False

        await eventually(collected, "what an aggregated object owned to go")
