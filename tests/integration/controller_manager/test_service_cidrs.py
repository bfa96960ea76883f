"""Ranges of cluster IPs as objects: the server's own, one that is added, one that cannot go yet."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from api import resources
from api.models import core_v1, networking_v1
from machinery.errors import Invalid, NotFound
from tests.integration.controller_manager.hollow import Cluster, eventually, running_cluster

Obj = dict[str, Any]
RANGES, SERVICES = resources.of(networking_v1.ServiceCIDR), resources.of(core_v1.Service)
MORE = "10.200.0.0/28"


def service(name: str, **spec: Any) -> Obj:
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": [{"port": 80}], **spec}}


async def ready(cluster: Cluster, name: str, status: str) -> Obj:
    found: list[Obj] = []

    async def is_told() -> bool:
        conditions = ((await cluster.client.get(RANGES, name)).get("status") or {}).get("conditions") or []
        found[:] = [each for each in conditions if each["type"] == "Ready"]
        return bool(found) and found[0]["status"] == status

    await eventually(is_told, f"{name} to be {status}")
    return found[0]


async def test_a_range_is_added_used_and_goes_when_nobody_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller_manager.service_cidr.GRACE", 1.0)
    async with running_cluster(controllers=["service-cidr-controller"]) as cluster:
        client = cluster.client
        await ready(cluster, "kubernetes", "True")
        try:
            await client.create(service("early", clusterIP="10.200.0.3"))
            raise AssertionError("an address of no range was given out")
        except Invalid as error:
            assert "the provided network does not match the current range" in error.message
        await client.create(
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "ServiceCIDR",
                "metadata": {"name": "more"},
                "spec": {"cidrs": [MORE]},
            }
        )
        told = await ready(cluster, "more", "True")
        assert told["message"] == "Kubernetes Service CIDR is ready"
        assert (await client.get(RANGES, "more"))["metadata"]["finalizers"] == [
            "networking.k8s.io/service-cidr-finalizer"
        ]
        made = await client.create(service("fixed", clusterIP="10.200.0.3"))
        assert made["spec"]["clusterIPs"] == ["10.200.0.3"]
        chosen = await client.create(service("any"))
        assert ipaddress.ip_address(chosen["spec"]["clusterIP"]) not in ipaddress.ip_network(MORE)

        await client.delete(RANGES, "more")
        told = await ready(cluster, "more", "False")
        assert told["reason"] == "Terminating" and "still IPAddresses referencing" in told["message"]
        try:
            await client.create(service("late", clusterIP="10.200.0.4"))
            raise AssertionError("a range that goes gave an address out")
        except Invalid as error:
            assert "does not match the current range" in error.message

        await client.delete(SERVICES, "fixed", "default")

        async def is_gone() -> bool:
            try:
                await client.get(RANGES, "more")
            except NotFound:
                return True
            return False

        await eventually(is_gone, "the range to go")
