"""sig-storage: the objects of storage through their whole lives, by every verb there is for them."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.harness.api import Api, Collection, Obj
from tests.harness.nanokube import eventually


def word() -> str:
    return f"e2e-{uuid.uuid4().hex[:8]}"


def live(objects: Collection, made: Obj, label: str) -> None:
    """Create, get, list by label, patch, replace, delete, delete a collection."""
    name = made["metadata"]["name"]
    created = objects.create(made)
    assert created["metadata"]["uid"]
    assert objects.get(name)["metadata"]["uid"] == created["metadata"]["uid"]
    assert name in objects.names()
    objects.patch(name, {"metadata": {"labels": {label: "patched"}}})
    assert objects.names(labelSelector=f"{label}=patched") == [name]

    replaced = objects.modify(name, lambda obj: obj["metadata"]["labels"].update({label: "updated"}))
    assert replaced["metadata"]["labels"][label] == "updated"
    assert objects.names(labelSelector=f"{label}=updated") == [name]
    objects.delete(name)
    eventually(lambda: not objects.exists(name), f"{name} gone")
    for _ in range(2):
        fresh = {**made, "metadata": {"name": word(), "labels": {label: "many"}}}
        objects.create(fresh)
    assert len(objects.names(labelSelector=f"{label}=many")) == 2
    objects.delete_all(labelSelector=f"{label}=many")
    eventually(lambda: not objects.names(labelSelector=f"{label}=many"), "the collection gone")


def volume(name: str, class_: str, **labels: str) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "1Gi"},
            "storageClassName": class_,
            "persistentVolumeReclaimPolicy": "Retain",
            "csi": {"driver": "e2e-driver.example.com", "volumeHandle": "e2e-status-conformance"},
        },
    }


def claim(name: str, class_: str, **labels: str) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": class_,
        },
    }


def storage_class(name: str, **labels: str) -> Obj:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, "labels": labels},
        "provisioner": "e2e-fake-provisioner.example.com",
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }


def phase(objects: Collection, name: str) -> Any:
    return objects.get(name).get("status", {}).get("phase")


@pytest.mark.conformance(
    "[sig-storage] PersistentVolumes CSI Conformance should run through the lifecycle of a PV and a PVC [Conformance]"
)
def test_lifecycle_of_volume_and_claim(api: Api, namespace: str) -> None:
    volumes, claims = api.of("v1", "persistentvolumes"), api.of("v1", "persistentvolumeclaims", namespace)
    label, name = word(), word()
    volumes.create(volume(name, label, **{label: "volume"}))
    eventually(lambda: phase(volumes, name) == "Available", "the volume available")
    assert volumes.names(labelSelector=f"{label}=volume") == [name]
    claims.create(claim(name, label, **{label: "claim"}))
    eventually(lambda: phase(claims, name) == "Bound", "the claim bound")
    assert claims.get(name)["spec"]["volumeName"] == name
    assert api.of("v1", "persistentvolumeclaims").names(labelSelector=f"{label}=claim") == [name]
    volumes.patch(name, {"metadata": {"labels": {label: "patched"}}})
    claims.patch(name, {"metadata": {"labels": {label: "patched"}}})
    assert volumes.names(labelSelector=f"{label}=patched") == claims.names(labelSelector=f"{label}=patched") == [name]

    claims.delete(name)
    eventually(lambda: not claims.exists(name), "the claim gone")
    volumes.delete(name)
    eventually(lambda: not volumes.exists(name), "the volume gone")

    volumes.create(volume(name, label, **{label: "again"}))
    claims.create(claim(name, label, **{label: "again"}))
    eventually(lambda: phase(claims, name) == "Bound", "the claim bound again")

    for objects in (volumes, claims):
        objects.modify(name, lambda obj: obj["metadata"]["labels"].update({label: "updated"}))
        assert objects.names(labelSelector=f"{label}=updated") == [name]
    claims.delete_all(labelSelector=f"{label}=updated")
    eventually(lambda: not claims.names(), "no claims")
    volumes.delete_all(labelSelector=f"{label}=updated")
    eventually(lambda: not volumes.names(labelSelector=f"{label}=updated"), "no volumes")


@pytest.mark.conformance(
    "[sig-storage] PersistentVolumes CSI Conformance should apply changes to a pv/pvc status [Conformance]"
)
def test_status_of_volume_and_claim(api: Api, namespace: str) -> None:
    volumes, claims = api.of("v1", "persistentvolumes"), api.of("v1", "persistentvolumeclaims", namespace)
    name = word()
    volumes.create(volume(name, name))
    claims.create(claim(name, name))
    eventually(lambda: phase(claims, name) == "Bound", "the claim bound")
    eventually(lambda: phase(volumes, name) == "Bound", "the volume bound")
    assert claims.get(name, "status")["status"]["phase"] == "Bound"
    assert volumes.get(name, "status")["status"]["phase"] == "Bound"

    condition = {"type": "StatusPatched", "status": "True", "reason": "E2E patchedStatus", "message": "Set by e2e"}
    patched = claims.patch(name, {"status": {"conditions": [condition]}}, subresource="status")
    assert [each["type"] for each in patched["status"]["conditions"]] == ["StatusPatched"]
    patched = volumes.patch(name, {"status": {"message": "StatusPatched", "reason": "E2E"}}, subresource="status")
    assert patched["status"]["message"] == "StatusPatched"

    updated = [{**condition, "type": "StatusUpdated"}]
    claims.modify(name, lambda obj: obj["status"].update(conditions=updated), "status")
    assert [each["type"] for each in claims.get(name)["status"]["conditions"]] == ["StatusUpdated"]

    volumes.modify(name, lambda obj: obj["status"].update(message="StatusUpdated"), "status")
    assert volumes.get(name)["status"]["message"] == "StatusUpdated"
    claims.delete(name)
    eventually(lambda: not claims.exists(name), "the claim gone")
    volumes.delete(name)
    eventually(lambda: not volumes.exists(name), "the volume gone")


@pytest.mark.conformance(
    "[sig-storage] StorageClasses CSI Conformance should run through the lifecycle of a StorageClass [Conformance]"
)
def test_lifecycle_of_a_storage_class(api: Api) -> None:
    live(api.of("storage.k8s.io/v1", "storageclasses"), storage_class(word()), word())


def attachment(name: str, node: str) -> Obj:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "VolumeAttachment",
        "metadata": {"name": name},
        "spec": {
            "attacher": "e2e-test.storage.k8s.io",
            "nodeName": node,
            "source": {"persistentVolumeName": "some-pv-name"},
        },
    }


@pytest.mark.conformance(
    "[sig-storage] VolumeAttachment Conformance should run through the lifecycle of a VolumeAttachment [Conformance]"
)
def test_lifecycle_of_an_attachment(api: Api) -> None:
    live(api.of("storage.k8s.io/v1", "volumeattachments"), attachment(word(), "nowhere"), word())


@pytest.mark.conformance(
    "[sig-storage] VolumeAttachment Conformance should apply changes to a volumeattachment status [Conformance]"
)
def test_status_of_an_attachment(api: Api) -> None:
    attachments = api.of("storage.k8s.io/v1", "volumeattachments")
    name = word()
    attachments.create(attachment(name, "nowhere"))
    patched = attachments.patch(name, {"status": {"attached": True}}, subresource="status")
    assert patched["status"]["attached"] is True
    current = attachments.get(name, "status")
    current["status"]["attached"] = False
    assert attachments.update(current, subresource="status")["status"]["attached"] is False
    assert attachments.get(name)["status"]["attached"] is False
    attachments.delete(name)
    eventually(lambda: not attachments.exists(name), "the attachment gone")


@pytest.mark.conformance(
    "[sig-storage] VolumeAttributesClass [FeatureGate:VolumeAttributesClass] should run through the lifecycle of a "
    "VolumeAttributesClass [Conformance]"
)
def test_lifecycle_of_an_attributes_class(api: Api) -> None:
    made = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "VolumeAttributesClass",
        "metadata": {"name": word()},
        "driverName": "e2e-fake-csi-driver",
        "parameters": {"iops": "3000"},
    }
    live(api.of("storage.k8s.io/v1", "volumeattributesclasses"), made, word())


@pytest.mark.conformance(
    "[sig-storage] CSINodes CSI Conformance should run through the lifecycle of a csinode [Conformance]"
)
def test_lifecycle_of_a_csi_node(api: Api) -> None:
    drivers = [{"name": "e2e-driver.example.com", "nodeID": "n", "topologyKeys": ["example.com/zone"]}]
    made = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSINode",
        "metadata": {"name": word()},
        "spec": {"drivers": drivers},
    }
    live(api.of("storage.k8s.io/v1", "csinodes"), made, word())


@pytest.mark.conformance("[sig-storage] CSIInlineVolumes should run through the lifecycle of a CSIDriver [Conformance]")
def test_lifecycle_of_a_csi_driver(api: Api) -> None:
    made = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSIDriver",
        "metadata": {"name": f"{word()}.example.com"},
        "spec": {"attachRequired": False, "podInfoOnMount": True, "volumeLifecycleModes": ["Ephemeral"]},
    }
    live(api.of("storage.k8s.io/v1", "csidrivers"), made, word())


@pytest.mark.conformance(
    "[sig-storage] CSIStorageCapacity should support CSIStorageCapacities API operations [Conformance]"
)
def test_csi_storage_capacities(api: Api, namespace: str) -> None:
    groups = {each["name"]: each for each in api.call("GET", "/apis")["groups"]}
    assert "storage.k8s.io/v1" in [each["groupVersion"] for each in groups["storage.k8s.io"]["versions"]]
    served = {each["name"] for each in api.call("GET", "/apis/storage.k8s.io/v1")["resources"]}
    assert "csistoragecapacities" in served
    objects = api.of("storage.k8s.io/v1", "csistoragecapacities", namespace)
    made = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSIStorageCapacity",
        "metadata": {"name": word(), "labels": {"test": "first"}},
        "storageClassName": "some-class",
    }
    version = objects.page()["metadata"]["resourceVersion"]
    objects.create(made)
    with objects.watch(resourceVersion=version) as events:
        assert next(events)["type"] == "ADDED"
    everywhere = api.of("storage.k8s.io/v1", "csistoragecapacities")
    assert everywhere.names(labelSelector="test=first") == [made["metadata"]["name"]]  # type: ignore[index]
    objects.delete(made["metadata"]["name"])  # type: ignore[index]
    live(objects, made | {"metadata": {"name": word()}}, word())
