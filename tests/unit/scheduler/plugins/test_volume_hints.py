"""Which events let a pod go that a volume plugin refused, and how the API server's news end assumptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from api.models import core_v1, storage_v1
from scheduler.framework.events import Action, ClusterEvent, EventResource
from scheduler.framework.framework import Framework
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.pod_volumes import bound_volume, selected_claim
from scheduler.framework.volume_catalog import VolumeCatalog
from scheduler.plugins.registry import default_framework
from tests.unit.scheduler.objects import info, node, pod

ADD, UPDATE, DELETE = Action.ADD, Action.UPDATE, Action.DELETE
R = EventResource


def user(*claims: str) -> PodInfo:
    sources = [core_v1.PersistentVolumeClaimVolumeSource(claimName=name) for name in claims]
    return PodInfo(
        pod(
            "web",
            volumes=[core_v1.Volume(name=f"v{at}", persistentVolumeClaim=each) for at, each in enumerate(sources)],
        )
    )


def claim(name: str = "data", namespace: str = "default", version: str = "1", **spec: Any) -> Any:
    meta = {"name": name, "namespace": namespace, "uid": f"u-{name}", "resourceVersion": version}
    return msgspec.convert({"metadata": meta, "spec": spec}, core_v1.PersistentVolumeClaim)


def volume(name: str = "v", version: str = "1", labels: Mapping[str, str] | None = None) -> Any:
    meta = {"name": name, "resourceVersion": version, "labels": dict(labels or {})}
    return msgspec.convert({"metadata": meta, "spec": {"storageClassName": "c"}}, core_v1.PersistentVolume)


def storage_class(*zones: str) -> Any:
    topologies = [{"matchLabelExpressions": [{"key": "zone", "values": list(zones)}]}] if zones else None
    raw = {"metadata": {"name": "c"}, "provisioner": "p", "allowedTopologies": topologies}
    return msgspec.convert(raw, storage_v1.StorageClass)


def csi_node(count: int | None) -> Any:
    driver = {"name": "d", "nodeID": "n", "allocatable": {"count": count} if count is not None else None}
    return msgspec.convert({"metadata": {"name": "n"}, "spec": {"drivers": [driver]}}, storage_v1.CSINode)


def capacity(size: str | None) -> Any:
    raw = {"metadata": {"name": "k"}, "storageClassName": "c", "capacity": size}
    return msgspec.convert(raw, storage_v1.CSIStorageCapacity)


def driver(tracks: bool) -> Any:
    raw = {"metadata": {"name": "d"}, "spec": {"storageCapacity": tracks}}
    return msgspec.convert(raw, storage_v1.CSIDriver)


def helps(plugin: str, resource: R, action: Action, old: Any, new: Any) -> bool:
    framework: Framework = default_framework()
    return framework.may_help(user("data"), (plugin,), ClusterEvent(resource, action, old, new))


ZONE = {"topology.kubernetes.io/zone": "a"}


@pytest.mark.parametrize(
    ("plugin", "resource", "action", "old", "new", "expected"),
    [
        ("VolumeBinding", R.CLAIM, ADD, None, claim(), True),
        ("VolumeBinding", R.CLAIM, ADD, None, claim("other"), False),
        ("VolumeBinding", R.CLAIM, UPDATE, claim(), claim(namespace="away"), False),
        ("VolumeBinding", R.VOLUME, ADD, None, volume(), True),
        ("VolumeBinding", R.VOLUME, DELETE, volume(), None, False),
        ("VolumeBinding", R.STORAGE_CLASS, ADD, None, storage_class(), True),
        ("VolumeBinding", R.STORAGE_CLASS, UPDATE, storage_class(), storage_class(), False),
        ("VolumeBinding", R.STORAGE_CLASS, UPDATE, storage_class("a"), storage_class("b"), True),
        ("VolumeBinding", R.CSI_CAPACITY, UPDATE, capacity("1Gi"), capacity("2Gi"), True),
        ("VolumeBinding", R.CSI_CAPACITY, UPDATE, capacity("2Gi"), capacity("1Gi"), False),
        ("VolumeBinding", R.CSI_DRIVER, UPDATE, driver(True), driver(False), True),
        ("VolumeBinding", R.CSI_DRIVER, UPDATE, driver(False), driver(True), False),
        ("VolumeBinding", R.NODE, ADD, None, node("n"), True),
        ("VolumeRestrictions", R.ASSIGNED_POD, DELETE, user("data"), None, True),
        ("VolumeRestrictions", R.ASSIGNED_POD, DELETE, user("other"), None, False),
        ("VolumeRestrictions", R.CLAIM, UPDATE, claim(), claim(), True),
        ("NodeVolumeLimits", R.CSI_NODE, UPDATE, csi_node(1), csi_node(2), True),
        ("NodeVolumeLimits", R.CSI_NODE, UPDATE, csi_node(2), csi_node(1), False),
        ("NodeVolumeLimits", R.CSI_NODE, UPDATE, csi_node(2), csi_node(None), True),
        ("NodeVolumeLimits", R.ASSIGNED_POD, DELETE, user("any"), None, True),
        ("NodeVolumeLimits", R.ASSIGNED_POD, DELETE, info("plain"), None, False),
        ("NodeVolumeLimits", R.ATTACHMENT, DELETE, object(), None, True),
        ("VolumeZone", R.NODE, Action.UPDATE_NODE_LABEL, node("n"), node("n", labels=ZONE), True),
        ("VolumeZone", R.NODE, Action.UPDATE_NODE_LABEL, node("n"), node("n", labels={"disk": "ssd"}), False),
        ("VolumeZone", R.VOLUME, UPDATE, volume(), volume(labels=ZONE), True),
        ("VolumeZone", R.VOLUME, UPDATE, volume(), volume(), False),
        ("InterPodAffinity", R.NAMESPACE, UPDATE, None, None, False),
    ],
)
def test_who_hears_what(plugin: str, resource: R, action: Action, old: Any, new: Any, expected: bool) -> None:
    if resource is R.NAMESPACE:
        old = new = core_v1.Namespace(metadata=node("away").metadata)
    assert helps(plugin, resource, action, old, new) is expected


def test_news_end_an_assumption_and_echoes_do_not() -> None:
    catalog = VolumeCatalog()
    key = ("default", "data")
    catalog.set_claim(key, claim())
    catalog.set_volume("v", volume())
    wanted = bound_volume(volume(), claim())
    catalog.assume_volume(wanted)
    catalog.assume_claim(key, selected_claim(claim(), "n1"))
    assert [each.spec.claimRef for each in catalog.volumes_of_class("c")] == [wanted.spec.claimRef]  # type: ignore[union-attr]
    catalog.set_volume("v", volume())  # the same version again, as after a new list
    catalog.set_claim(key, claim())
    assert catalog.volume("v") is wanted and catalog.claim(key) != catalog.real_claim(key)
    catalog.set_volume("v", volume(version="2"))
    catalog.set_claim(key, claim(version="2"))
    assert catalog.volume("v") is catalog.real_volume("v") and catalog.claim(key) is catalog.real_claim(key)


def test_taking_back_leaves_what_the_server_says() -> None:
    catalog = VolumeCatalog()
    catalog.set_volume("v", volume())
    catalog.assume_volume(bound_volume(volume(), claim()))
    catalog.restore_volume("v")
    catalog.restore_volume("v")
    assert catalog.volume("v") is catalog.real_volume("v")
    catalog.set_volume("v", None)
    assert catalog.volume("v") is None and not list(catalog.volumes_of_class("c"))
