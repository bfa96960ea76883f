"""A recorded cluster as typed objects, for the scheduler's snapshot and for the slow reference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from api.models import core_v1, meta_v1, storage_v1
from machinery.selectors import LabelSelector
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.pod_terms import selector_of
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.framework.workloads import REPLICATION_CONTROLLER
from tests.unit.scheduler.reference_pods import World
from tests.unit.scheduler.reference_volumes import Storage

FOLDER = Path(__file__).resolve().parents[1] / "data" / "clusters"


class SelectorSpec(msgspec.Struct):
    """What is kept of a workload's spec."""

    selector: meta_v1.LabelSelector | None = None


class Workload(msgspec.Struct):
    """A ReplicaSet or StatefulSet."""

    metadata: meta_v1.ObjectMeta
    spec: SelectorSpec


class Cluster(msgspec.Struct, rename="camel"):
    """A file of tests/data/clusters."""

    about: str
    namespaces: list[core_v1.Namespace]
    nodes: list[core_v1.Node]
    services: list[core_v1.Service]
    replication_controllers: list[core_v1.ReplicationController]
    replica_sets: list[Workload]
    stateful_sets: list[Workload]
    storage_classes: list[storage_v1.StorageClass]
    volumes: list[core_v1.PersistentVolume]
    claims: list[core_v1.PersistentVolumeClaim]
    csi_nodes: list[storage_v1.CSINode]
    csi_drivers: list[storage_v1.CSIDriver]
    csi_capacities: list[storage_v1.CSIStorageCapacity]
    pods: list[core_v1.Pod]


@dataclass(frozen=True)
class Key:
    """Where an object is."""

    namespace: str
    name: str


def key_of(obj: msgspec.Struct) -> Key:
    metadata = obj.metadata  # type: ignore[attr-defined]  # every kind here has it
    return Key(metadata.namespace or "", metadata.name or "")


def load(path: Path) -> Cluster:
    return msgspec.json.decode(path.read_bytes(), type=Cluster)


def world_of(cluster: Cluster) -> World:
    """What the reference wants to know of namespaces, Services and workloads."""
    world = World()
    for namespace in cluster.namespaces:
        world.namespaces[key_of(namespace).name] = (namespace.metadata and namespace.metadata.labels) or {}
    for service in cluster.services:
        if service.spec is not None and service.spec.selector:
            at = key_of(service)
            world.services[(at.namespace, at.name)] = service.spec.selector
    for controller in cluster.replication_controllers:
        at, labels = key_of(controller), controller.spec.selector if controller.spec is not None else None
        world.owners[(REPLICATION_CONTROLLER, at.namespace, at.name)] = meta_v1.LabelSelector(matchLabels=labels)
    for kind, sets in (("ReplicaSet", cluster.replica_sets), ("StatefulSet", cluster.stateful_sets)):
        for each in sets:
            if each.spec.selector is not None:
                world.owners[(kind, key_of(each).namespace, key_of(each).name)] = each.spec.selector
    return world


def storage_of(cluster: Cluster) -> Storage | None:
    """The same of storage; None when nobody claims any."""
    if not cluster.claims:
        return None
    storage = Storage()
    for claim in cluster.claims:
        storage.claims[key_of(claim).name] = claim
    for volume in cluster.volumes:
        storage.volumes[key_of(volume).name] = volume
    for class_ in cluster.storage_classes:
        storage.classes[key_of(class_).name] = class_
    for node in cluster.csi_nodes:
        drivers = node.spec.drivers if node.spec is not None else ()
        counts = {each.name: each.allocatable.count for each in drivers or () if each.allocatable is not None}
        storage.limits[key_of(node).name] = {name: count for name, count in counts.items() if count is not None}
    storage.capacities = list(cluster.csi_capacities)
    for driver in cluster.csi_drivers:
        if driver.spec is not None and driver.spec.storageCapacity:
            storage.tracked.add(key_of(driver).name)
    return storage


def snapshot_of(cluster: Cluster) -> ClusterSnapshot:
    """The scheduler's view, fed as its informers feed it."""
    snapshot = ClusterSnapshot(capacity=4)
    for namespace in cluster.namespaces:
        snapshot.set_namespace(key_of(namespace).name, (namespace.metadata and namespace.metadata.labels) or {})
    for service in cluster.services:
        selector = service.spec.selector if service.spec is not None else None
        snapshot.workloads.set_service(key_of(service).namespace, key_of(service).name, selector)
    for controller in cluster.replication_controllers:
        key, labels = (
            key_of(controller),
            LabelSelector.from_labels((controller.spec and controller.spec.selector) or {}),
        )
        snapshot.workloads.set_owner((REPLICATION_CONTROLLER, key.namespace, key.name), labels)
    for kind, sets in (("ReplicaSet", cluster.replica_sets), ("StatefulSet", cluster.stateful_sets)):
        for each in sets:
            key = key_of(each)
            snapshot.workloads.set_owner((kind, key.namespace, key.name), selector_of(each.spec.selector))
    snapshot.workloads_changed()
    for node in cluster.nodes:
        snapshot.set_node(node)
    _feed_storage(cluster, snapshot)
    for pod in cluster.pods:
        if pod.spec is not None and pod.spec.nodeName:
            snapshot.add_pod(PodInfo(pod), pod.spec.nodeName)
    return snapshot


def _feed_storage(cluster: Cluster, snapshot: ClusterSnapshot) -> None:
    catalog = snapshot.volumes
    for claim in cluster.claims:
        catalog.set_claim((key_of(claim).namespace, key_of(claim).name), claim)
    for volume in cluster.volumes:
        catalog.set_volume(key_of(volume).name, volume)
    catalog.classes.update({key_of(each).name: each for each in cluster.storage_classes})
    catalog.csi_nodes.update({key_of(each).name: each for each in cluster.csi_nodes})
    catalog.csi_drivers.update({key_of(each).name: each for each in cluster.csi_drivers})
    catalog.capacities.update({(key_of(each).namespace, key_of(each).name): each for each in cluster.csi_capacities})
    catalog.changed()
