"""What uses a claim, a volume or a class, and what that means for the protection finalizer.

Pure functions on typed objects. The rules are those of upstream's protection controllers. Called by the controller.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from api.models import core_v1
from controller_manager.objects import controller_of

CLAIM_FINALIZER: Final = "kubernetes.io/pvc-protection"
VOLUME_FINALIZER: Final = "kubernetes.io/pv-protection"
CLASS_FINALIZER: Final = "kubernetes.io/vac-protection"


def plan_finalizers(obj: Any, finalizer: str, is_used: Callable[[], bool]) -> list[str] | None:
    """The finalizers that the object shall have; None if they are right. `is_used` is asked only if it matters."""
    present = list(obj.metadata.finalizers or ())
    if obj.metadata.deletionTimestamp is None:
        return None if finalizer in present else [*present, finalizer]
    if finalizer not in present or is_used():
        return None
    return [name for name in present if name != finalizer]


def claim_names(pod: core_v1.Pod) -> Iterable[str]:
    """Names of the claims that the pod's volumes mean, those of generic ephemeral volumes included."""
    for volume in (pod.spec.volumes or ()) if pod.spec is not None else ():
        if volume.persistentVolumeClaim is not None:
            yield volume.persistentVolumeClaim.claimName
        elif volume.ephemeral is not None:
            yield f"{pod.metadata.name}-{volume.name}"


def pod_uses_claim(pod: core_v1.Pod, claim: core_v1.PersistentVolumeClaim) -> bool:
    """Whether the pod may be using the claim's volume.

    A pod without a node does not count: no kubelet starts a pod whose claim is being deleted. A pod that a kubelet is
    done with does not hold the claim of its own ephemeral volume, which waits for the pod in turn.
    """
    if pod.spec is None or not pod.spec.nodeName:
        return False
    name = claim.metadata.name
    for volume in pod.spec.volumes or ():
        if volume.persistentVolumeClaim is not None:
            if volume.persistentVolumeClaim.claimName == name:
                return True
        elif volume.ephemeral is not None and f"{pod.metadata.name}-{volume.name}" == name:
            owner = controller_of(claim)
            if owner is not None and owner.uid == pod.metadata.uid and not _is_shut_down(pod):
                return True
    return False


def _is_shut_down(pod: core_v1.Pod) -> bool:
    return pod.metadata.deletionTimestamp is not None and pod.metadata.deletionGracePeriodSeconds == 0


def claim_is_used(claim: core_v1.PersistentVolumeClaim, pods: Sequence[core_v1.Pod]) -> bool:
    return any(pod_uses_claim(pod, claim) for pod in pods)


def volume_is_used(volume: core_v1.PersistentVolume) -> bool:
    """A bound volume belongs to its claim."""
    return volume.status is not None and volume.status.phase == "Bound"


def classes_of_claim(claim: core_v1.PersistentVolumeClaim) -> set[str]:
    """Names of the attribute classes that the claim wants, has, or is on the way to."""
    names = {claim.spec.volumeAttributesClassName if claim.spec is not None else None}
    if claim.status is not None:
        names.add(claim.status.currentVolumeAttributesClassName)
        if claim.status.modifyVolumeStatus is not None:
            names.add(claim.status.modifyVolumeStatus.targetVolumeAttributesClassName)
    return {name for name in names if name}


def classes_of_volume(volume: core_v1.PersistentVolume) -> set[str]:
    """The name of the attribute class that the volume has, if any."""
    name = volume.spec.volumeAttributesClassName if volume.spec is not None else None
    return {name} if name else set()
