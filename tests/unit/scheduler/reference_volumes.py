"""The slow reference of the volume plugins: one pod, one node, one claim after the other, from the documented rules.

Shares nothing with the scheduler but the API types and quantity parsing.
"""
# mypy: disable-error-code="union-attr, operator, arg-type"

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from api.models import core_v1, storage_v1
from machinery import quantity

Claim = core_v1.PersistentVolumeClaim
Volume = core_v1.PersistentVolume
SELECTED = "volume.kubernetes.io/selected-node"
COMPLETED = "pv.kubernetes.io/bind-completed"
ZONE = "topology.kubernetes.io/zone"

NODE_CONFLICT = "node(s) didn't match PersistentVolume's node affinity"
BIND_CONFLICT = "node(s) didn't find available persistent volumes to bind"
MISSING = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
SPACE = "node(s) did not have enough free storage"
LIMIT = "node(s) exceed max volume count"
ALONE = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
NO_ZONE = "node(s) had no available volume zone"


@dataclass
class Storage:
    """The storage objects of a cluster, by name; everything lies in namespace `default`."""

    claims: dict[str, Claim] = field(default_factory=dict)
    volumes: dict[str, Volume] = field(default_factory=dict)
    classes: dict[str, storage_v1.StorageClass] = field(default_factory=dict)
    limits: dict[str, dict[str, int]] = field(default_factory=dict)  # by node and driver
    capacities: list[storage_v1.CSIStorageCapacity] = field(default_factory=list)
    tracked: set[str] = field(default_factory=set)  # drivers that publish capacities


def names(pod: core_v1.Pod) -> list[str]:
    return [each.persistentVolumeClaim.claimName for each in pod.spec.volumes or () if each.persistentVolumeClaim]


def amount(claim: Claim) -> int:
    return quantity.value(claim.spec.resources.requests["storage"])  # type: ignore[index]


def size(volume: Volume) -> int:
    return quantity.value(volume.spec.capacity["storage"])  # type: ignore[index]


def class_name(obj: Claim | Volume) -> str:
    return obj.spec.storageClassName or ""


def reaches(volume: Volume, labels: Mapping[str, str]) -> bool:
    if volume.spec.nodeAffinity is None:
        return True
    for term in volume.spec.nodeAffinity.required.nodeSelectorTerms:
        if all(labels.get(each.key) in each.values for each in term.matchExpressions):  # only In is generated
            return True
    return False


def bound(claim: Claim) -> bool:
    return bool(claim.spec.volumeName) and COMPLETED in (claim.metadata.annotations or {})


class PodOnNodes:
    """The volumes of one pod."""

    def __init__(self, pod: core_v1.Pod, storage: Storage, others: Iterable[core_v1.Pod]) -> None:
        self.pod = pod
        self.storage = storage
        self.others = list(others)

    def rejection(self) -> str:
        """Why no node is even looked at."""
        waiting: list[str] = []
        for name in names(self.pod):
            claim = self.storage.claims.get(name)
            if claim is None:
                return f'persistentvolumeclaim "{name}" not found'
            if not bound(claim):
                found = self.storage.classes.get(class_name(claim))
                delayed = found is not None and found.volumeBindingMode == "WaitForFirstConsumer"
                if claim.spec.volumeName or not delayed:
                    waiting.append(name)
        if waiting:
            return "pod has unbound immediate PersistentVolumeClaims"
        for name in names(self.pod):
            volume = self.storage.claims[name].spec.volumeName
            if volume and volume not in self.storage.volumes:
                return f'persistentvolume "{volume}" not found'
        return ""

    def refusal(self, node: core_v1.Node) -> tuple[list[str], bool]:
        """(reasons of the first plugin that refuses, whether removing pods could help)."""
        if self._alone_elsewhere():
            return [ALONE], True
        if self._too_many(node):
            return [LIMIT], True
        reasons = self.binding(node)[0]
        if reasons:
            return reasons, False
        return ([NO_ZONE], False) if self._wrong_zone(node) else ([], False)

    def _alone_elsewhere(self) -> bool:
        alone = {name for name in names(self.pod) if "ReadWriteOncePod" in self.storage.claims[name].spec.accessModes}
        return any(alone & set(names(other)) for other in self.others)

    def _handle(self, name: str) -> tuple[str, str] | None:
        claim = self.storage.claims.get(name)
        if claim is None:
            return None
        volume = self.storage.volumes.get(claim.spec.volumeName or "")
        if volume is not None:
            return (volume.spec.csi.driver, volume.spec.csi.volumeHandle) if volume.spec.csi else None
        found = self.storage.classes.get(class_name(claim))
        return (found.provisioner, f"new/{name}") if found is not None else None

    def _too_many(self, node: core_v1.Node) -> bool:
        limits = self.storage.limits.get(node.metadata.name or "", {})
        here = [other for other in self.others if other.spec.nodeName == node.metadata.name]
        used = {found for other in here for name in names(other) if (found := self._handle(name))}
        fresh = {found for name in names(self.pod) if (found := self._handle(name))} - used
        for driver, most in limits.items():
            coming = [each for each in fresh if each[0] == driver]
            if coming and len(coming) + sum(each[0] == driver for each in used) > most:
                return True
        return False

    def binding(self, node: core_v1.Node) -> tuple[list[str], dict[str, str], list[str]]:
        """(reasons, volume by claim, claims to be provisioned)."""
        labels = node.metadata.labels or {}
        claims = [self.storage.claims[name] for name in names(self.pod)]
        reasons: list[str] = []
        for claim in claims:
            if bound(claim):
                volume = self.storage.volumes.get(claim.spec.volumeName or "")
                if volume is None:
                    reasons.append(MISSING)
                    break
                if not reaches(volume, labels):
                    reasons.append(NODE_CONFLICT)
                    break
        to_make: list[Claim] = []
        to_match: list[Claim] = []
        for claim in claims:
            if bound(claim):
                continue
            selected = (claim.metadata.annotations or {}).get(SELECTED)
            if selected is None:
                to_match.append(claim)
            elif selected == node.metadata.name:
                to_make.append(claim)
            else:
                return sorted_reasons([*reasons, BIND_CONFLICT]), {}, []
        chosen: dict[str, str] = {}
        for claim in sorted(to_match, key=amount):
            volume = self._smallest(claim, labels, set(chosen.values()))
            if volume is None:
                to_make.append(claim)
            else:
                chosen[claim.metadata.name or ""] = volume.metadata.name or ""
        for claim in to_make:
            found = self.storage.classes[class_name(claim)]
            if found.provisioner == "kubernetes.io/no-provisioner" or not _allowed(found, labels):
                reasons.append(BIND_CONFLICT)
                break
            if not self._room(claim, found, labels):
                reasons.append(SPACE)
                break
        return sorted_reasons(reasons), chosen, [claim.metadata.name or "" for claim in to_make]

    def _smallest(self, claim: Claim, labels: Mapping[str, str], taken: set[str]) -> Volume | None:
        best: Volume | None = None
        for name in sorted(self.storage.volumes):
            volume = self.storage.volumes[name]
            if name in taken or class_name(volume) != class_name(claim) or size(volume) < amount(claim):
                continue
            ref = volume.spec.claimRef
            if ref is not None:
                if ref.name == claim.metadata.name:  # whoever set it aside has not looked at access modes
                    return volume if reaches(volume, labels) else None
                continue
            if volume.status.phase != "Available" or not reaches(volume, labels):
                continue
            if not set(claim.spec.accessModes) <= set(volume.spec.accessModes):
                continue
            if best is None or size(volume) < size(best):
                best = volume
        return best

    def _room(self, claim: Claim, found: storage_v1.StorageClass, labels: Mapping[str, str]) -> bool:
        if found.provisioner not in self.storage.tracked:
            return True
        for each in self.storage.capacities:
            wanted = each.nodeTopology.matchLabels or {}
            here = all(labels.get(key) == value for key, value in wanted.items())
            if each.storageClassName == found.metadata.name and here and quantity.value(each.capacity) >= amount(claim):
                return True
        return False

    def _wrong_zone(self, node: core_v1.Node) -> bool:
        zone = (node.metadata.labels or {}).get(ZONE)
        for name in names(self.pod):
            volume = self.storage.volumes.get(self.storage.claims[name].spec.volumeName or "")
            demanded = (volume.metadata.labels or {}).get(ZONE) if volume is not None else None
            if demanded is not None and zone is not None and zone not in demanded.split("__"):
                return True
        return False


def _allowed(found: storage_v1.StorageClass, labels: Mapping[str, str]) -> bool:
    if not found.allowedTopologies:
        return True
    return any(
        all(labels.get(each.key) in each.values for each in term.matchLabelExpressions or ())
        for term in found.allowedTopologies
    )


def sorted_reasons(reasons: Iterable[str]) -> list[str]:
    order = [NODE_CONFLICT, BIND_CONFLICT, SPACE, MISSING]
    return sorted(set(reasons), key=order.index)
