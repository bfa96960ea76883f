"""VolumeZone: volumes that carry labels of a zone or region are used there only."""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from api import volumes as rules
from api.models import core_v1, storage_v1
from api.volumes import Claim, Volume
from scheduler.framework import node_facts
from scheduler.framework.columns import BoolArray, IntArray
from scheduler.framework.events import Action, EventResource, Registration
from scheduler.framework.interface import PreFilterResult, Reads, Refusal
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot

REASON = "node(s) had no available volume zone"
_BETA: Final = {
    "topology.kubernetes.io/zone": "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/region": "failure-domain.beta.kubernetes.io/region",
}
_GA: Final = {beta: ga for ga, beta in _BETA.items()}
LABELS: Final = (*_BETA, *_GA)
Constraint = tuple[str, frozenset[str]]  # (label, values)


def constraints_of(volume: Volume) -> list[Constraint]:
    """What the volume's labels demand; several zones are joined by `__`."""
    labels = volume.metadata.labels or {}
    return [(key, frozenset(labels[key].split("__"))) for key in LABELS if key in labels]


def allowed(constraints: Iterable[Constraint], labels: Mapping[str, str]) -> bool:
    """A node without any such label is in a cluster of one zone, and may have everything."""
    if not any(key in labels for key in LABELS):
        return True
    for key, values in constraints:
        other = _GA.get(key) or _BETA.get(key) or ""
        if labels.get(key, labels.get(other)) not in values:
            return False
    return True


class VolumeZone:
    """Filter."""

    name = "VolumeZone"
    reads = Reads.NODE

    def registrations(self) -> Sequence[Registration]:
        return (
            Registration(EventResource.STORAGE_CLASS, Action.ADD),
            Registration(EventResource.NODE, Action.ADD | Action.UPDATE_NODE_LABEL, self._after_node),
            Registration(EventResource.CLAIM, Action.ADD | Action.UPDATE, self._after_claim),
            Registration(EventResource.VOLUME, Action.ADD | Action.UPDATE, self._after_volume),
        )

    @staticmethod
    def _after_node(pod: PodInfo, old: core_v1.Node | None, new: core_v1.Node) -> bool:
        after = node_facts.labels(new)
        before = node_facts.labels(old) if old is not None else None
        return before is None or any(before.get(key) != after.get(key) for key in LABELS)

    @staticmethod
    def _after_claim(pod: PodInfo, old: Claim | None, new: Claim) -> bool:
        return new.metadata.namespace == pod.namespace and (new.metadata.name or "") in pod.claims

    @staticmethod
    def _after_volume(pod: PodInfo, old: Volume | None, new: Volume) -> bool:
        return old is None or constraints_of(old) != constraints_of(new)

    def sign(self, pod: PodInfo) -> Any:
        return None  # claims are in the signature already

    def pre_filter(self, pod: PodInfo, snapshot: ClusterSnapshot) -> PreFilterResult | None:
        catalog = snapshot.volumes
        constraints: list[Constraint] = []
        for name in pod.claims:
            claim = catalog.claim((pod.namespace, name))
            if claim is None:
                return PreFilterResult(rejection=f'persistentvolumeclaim "{name}" not found')
            if not claim.spec.volumeName:
                rejection = self._unbound(claim, catalog.classes)
                if rejection:
                    return PreFilterResult(rejection=rejection)
                continue
            volume = catalog.volume(claim.spec.volumeName)
            if volume is None:
                return PreFilterResult(rejection=f'persistentvolume "{claim.spec.volumeName}" not found')
            constraints += constraints_of(volume)
        return PreFilterResult(constraints) if constraints else None

    @staticmethod
    def _unbound(claim: Claim, classes: Mapping[str, storage_v1.StorageClass]) -> str:
        name = rules.class_of(claim)
        if not name:
            return "PersistentVolumeClaim had no pv name and storageClass name"
        if name not in classes:
            return f'storageclass.storage.k8s.io "{name}" not found'
        return "" if rules.waits_for_consumer(claim, classes) else "PersistentVolume had no name"

    def filter(self, state: list[Constraint], snapshot: ClusterSnapshot) -> BoolArray:
        return np.array(
            [
                record is not None and allowed(state, node_facts.labels(record.node))
                for record in snapshot.records[: snapshot.width]
            ],
            dtype=np.bool_,
        )

    def filter_at(self, state: list[Constraint], snapshot: ClusterSnapshot, column: int) -> bool:
        record = snapshot.records[column]
        return record is not None and allowed(state, node_facts.labels(record.node))

    def refusals(self, state: Any, snapshot: ClusterSnapshot, columns: IntArray) -> Iterable[Refusal]:
        yield Refusal(columns, (REASON,), resolvable=False)
