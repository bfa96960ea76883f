"""What besides nodes and pods a decision depends on: namespaces, Services, workloads, disruption budgets and storage.

Owns the informers of these kinds; namespaces' labels, workloads' selectors, claims and volumes go into the snapshot
when they change, budgets are read when a pod is about to preempt others. Changes that may help waiting pods are told
on. Called by the scheduler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from api.models import apps_v1, core_v1, policy_v1, storage_v1
from client.informer import EventHandler, Informer, Informers
from machinery.selectors import LabelSelector
from scheduler.framework.events import Action, ClusterEvent, EventResource
from scheduler.framework.pod_terms import selector_of
from scheduler.framework.preemption import Budget
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.framework.workloads import REPLICATION_CONTROLLER


def _key(obj: Any) -> tuple[str, str]:
    metadata = obj.metadata
    return (metadata.namespace or "", metadata.name or "") if metadata is not None else ("", "")


def _name(obj: Any) -> str:
    return _key(obj)[1]


def budget_of(budget: policy_v1.PodDisruptionBudget) -> Budget:
    spec, status = budget.spec, budget.status
    return Budget(
        _key(budget)[0],
        selector_of(spec.selector if spec is not None else None),
        (status.disruptionsAllowed if status is not None else 0) or 0,
        frozenset((status.disruptedPods if status is not None else None) or ()),
    )


class Relations:
    """Feeds a snapshot. `tell` hears of events once the snapshot knows of them."""

    def __init__(self, informers: Informers, snapshot: ClusterSnapshot, tell: Callable[[ClusterEvent], None]) -> None:
        self._snapshot = snapshot
        self._tell = tell
        self._budgets = informers.informer(policy_v1.PodDisruptionBudget)
        self._informers: list[Informer[Any]] = [
            self._told(informers, core_v1.Namespace, EventResource.NAMESPACE, self._namespace),
            self._fed(informers, core_v1.Service, self._service),
            self._fed(informers, core_v1.ReplicationController, self._replication_controller),
            self._fed(informers, apps_v1.ReplicaSet, lambda obj, gone: self._workload("ReplicaSet", obj, gone)),
            self._fed(informers, apps_v1.StatefulSet, lambda obj, gone: self._workload("StatefulSet", obj, gone)),
            *self._storage(informers),
        ]

    def _storage(self, informers: Informers) -> Iterable[Informer[Any]]:
        catalog = self._snapshot.volumes

        def kept(place: dict[Any, Any], key: Callable[[Any], Any]) -> Callable[[Any, bool], None]:
            def take(obj: Any, gone: bool) -> None:
                if gone:
                    place.pop(key(obj), None)
                else:
                    place[key(obj)] = obj
                catalog.changed()

            return take

        def claim(obj: Any, gone: bool) -> None:
            catalog.set_claim(_key(obj), None if gone else obj)

        def volume(obj: Any, gone: bool) -> None:
            catalog.set_volume(_name(obj), None if gone else obj)

        kinds: tuple[tuple[Any, EventResource, Callable[[Any, bool], None]], ...] = (
            (core_v1.PersistentVolumeClaim, EventResource.CLAIM, claim),
            (core_v1.PersistentVolume, EventResource.VOLUME, volume),
            (storage_v1.StorageClass, EventResource.STORAGE_CLASS, kept(catalog.classes, _name)),
            (storage_v1.CSINode, EventResource.CSI_NODE, kept(catalog.csi_nodes, _name)),
            (storage_v1.CSIDriver, EventResource.CSI_DRIVER, kept(catalog.csi_drivers, _name)),
            (storage_v1.CSIStorageCapacity, EventResource.CSI_CAPACITY, kept(catalog.capacities, _key)),
            (storage_v1.VolumeAttachment, EventResource.ATTACHMENT, kept(catalog.attachments, _name)),
        )
        return [self._told(informers, kind, resource, take) for kind, resource, take in kinds]

    def _told(
        self, informers: Informers, kind: Any, resource: EventResource, take: Callable[[Any, bool], None]
    ) -> Informer[Any]:
        """Feed, then let waiting pods know."""

        def added(obj: Any) -> None:
            take(obj, False)
            self._tell(ClusterEvent(resource, Action.ADD, None, obj))

        def updated(old: Any, new: Any) -> None:
            take(new, False)
            self._tell(ClusterEvent(resource, Action.UPDATE, old, new))

        def deleted(obj: Any) -> None:
            take(obj, True)
            self._tell(ClusterEvent(resource, Action.DELETE, obj, None))

        informer: Informer[Any] = informers.informer(kind)
        informer.add_handler(EventHandler(added, updated, deleted))
        return informer

    @staticmethod
    def _fed(informers: Informers, kind: Any, take: Callable[[Any, bool], None]) -> Informer[Any]:
        informer: Informer[Any] = informers.informer(kind)
        informer.add_handler(
            EventHandler(lambda obj: take(obj, False), lambda old, new: take(new, False), lambda obj: take(obj, True))
        )
        return informer

    def informers(self) -> Iterable[Informer[Any]]:
        """Those that must be complete before the first decision."""
        return (*self._informers, self._budgets)

    def budgets(self) -> Sequence[Budget]:
        return [budget_of(each) for each in self._budgets.lister.list()]

    def _namespace(self, obj: core_v1.Namespace, gone: bool) -> None:
        labels = (obj.metadata.labels if obj.metadata is not None else None) or {}
        self._snapshot.set_namespace(_key(obj)[1], None if gone else labels)

    def _service(self, obj: core_v1.Service, gone: bool) -> None:
        selector = None if gone or obj.spec is None else obj.spec.selector
        if self._snapshot.workloads.set_service(*_key(obj), selector):
            self._snapshot.workloads_changed()

    def _replication_controller(self, obj: core_v1.ReplicationController, gone: bool) -> None:
        labels = (obj.spec.selector if obj.spec is not None else None) or {}
        self._owner(REPLICATION_CONTROLLER, obj, None if gone else LabelSelector.from_labels(labels))

    def _workload(self, kind: str, obj: apps_v1.ReplicaSet | apps_v1.StatefulSet, gone: bool) -> None:
        self._owner(kind, obj, None if gone else selector_of(obj.spec.selector if obj.spec is not None else None))

    def _owner(self, kind: str, obj: Any, selector: LabelSelector | None) -> None:
        if self._snapshot.workloads.set_owner((kind, *_key(obj)), selector):
            self._snapshot.workloads_changed()
