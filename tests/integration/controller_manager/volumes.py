"""Claims, volumes and classes for tests, and ways to wait for what becomes of them."""

from __future__ import annotations

from typing import Any

from api import resources
from api.models import core_v1, storage_v1
from client.client import PatchType
from machinery.errors import NotFound
from tests.integration.controller_manager.hollow import Cluster, eventually

CLAIMS = resources.of(core_v1.PersistentVolumeClaim)
VOLUMES = resources.of(core_v1.PersistentVolume)
CLASSES = resources.of(storage_v1.StorageClass)
EVENTS = resources.of(core_v1.Event)
PODS = resources.of(core_v1.Pod)
NS = "default"

Obj = dict[str, Any]


def claim(name: str = "data", size: str = "1Gi", class_: str | None = "manual", **spec: Any) -> Obj:
    made: Obj = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    if class_ is not None:
        made["storageClassName"] = class_
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": NS},
        "spec": made,
    }


def volume(name: str, size: str = "1Gi", class_: str = "manual", labels: Obj | None = None, **spec: Any) -> Obj:
    made: Obj = {
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": size},
        "storageClassName": class_,
        "hostPath": {"path": f"/mnt/{name}"},
        **spec,
    }
    meta: Obj = {"name": name, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": meta, "spec": made}


def storage_class(
    name: str, provisioner: str = "kubernetes.io/no-provisioner", *, delayed: bool = False, **rest: Any
) -> Obj:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, "annotations": rest.pop("annotations", {})},
        "provisioner": provisioner,
        "volumeBindingMode": "WaitForFirstConsumer" if delayed else "Immediate",
        **rest,
    }


async def the_claim(cluster: Cluster, name: str = "data") -> Obj:
    found: Obj = await cluster.client.get(CLAIMS, name, NS)
    return found


async def the_volume(cluster: Cluster, name: str) -> Obj:
    found: Obj = await cluster.client.get(VOLUMES, name)
    return found


async def claim_in(cluster: Cluster, phase: str, name: str = "data") -> Obj:
    async def probe() -> Obj:
        live = await the_claim(cluster, name)
        assert live["status"]["phase"] == phase, live
        return live

    found: Obj = await eventually(probe, f"claim {name} {phase}")
    return found


async def volume_in(cluster: Cluster, phase: str, name: str) -> Obj:
    async def probe() -> Obj:
        live = await the_volume(cluster, name)
        assert live["status"].get("phase") == phase, live["status"]
        return live

    found: Obj = await eventually(probe, f"volume {name} {phase}")
    return found


async def told(cluster: Cluster, kind: str, name: str, reason: str) -> tuple[str, str]:
    """(type, message) of the first event of that reason about an object."""

    async def probe() -> tuple[str, str] | None:
        for event in (await cluster.client.list(EVENTS, NS)).items:
            about = event["involvedObject"]
            if (about["kind"], about["name"], event["reason"]) == (kind, name, reason):
                return event["type"], event["message"]
        return None

    found: tuple[str, str] = await eventually(probe, f"event {reason} of {name}")
    return found


async def is_gone(cluster: Cluster, resource: Any, name: str, namespace: str | None = None) -> bool:
    async def probe() -> bool:
        try:
            await cluster.client.get(resource, name, namespace)
        except NotFound:
            return True
        return False

    return bool(await eventually(probe, f"{name} gone"))


async def select_node(cluster: Cluster, name: str, node: str) -> None:
    """What the scheduler does for a claim that waits for its consumer."""
    patch = {"metadata": {"annotations": {"volume.kubernetes.io/selected-node": node}}}
    await cluster.client.patch(CLAIMS, name, patch, NS, type=PatchType.MERGE)
