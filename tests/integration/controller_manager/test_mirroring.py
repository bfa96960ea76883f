"""Endpoints that are written by hand, and hints, against a real API server."""

from __future__ import annotations

from typing import Any

from api import resources
from api.models import core_v1, discovery_v1
from tests.integration.controller_manager.hollow import Cluster, eventually, running_cluster

SLICES = resources.of(discovery_v1.EndpointSlice)
ENDPOINTS = resources.of(core_v1.Endpoints)
SERVICES = resources.of(core_v1.Service)
NODES = resources.of(core_v1.Node)
NS = "default"

Obj = dict[str, Any]


def service(**spec: Any) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "db", "namespace": NS},
        "spec": {"ports": [{"port": 5432, "name": "sql"}], **spec},
    }


def endpoints(*ips: str) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "db", "namespace": NS},
        "subsets": [{"addresses": [{"ip": each} for each in ips], "ports": [{"port": 5432, "name": "sql"}]}],
    }


async def found(cluster: Cluster) -> list[str]:
    items = (await cluster.client.list(SLICES, NS)).items
    return sorted(
        ip
        for each in items
        if each["metadata"]["labels"].get("kubernetes.io/service-name") == "db"
        for endpoint in each.get("endpoints") or ()
        for ip in endpoint["addresses"]
    )


async def test_endpoints_by_hand_are_mirrored_while_the_service_selects_nothing() -> None:
    async with running_cluster() as cluster:
        client = cluster.client

        async def mirrored(*ips: str) -> bool:
            assert await found(cluster) == sorted(ips)
            return True

        await client.create(endpoints("192.0.2.1"))
        await client.create(service())
        await eventually(lambda: mirrored("192.0.2.1"), "the mirrored address")
        await client.patch(ENDPOINTS, "db", {"subsets": endpoints("192.0.2.2", "192.0.2.3")["subsets"]}, NS)
        await eventually(lambda: mirrored("192.0.2.2", "192.0.2.3"), "the changed addresses")
        (mirror,) = (
            each
            for each in (await client.list(SLICES, NS)).items
            if each["metadata"]["labels"].get("kubernetes.io/service-name") == "db"
        )
        await client.delete(SLICES, mirror["metadata"]["name"], NS)
        await eventually(lambda: mirrored("192.0.2.2", "192.0.2.3"), "a deleted slice to be made again")
        await client.patch(
            ENDPOINTS, "db", {"metadata": {"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}}, NS
        )
        await eventually(mirrored, "no mirror of what is to be skipped")


async def test_topology_hints_follow_the_nodes() -> None:
    async with running_cluster(nodes=2) as cluster:
        client = cluster.client
        for name, zone in (("n1", "a"), ("n2", "b")):
            await client.patch(NODES, name, {"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}})
            await client.patch(NODES, name, {"status": {"allocatable": {"cpu": "4"}}}, subresource="status")
        wanted = service(selector={"app": "web"})
        wanted["metadata"]["annotations"] = {"service.kubernetes.io/topology-mode": "Auto"}
        await client.create(wanted)
        for number in range(4):
            await client.create(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"name": f"p{number}", "namespace": NS, "labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": "i"}]},
                }
            )

        async def hints() -> list[str]:
            items = (await client.list(SLICES, NS)).items
            all_ = [e for each in items for e in each.get("endpoints") or ()]
            return sorted(each["hints"]["forZones"][0]["name"] for each in all_ if each.get("hints"))

        async def shared() -> bool:
            return await hints() == ["a", "a", "b", "b"]

        await eventually(shared, "every zone to have its half")
        await client.patch(NODES, "n2", {"status": {"allocatable": {"cpu": "12"}}}, subresource="status")

        async def shifted() -> bool:
            return await hints() == ["a", "b", "b", "b"]

        await eventually(shifted, "the larger zone to have more")
        await client.patch(NODES, "n2", {"metadata": {"labels": {"topology.kubernetes.io/zone": None}}})

        async def none() -> bool:
            return not await hints()

        await eventually(none, "no hints when a node does not tell its zone")

        async def told() -> bool:
            events = (await client.list(resources.of(core_v1.Event), NS)).items
            return {"TopologyAwareHintsEnabled", "TopologyAwareHintsDisabled"} <= {each["reason"] for each in events}

        await eventually(told, "events that tell")
