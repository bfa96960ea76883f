"""Storage objects in use with the protection controllers against a real API server in process."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api import resources
from api.models import core_v1, storage_v1
from machinery.errors import NotFound
from tests.integration.controller_manager.hollow import Cluster, eventually, running_cluster

CLAIMS = resources.of(core_v1.PersistentVolumeClaim)
VOLUMES = resources.of(core_v1.PersistentVolume)
CLASSES = resources.of(storage_v1.VolumeAttributesClass)
PODS = resources.of(core_v1.Pod)
NS = "default"
CONTROLLERS = [
    "persistentvolumeclaim-protection-controller",
    "persistentvolume-protection-controller",
    "volumeattributesclass-protection-controller",
    "serviceaccount-controller",
]

Obj = dict[str, Any]


def claim(name: str, **spec: Any) -> Obj:
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, **spec}
    meta = {"name": name, "namespace": NS}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": wanted}


def volume(name: str) -> Obj:
    spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/tmp/x"}}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}


async def gone(cluster: Cluster, kind: Any, name: str, namespace: str | None = None) -> None:
    async def missing() -> bool:
        try:
            await cluster.client.get(kind, name, namespace)
        except NotFound:
            return True
        return False

    await eventually(missing, f"{name} to go")


async def test_a_claim_stays_as_long_as_a_pod_uses_it() -> None:
    async with running_cluster(nodes=1, controllers=CONTROLLERS) as cluster:
        client = cluster.client
        for name in ("used", "free"):
            made = await client.create(claim(name))
            assert made["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
        volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "used"}}]
        pod = {"containers": [{"name": "main", "image": "busybox"}], "volumes": volumes, "nodeName": "n0"}
        meta = {"name": "user", "namespace": NS}

        async def created() -> bool:  # the namespace's service account comes a moment later
            try:
                await client.create({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod})
            except Exception:  # noqa: BLE001  # tried again
                return False
            return True

        await eventually(created, "the pod")
        await client.delete(CLAIMS, "used", NS)
        await client.delete(CLAIMS, "free", NS)
        await gone(cluster, CLAIMS, "free", NS)
        kept = await client.get(CLAIMS, "used", NS)
        assert kept["metadata"]["deletionTimestamp"]
        await client.delete(PODS, "user", NS, grace_period_seconds=0)
        await gone(cluster, CLAIMS, "used", NS)


async def test_a_bound_volume_stays_and_classes_in_use_too() -> None:
    async with running_cluster(controllers=CONTROLLERS) as cluster:
        client = cluster.client
        for name in ("bound", "free"):
            await client.create(volume(name))
        await client.patch(VOLUMES, "bound", {"status": {"phase": "Bound"}}, subresource="status")
        for name in ("used", "unused"):
            body = {"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass", "driverName": "csi.example.com"}
            await client.create({**body, "metadata": {"name": name}, "parameters": {"iops": "1"}})
        await client.create(claim("c", volumeAttributesClassName="used"))

        async def named() -> bool:
            manager = cluster.manager.environment.informers.informer(core_v1.PersistentVolumeClaim)
            return bool(manager.lister.list(NS))

        await eventually(named, "the claim in the cache")
        for kind, name in ((VOLUMES, "bound"), (VOLUMES, "free"), (CLASSES, "used"), (CLASSES, "unused")):
            await client.delete(kind, name)
        await gone(cluster, VOLUMES, "free")
        await gone(cluster, CLASSES, "unused")
        for kind, name in ((VOLUMES, "bound"), (CLASSES, "used")):
            assert (await client.get(kind, name))["metadata"]["deletionTimestamp"]
        await client.patch(VOLUMES, "bound", {"status": {"phase": "Released"}}, subresource="status")
        await client.delete(CLAIMS, "c", NS)
        await asyncio.gather(gone(cluster, VOLUMES, "bound"), gone(cluster, CLASSES, "used"))


@pytest.mark.parametrize(("kind", "finalizer"), [(VOLUMES, "kubernetes.io/pv-protection")])
async def test_what_was_made_without_protection_gets_it(kind: Any, finalizer: str) -> None:
    async with running_cluster(controllers=CONTROLLERS) as cluster:
        await cluster.client.create(volume("bare"))
        await cluster.client.patch(kind, "bare", {"metadata": {"finalizers": None}})

        async def protected() -> bool:
            found = await cluster.client.get(kind, "bare")
            return finalizer in (found["metadata"].get("finalizers") or ())

        await eventually(protected, "the finalizer")
