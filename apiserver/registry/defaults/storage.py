"""Defaults of claims, volumes, and the storage.k8s.io kinds."""

from typing import Any

from apiserver.registry.defaults.pod import VOLUME_SOURCES

Obj = dict[str, Any]


def default_claim(obj: Obj) -> None:
    """v1 PersistentVolumeClaim (also inside a StatefulSet)."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("volumeMode", "Filesystem")
    resources = spec.setdefault("resources", {})
    if (limits := resources.get("limits")) and "storage" in limits:
        resources.setdefault("requests", {}).setdefault("storage", limits["storage"])


def default_volume(obj: Obj) -> None:
    """v1 PersistentVolume."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
    spec.setdefault("volumeMode", "Filesystem")
    if (path := spec.get("hostPath")) is not None:
        path.setdefault("type", "")
    for source, values in VOLUME_SOURCES.items():
        if (given := spec.get(source)) is not None:
            for field, value in values.items():
                given.setdefault(field, value)


def default_storage_class(obj: Obj) -> None:
    """storage.k8s.io/v1 StorageClass."""
    obj.setdefault("reclaimPolicy", "Delete")
    obj.setdefault("volumeBindingMode", "Immediate")


def default_csi_driver(obj: Obj) -> None:
    """storage.k8s.io/v1 CSIDriver."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("attachRequired", True)
    spec.setdefault("podInfoOnMount", False)
    spec.setdefault("storageCapacity", False)
    spec.setdefault("fsGroupPolicy", "ReadWriteOnceWithFSType")
    spec.setdefault("volumeLifecycleModes", ["Persistent"])
    spec.setdefault("requiresRepublish", False)
    spec.setdefault("seLinuxMount", False)
