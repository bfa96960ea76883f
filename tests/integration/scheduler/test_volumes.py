"""Pods with claims: the scheduler and the volume controllers against a real API server, without kubelets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from api import resources
from api.models import core_v1, storage_v1
from client.client import Client
from controller_manager.app import ControllerManager
from controller_manager.environment import Options
from machinery.clock import RealClock
from tests.harness.apiserver import RunningApiServer
from tests.integration.controller_manager import volumes as v
from tests.integration.scheduler.cluster import (
    SCALE,
    Cluster,
    bound,
    is_bound,
    refused,
    running_scheduler,
    until,
)
from tests.unit.scheduler.objects import node, pod

OURS = "nanokube.io/node-local"
CONTROLLERS = ["persistentvolume-binder-controller", "node-local-volume-provisioner"]


@contextlib.asynccontextmanager
async def volume_controllers(server: RunningApiServer, names: Sequence[str] = CONTROLLERS) -> AsyncIterator[None]:
    client = Client.connect(server.grpc_target, server.admin_tls)
    options = Options(node_volume_folder="/srv/{node}")
    manager = ControllerManager(client, RealClock(SCALE), options, list(names))
    task = asyncio.ensure_future(manager.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()


async def prepared(cluster: Cluster, nodes: int = 2) -> None:
    for index in range(nodes):
        await cluster.add_node(node(f"n{index}", labels={"zone": "ab"[index % 2]}))


def user(name: str, *claims: str, **spec: Any) -> core_v1.Pod:
    sources = [core_v1.PersistentVolumeClaimVolumeSource(claimName=claim) for claim in claims]
    volumes = [core_v1.Volume(name=f"v{at}", persistentVolumeClaim=each) for at, each in enumerate(sources)]
    return pod(name, volumes=volumes, **spec)


async def the_claim(cluster: Cluster, name: str) -> Any:
    return await cluster.client.get(v.CLAIMS, name, v.NS)


async def test_a_claim_is_provisioned_where_its_pod_goes(cluster: Cluster) -> None:
    server = cluster.server
    async with volume_controllers(server), running_scheduler(server):
        await prepared(cluster)
        await cluster.client.create(v.storage_class("late", OURS, delayed=True))
        await cluster.client.create(v.claim("data", class_="late"))
        await cluster.add_pod(user("web", "data", nodeSelector={"zone": "b"}))
        assert await bound(cluster, "web") == "n1"
        claim = await the_claim(cluster, "data")
        assert claim["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] == "n1"
        volume = await cluster.client.get(v.VOLUMES, claim["spec"]["volumeName"])
        assert volume["spec"]["local"]["path"].startswith("/srv/n1/")
        # Whoever uses the claim from now on goes there.
        await cluster.add_pod(user("other", "data"))
        assert await bound(cluster, "other") == "n1"


async def test_static_volumes_are_set_aside_for_the_pods_node(cluster: Cluster) -> None:
    server = cluster.server
    async with volume_controllers(server), running_scheduler(server):
        await prepared(cluster)
        await cluster.client.create(v.storage_class("static", delayed=True))
        for name, size, host in (("small", "1Gi", "n0"), ("large", "5Gi", "n1")):
            expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}
            affinity = {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}
            await cluster.client.create(v.volume(name, size, "static", nodeAffinity=affinity))
        await cluster.client.create(v.claim("big", "3Gi", "static"))
        await cluster.client.create(v.claim("any", "1Gi", "static"))
        await cluster.client.create(v.claim("late", "1Gi", "static"))
        await cluster.add_pod(user("one", "big"))
        assert await bound(cluster, "one") == "n1"
        await cluster.add_pod(user("two", "any"))
        assert await bound(cluster, "two") == "n0"
        await cluster.add_pod(user("three", "late"))
        assert await refused(cluster, "three") == (
            "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind. preemption: "
            "0/2 nodes are available: 2 Preemption is not helpful for scheduling."
        )
        await cluster.client.create(v.volume("another", "1Gi", "static"))
        assert await bound(cluster, "three")


async def test_pods_wait_for_claims_and_hear_when_they_are_bound(cluster: Cluster) -> None:
    server = cluster.server
    async with volume_controllers(server), running_scheduler(server):
        await prepared(cluster)
        await cluster.add_pod(user("web", "data"))
        message = await refused(cluster, "web")
        assert message.startswith('0/2 nodes are available: persistentvolumeclaim "data" not found.')
        await cluster.client.create(v.claim("data", class_="manual"))

        async def waits_for_binding() -> bool:
            condition = await cluster.condition("web")
            return condition is not None and "unbound immediate PersistentVolumeClaims" in (condition.message or "")

        await until(waits_for_binding)
        await cluster.client.create(v.volume("there"))
        assert await bound(cluster, "web")


async def test_a_failed_provisioning_sends_the_pod_elsewhere(cluster: Cluster) -> None:
    """An external provisioner that cannot do it on that node takes the selected node back."""
    server = cluster.server
    async with volume_controllers(server, CONTROLLERS[:1]), running_scheduler(server):
        await prepared(cluster)
        await cluster.client.create(v.storage_class("far", "example.com/disk", delayed=True))
        await cluster.client.create(v.claim("data", class_="far"))
        await cluster.add_pod(user("web", "data"))

        async def selected() -> str:
            noted = (await the_claim(cluster, "data"))["metadata"].get("annotations", {})
            return str(noted.get("volume.kubernetes.io/selected-node", ""))

        async def is_selected() -> bool:
            return bool(await selected())

        await until(is_selected)
        first = await selected()
        await cluster.client.patch(resources.of(core_v1.Node), first, {"spec": {"unschedulable": True}})
        patch = {"metadata": {"annotations": {"volume.kubernetes.io/selected-node": None}}}
        await cluster.client.patch(v.CLAIMS, "data", patch, v.NS)

        async def elsewhere() -> bool:
            return await selected() not in ("", first)

        await until(elsewhere)
        assert any("provisioning failed for PVC" in text for text in await cluster.messages("web", "FailedScheduling"))
        assert not await is_bound(cluster, "web")


async def test_one_pod_only_means_one_pod(cluster: Cluster) -> None:
    server = cluster.server
    async with volume_controllers(server), running_scheduler(server):
        await prepared(cluster)
        modes = ["ReadWriteOncePod"]
        await cluster.client.create(v.volume("alone", accessModes=modes))
        await cluster.client.create(v.claim("data", accessModes=modes))
        await cluster.add_pod(user("first", "data"))
        await bound(cluster, "first")
        await cluster.add_pod(user("second", "data"))
        assert (
            "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
            in await refused(cluster, "second")
        )
        await cluster.client.delete(core_v1.Pod, "first", v.NS, grace_period_seconds=0)
        assert await bound(cluster, "second")


async def test_limits_of_a_driver_are_kept_and_raised_limits_heard(cluster: Cluster) -> None:
    server = cluster.server
    async with volume_controllers(server, CONTROLLERS[:1]), running_scheduler(server):
        await prepared(cluster, nodes=1)
        drivers = [{"name": "csi.example.com", "nodeID": "n0", "allocatable": {"count": 1}}]
        csi_node = {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "CSINode",
            "metadata": {"name": "n0"},
            "spec": {"drivers": drivers},
        }
        await cluster.client.create(csi_node)
        for name in ("a", "b"):
            source: v.Obj = {"hostPath": None, "csi": {"driver": "csi.example.com", "volumeHandle": name}}
            await cluster.client.create(v.volume(name, **source))
            await cluster.client.create(v.claim(name, volumeName=name))

            async def claimed(name: str = name) -> bool:
                return bool((await the_claim(cluster, name))["status"]["phase"] == "Bound")

            await until(claimed)
            await cluster.add_pod(user(name, name))
            if name == "a":
                await bound(cluster, name)
        await refused(cluster, "b", "node(s) exceed max volume count")
        await cluster.client.delete(resources.of(storage_v1.CSINode), "n0")
        drivers[0]["allocatable"] = {"count": 2}
        await cluster.client.create(csi_node)
        assert await bound(cluster, "b")
