"""Quotas with their controller against a real API server in process."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api import resources
from api.models import apps_v1, core_v1
from machinery.errors import Forbidden
from tests.integration.controller_manager.hollow import Cluster, eventually, running_cluster

QUOTAS = resources.of(core_v1.ResourceQuota)
MAPS = resources.of(core_v1.ConfigMap)
PODS = resources.of(core_v1.Pod)
DEPLOYMENTS = resources.of(apps_v1.Deployment)
NS = "default"
CONTROLLERS = [
    "resourcequota-controller",
    "serviceaccount-controller",
    "deployment-controller",
    "replicaset-controller",
]

Obj = dict[str, Any]


async def used(cluster: Cluster) -> Obj:
    found = await cluster.client.get(QUOTAS, "q", NS)
    status: Obj = found.get("status") or {}
    return dict(status.get("used") or {})


async def a_quota(cluster: Cluster, **hard: str) -> None:
    meta = {"name": "q", "namespace": NS}
    await cluster.client.create({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": hard}})
    await eventually(lambda: used(cluster), "a counted quota")


def config_map(name: str) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": NS}}


async def test_what_is_there_counts_and_what_goes_is_given_back() -> None:
    async with running_cluster(nodes=1, controllers=CONTROLLERS) as cluster:
        await a_quota(cluster, pods="3", **{"count/deployments.apps": "1"})
        container = {"name": "main", "image": "busybox"}
        labels = {"app": "web"}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web", "namespace": NS},
            "spec": {"replicas": 5, "selector": {"matchLabels": labels}, "template": template},
        }
        await cluster.client.create(deployment)

        async def full() -> bool:
            return await used(cluster) == {"pods": "3", "count/deployments.apps": "1"}

        await eventually(full, "a full quota")
        assert len((await cluster.client.list(PODS, NS)).items) == 3
        with pytest.raises(Forbidden, match="exceeded quota: q"):
            await cluster.client.create({**deployment, "metadata": {"name": "two", "namespace": NS}})
        await cluster.client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 1}}, NS)

        async def freed() -> bool:
            return await used(cluster) == {"pods": "1", "count/deployments.apps": "1"}

        await eventually(freed, "pods given back")


async def test_a_quota_counts_what_was_there_before_it() -> None:
    async with running_cluster(controllers=["resourcequota-controller"]) as cluster:
        before = len((await cluster.client.list(MAPS, NS)).items)
        for number in range(3):
            await cluster.client.create(config_map(f"old{number}"))
        await a_quota(cluster, configmaps=str(before + 5))
        assert await used(cluster) == {"configmaps": str(before + 3)}

        async def one(number: int) -> bool:
            try:
                await cluster.client.create(config_map(f"new{number}"))
            except Forbidden:
                return False
            return True

        assert sum(await asyncio.gather(*(one(number) for number in range(10)))) == 2
        await cluster.client.patch(QUOTAS, "q", {"spec": {"hard": {"configmaps": str(before + 6)}}}, NS)

        async def widened() -> bool:
            return await one(99)

        await eventually(widened, "the wider quota")
        assert len((await cluster.client.list(MAPS, NS)).items) == before + 6
