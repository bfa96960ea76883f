"""NodeVolumeLimits: a CSI driver takes only so many volumes on a node (CSINode allocatable)."""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from api import volumes as rules
from api.models import storage_v1
from api.volumes import Claim
from scheduler.framework.columns import BoolArray, IntArray
from scheduler.framework.events import Action, EventResource, Registration
from scheduler.framework.interface import PreFilterResult, Reads, Refusal
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot, NodeRecord
from scheduler.framework.volume_catalog import VolumeCatalog

REASON = "node(s) exceed max volume count"
Attachable = tuple[str, str]  # (driver, what is unique about the volume)


def attachable(pod: PodInfo, name: str, catalog: VolumeCatalog) -> Attachable | None:
    """The CSI volume that a claim of the pod is, or will be; None for storage of other kinds."""
    claim = catalog.claim((pod.namespace, name))
    if claim is None:
        return None
    volume = catalog.volume(claim.spec.volumeName) if claim.spec.volumeName else None
    if volume is not None:
        source = volume.spec.csi
        return (source.driver, source.volumeHandle) if source is not None else None
    storage_class = catalog.classes.get(rules.class_of(claim))
    if storage_class is None:
        return None
    return storage_class.provisioner, f"{storage_class.provisioner}-{pod.namespace}/{name}"


class NodeVolumeLimits:
    """Filter."""

    name = "NodeVolumeLimits"
    reads = Reads.PODS_OF_NODE

    def registrations(self) -> Sequence[Registration]:
        changes = Action.ADD | Action.UPDATE
        return (
            Registration(EventResource.CSI_NODE, changes, self._after_csi_node),
            Registration(EventResource.ASSIGNED_POD, Action.DELETE, self._after_pod_deletion),
            Registration(EventResource.CLAIM, changes, self._after_claim),
            Registration(EventResource.VOLUME, changes),
            Registration(EventResource.ATTACHMENT, Action.DELETE),
        )

    @staticmethod
    def _after_csi_node(pod: PodInfo, old: storage_v1.CSINode | None, new: storage_v1.CSINode) -> bool:
        if old is None:
            return True

        def counts(node: storage_v1.CSINode) -> dict[str, int]:
            return {
                each.name: each.allocatable.count if each.allocatable and each.allocatable.count is not None else 2**31
                for each in node.spec.drivers
            }

        before, after = counts(old), counts(new)
        return any(after.get(name, 2**31) > count for name, count in before.items())

    @staticmethod
    def _after_pod_deletion(pod: PodInfo, old: PodInfo | None, new: object) -> bool:
        return old is None or bool(old.claims)

    @staticmethod
    def _after_claim(pod: PodInfo, old: Claim | None, new: Claim) -> bool:
        return new.metadata.namespace == pod.namespace and (new.metadata.name or "") in pod.claims

    def sign(self, pod: PodInfo) -> Any:
        return None  # claims are in the signature already

    def pre_filter(self, pod: PodInfo, snapshot: ClusterSnapshot) -> PreFilterResult | None:
        if not pod.claims or not snapshot.volumes.csi_nodes:
            return None
        found = (attachable(pod, name, snapshot.volumes) for name in pod.claims)
        wanted = frozenset(each for each in found if each is not None)
        return PreFilterResult(wanted) if wanted else None

    def filter(self, state: frozenset[Attachable], snapshot: ClusterSnapshot) -> BoolArray:
        mask = np.ones(snapshot.width, dtype=np.bool_)
        for name in snapshot.volumes.csi_nodes:
            record = snapshot.record(name)
            if record is not None:
                mask[record.column] = self._fits(state, snapshot, record)
        return mask

    def filter_at(self, state: frozenset[Attachable], snapshot: ClusterSnapshot, column: int) -> bool:
        record = snapshot.records[column]
        return record is not None and self._fits(state, snapshot, record)

    @staticmethod
    def _fits(state: frozenset[Attachable], snapshot: ClusterSnapshot, record: NodeRecord) -> bool:
        catalog = snapshot.volumes
        limits = catalog.csi_limits(record.name)
        drivers = {driver for driver, _ in state}
        if drivers.isdisjoint(limits):
            return True
        used = {
            found
            for pod in record.with_volumes.values()
            for name in pod.claims
            if (found := attachable(pod, name, catalog)) is not None and found[0] in drivers
        }
        used |= set(_attached(record.name, drivers, catalog))
        together = used | state
        return all(
            sum(each[0] == driver for each in together) <= limits[driver]
            for driver in drivers
            if driver in limits and any(each[0] == driver and each not in used for each in state)
        )

    def refusals(self, state: Any, snapshot: ClusterSnapshot, columns: IntArray) -> Iterable[Refusal]:
        yield Refusal(columns, (REASON,))


def _attached(node: str, drivers: set[str], catalog: VolumeCatalog) -> Iterable[Attachable]:
    """What is attached to the node, whether or not a pod there uses it (still)."""
    for each in catalog.attachments.values():
        if each.spec.nodeName != node or each.spec.attacher not in drivers:
            continue
        volume = catalog.volume(each.spec.source.persistentVolumeName or "")
        if volume is not None and volume.spec.csi is not None:
            yield volume.spec.csi.driver, volume.spec.csi.volumeHandle
