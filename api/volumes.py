"""Which volume a claim may have: the rules that the volume controllers, the scheduler and the kubelet share.

Pure functions on typed objects. What the annotations mean is upstream's (k8s.io/component-helpers/storage/volume); the
binding of a claim is complete when the claim names its volume, the volume the claim, and the claim says so.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from api.models import core_v1, storage_v1
from api.node_selectors import requirement_matches
from machinery import quantity
from machinery.caching import keep_short
from machinery.selectors import LabelSelector

BIND_COMPLETED: Final = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER: Final = "pv.kubernetes.io/bound-by-controller"
PROVISIONED_BY: Final = "pv.kubernetes.io/provisioned-by"
PROVISIONER: Final = "volume.kubernetes.io/storage-provisioner"
BETA_PROVISIONER: Final = "volume.beta.kubernetes.io/storage-provisioner"
SELECTED_NODE: Final = "volume.kubernetes.io/selected-node"
BETA_CLASS: Final = "volume.beta.kubernetes.io/storage-class"
DEFAULT_CLASS_MARKS: Final = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
NO_PROVISIONER: Final = "kubernetes.io/no-provisioner"
WAIT_FOR_FIRST_CONSUMER: Final = "WaitForFirstConsumer"
ONE_POD: Final = "ReadWriteOncePod"
NODE_LOCAL: Final = "nanokube.io/node-local"
"""Our own provisioner: its volumes are folders that the kubelet of their node makes."""

Volume = core_v1.PersistentVolume
Claim = core_v1.PersistentVolumeClaim
StorageClass = storage_v1.StorageClass
Labels = Mapping[str, str]


def annotations_of(obj: Any) -> Mapping[str, str]:
    return obj.metadata.annotations or {}


def class_of(obj: Volume | Claim) -> str:
    """The storage class of a claim or volume; "" when it has none."""
    return annotations_of(obj).get(BETA_CLASS) or obj.spec.storageClassName or ""


def names_class(claim: Claim) -> bool:
    """Whether a claim says which class it wants, if only that it wants none."""
    return BETA_CLASS in annotations_of(claim) or claim.spec.storageClassName is not None


@keep_short(4096)
def size(text: Any) -> int:
    """Bytes, 0 for what is not a quantity."""
    try:
        return quantity.value(text)
    except ValueError:
        return 0


def requested(claim: Claim) -> int:
    """The bytes that a claim asks for."""
    resources = claim.spec.resources
    return size((resources.requests or {}).get("storage", "0")) if resources is not None else 0


def capacity(volume: Volume) -> int:
    """The bytes that a volume has."""
    return size((volume.spec.capacity or {}).get("storage", "0"))


def mode_of(obj: Volume | Claim) -> str:
    return obj.spec.volumeMode or "Filesystem"


def waits_for_consumer(claim: Claim, classes: Mapping[str, StorageClass]) -> bool:
    """Whether the claim is bound only when a pod that uses it is scheduled."""
    found = classes.get(class_of(claim))
    return found is not None and found.volumeBindingMode == WAIT_FOR_FIRST_CONSUMER


def is_fully_bound(claim: Claim) -> bool:
    return bool(claim.spec.volumeName) and BIND_COMPLETED in annotations_of(claim)


def is_bound_to(volume: Volume, claim: Claim) -> bool:
    """Whether the volume names the claim (by its uid, once it knows that)."""
    ref = volume.spec.claimRef
    if ref is None or (ref.namespace, ref.name) != (claim.metadata.namespace, claim.metadata.name):
        return False
    return not ref.uid or ref.uid == claim.metadata.uid


def default_class(classes: Iterable[StorageClass]) -> StorageClass | None:
    """The default class: of several the newest, then the first by name."""
    marked = [each for each in classes if any(annotations_of(each).get(mark) == "true" for mark in DEFAULT_CLASS_MARKS)]
    marked.sort(key=lambda each: each.metadata.name or "")
    marked.sort(key=lambda each: str(each.metadata.creationTimestamp or ""), reverse=True)
    return marked[0] if marked else None


def attributes_class_of(obj: Volume | Claim) -> str:
    return obj.spec.volumeAttributesClassName or ""


def mismatch(volume: Volume, claim: Claim) -> str:
    """Why a claim cannot have the volume it names; "" when it can."""
    if capacity(volume) < requested(claim):
        return "requested PV is too small"
    if class_of(volume) != class_of(claim):
        return "storageClassName does not match"
    if attributes_class_of(volume) != attributes_class_of(claim):
        return "volumeAttributesClassName does not match"
    if mode_of(volume) != mode_of(claim):
        return "incompatible volumeMode"
    if not has_modes(volume, claim):
        return "incompatible accessMode"
    return ""


def has_modes(volume: Volume, claim: Claim) -> bool:
    """Whether the volume offers every access mode that the claim wants."""
    return set(claim.spec.accessModes or ()) <= set(volume.spec.accessModes or ())


def reachable(volume: Volume, labels: Labels) -> bool:
    """Whether a node with these labels can use the volume."""
    affinity = volume.spec.nodeAffinity
    if affinity is None or affinity.required is None:
        return True
    return any(term_matches(term, labels) for term in affinity.required.nodeSelectorTerms or ())


def term_matches(term: core_v1.NodeSelectorTerm, labels: Labels) -> bool:
    """Volumes choose nodes by label only: a term that asks for fields holds nowhere, as an empty one does."""
    if not term.matchExpressions or term.matchFields:
        return False
    return all(requirement_matches(each, labels) for each in term.matchExpressions)


def topology_allows(storage_class: StorageClass, labels: Labels) -> bool:
    """Whether volumes of the class may be made for a node with these labels."""
    terms = storage_class.allowedTopologies
    if not terms:
        return True
    return any(
        term.matchLabelExpressions
        and all(labels.get(each.key) in (each.values or ()) for each in term.matchLabelExpressions)
        for term in terms
    )


def selector_matches(claim: Claim, volume: Volume) -> bool:
    if claim.spec.selector is None:
        return True
    try:
        return LabelSelector.from_object(claim.spec.selector).matches(volume.metadata.labels or {})
    except ValueError:
        return False


def is_candidate(volume: Volume, claim: Claim) -> bool:
    """Whether the volume is free and as the claim wants it, but for access modes and nodes."""
    return (
        volume.spec.claimRef is None
        and volume.metadata.deletionTimestamp is None
        and volume.status is not None
        and volume.status.phase == "Available"
        and class_of(volume) == class_of(claim)
        and attributes_class_of(volume) == attributes_class_of(claim)
        and mode_of(volume) == mode_of(claim)
        and capacity(volume) >= requested(claim)
        and selector_matches(claim, volume)
    )


def is_reserved(volume: Volume, claim: Claim) -> bool:
    """Whether somebody has set the volume aside for this claim, and it will do."""
    return (
        is_bound_to(volume, claim)
        and volume.metadata.deletionTimestamp is None
        and mode_of(volume) == mode_of(claim)
        and attributes_class_of(volume) == attributes_class_of(claim)
        and capacity(volume) >= requested(claim)
    )


def tightness(volume: Volume) -> tuple[int, int, str]:
    """Sorts the volume first that is best for a claim: fewest access modes to spare, then smallest."""
    return len(set(volume.spec.accessModes or ())), capacity(volume), volume.metadata.name or ""


def best_for_claim(claim: Claim, volumes: Iterable[Volume], *, delayed: bool) -> Volume | None:
    """The volume that the controller binds to a claim: one set aside for it, else the tightest that fits.

    `delayed`: the claim waits for its consumer, so that the scheduler chooses among free volumes.
    """
    fitting: list[Volume] = []
    for volume in volumes:
        if not has_modes(volume, claim):
            continue
        if is_reserved(volume, claim):
            return volume
        if not delayed and is_candidate(volume, claim):
            fitting.append(volume)
    return min(fitting, key=tightness, default=None)


def claim_name(pod_name: str, volume: core_v1.Volume) -> str:
    """The claim that a pod's volume means, "" for other kinds of volume. A generic ephemeral volume has its own."""
    if volume.persistentVolumeClaim is not None:
        return volume.persistentVolumeClaim.claimName
    return f"{pod_name}-{volume.name}" if volume.ephemeral is not None else ""


def claims_of(pod: core_v1.Pod) -> Sequence[str]:
    """The names of all claims that a pod uses, without repetition."""
    name = (pod.metadata.name if pod.metadata is not None else None) or ""
    volumes = (pod.spec.volumes if pod.spec is not None else None) or ()
    return tuple(dict.fromkeys(found for each in volumes if (found := claim_name(name, each))))


def is_for_pod(pod: core_v1.Pod, claim: Claim) -> bool:
    """Whether the claim of a generic ephemeral volume was made for this very pod."""
    return any(
        each.controller and each.kind == "Pod" and each.uid == pod.metadata.uid
        for each in claim.metadata.ownerReferences or ()
    )


def not_for_pod(pod: core_v1.Pod, claim: Claim) -> str:
    """What is said of a claim that has the name of an ephemeral volume's but is another's."""
    return (
        f"PVC {claim.metadata.namespace}/{claim.metadata.name} was not created for pod "
        f"{pod.metadata.namespace}/{pod.metadata.name} (pod is not owner)"
    )
