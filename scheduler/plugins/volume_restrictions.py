"""VolumeRestrictions: a claim for one pod only has one user, and in-tree disks are not attached twice to a node."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from api import volumes as rules
from api.volumes import Claim
from scheduler.framework.columns import BoolArray, IntArray
from scheduler.framework.events import Action, EventResource, Registration
from scheduler.framework.interface import PreFilterResult, Reads, Refusal
from scheduler.framework.pod_info import Disk, PodInfo
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.framework.volume_catalog import Key

ONE_POD = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
DISK = "node(s) had no available disk"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the pod must have for itself."""

    claims: tuple[Key, ...]
    disks: tuple[Disk, ...]


def clash(one: Disk, other: Disk) -> bool:
    """Whether both are the same disk, and not only read."""
    return one[0] == other[0] and bool(one[1] & other[1]) and not (one[2] and other[2])


class VolumeRestrictions:
    """Filter."""

    name = "VolumeRestrictions"
    reads = Reads.CLUSTER

    def registrations(self) -> Sequence[Registration]:
        return (
            Registration(EventResource.ASSIGNED_POD, Action.DELETE, self._after_pod_deletion),
            Registration(EventResource.NODE, Action.ADD),
            Registration(EventResource.CLAIM, Action.ADD | Action.UPDATE, self._after_claim),
        )

    @staticmethod
    def _after_pod_deletion(pod: PodInfo, old: PodInfo | None, new: object) -> bool:
        if old is None:
            return True
        shared = old.namespace == pod.namespace and not set(old.claims).isdisjoint(pod.claims)
        return shared or any(clash(one, other) for one in pod.disks for other in old.disks)

    @staticmethod
    def _after_claim(pod: PodInfo, old: Claim | None, new: Claim) -> bool:
        meta = new.metadata
        return meta is not None and meta.namespace == pod.namespace and (meta.name or "") in pod.claims

    def sign(self, pod: PodInfo) -> Any:
        return [(kind, sorted(names), read_only) for kind, names, read_only in pod.disks] or None

    def pre_filter(self, pod: PodInfo, snapshot: ClusterSnapshot) -> PreFilterResult | None:
        alone = []
        for name in pod.claims:
            claim = snapshot.volumes.claim((pod.namespace, name))
            if claim is None:
                return PreFilterResult(rejection=f'persistentvolumeclaim "{name}" not found')
            if claim.spec is not None and rules.ONE_POD in (claim.spec.accessModes or ()):
                alone.append((pod.namespace, name))
        return PreFilterResult(Wanted(tuple(alone), pod.disks)) if alone or pod.disks else None

    def filter(self, state: Wanted, snapshot: ClusterSnapshot) -> BoolArray:
        mask = np.full(snapshot.width, not self._in_use(state, snapshot))
        if state.disks:
            for record in snapshot.records:
                if record is not None and self._has_disk(state, record.with_volumes.values()):
                    mask[record.column] = False
        return mask

    def filter_at(self, state: Wanted, snapshot: ClusterSnapshot, column: int) -> bool:
        record = snapshot.records[column]
        taken = record is not None and self._has_disk(state, record.with_volumes.values())
        return not taken and not self._in_use(state, snapshot)

    @staticmethod
    def _in_use(state: Wanted, snapshot: ClusterSnapshot) -> bool:
        return any(key in snapshot.claim_users for key in state.claims)

    @staticmethod
    def _has_disk(state: Wanted, pods: Iterable[PodInfo]) -> bool:
        return any(clash(one, other) for one in state.disks for pod in pods for other in pod.disks)

    def refusals(self, state: Wanted, snapshot: ClusterSnapshot, columns: IntArray) -> Iterable[Refusal]:
        disk: list[int] = []
        for column in columns:
            record = snapshot.records[int(column)]
            if record is not None and self._has_disk(state, record.with_volumes.values()):
                disk.append(int(column))
        if disk:
            yield Refusal(np.array(disk), (DISK,))
        others = np.setdiff1d(columns, disk)
        if len(others):
            yield Refusal(others, (ONE_POD,))
