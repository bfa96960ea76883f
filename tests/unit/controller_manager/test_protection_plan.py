from __future__ import annotations

from typing import Any

import pytest

from api.models import core_v1, meta_v1
from controller_manager.protection import plan
from tests.unit.controller_manager.builders import at

OTHER = "example.com/other"


def claim(name: str = "data", *, owner: str = "", **spec: Any) -> core_v1.PersistentVolumeClaim:
    reference = meta_v1.OwnerReference(apiVersion="v1", kind="Pod", name="p", uid=owner, controller=True)
    meta = meta_v1.ObjectMeta(name=name, namespace="default", ownerReferences=[reference] if owner else None)
    return core_v1.PersistentVolumeClaim(metadata=meta, spec=core_v1.PersistentVolumeClaimSpec(**spec))


def pod(node: str = "n1", *, grace: int | None = None, **volume: Any) -> core_v1.Pod:
    deleted = None if grace is None else at(0)
    meta = meta_v1.ObjectMeta(
        name="p", namespace="default", uid="uid-p", deletionTimestamp=deleted, deletionGracePeriodSeconds=grace
    )
    volumes = [core_v1.Volume(name="scratch", **volume)]
    return core_v1.Pod(metadata=meta, spec=core_v1.PodSpec(containers=[], nodeName=node, volumes=volumes))


CLAIM: dict[str, Any] = {"persistentVolumeClaim": core_v1.PersistentVolumeClaimVolumeSource(claimName="data")}
EPHEMERAL: dict[str, Any] = {"ephemeral": core_v1.EphemeralVolumeSource()}


@pytest.mark.parametrize(
    ("user", "used", "expected"),
    [
        pytest.param(pod(**CLAIM), claim(), True, id="mounted"),
        pytest.param(pod("", **CLAIM), claim(), False, id="a pod without a node"),
        pytest.param(pod(**CLAIM), claim("other"), False, id="another claim"),
        pytest.param(pod(grace=0, **CLAIM), claim(), True, id="a terminated pod still holds a claim of its own right"),
        pytest.param(pod(**EPHEMERAL), claim("p-scratch", owner="uid-p"), True, id="ephemeral"),
        pytest.param(pod(**EPHEMERAL), claim("p-scratch"), False, id="same name, not made for the pod"),
        pytest.param(pod(grace=0, **EPHEMERAL), claim("p-scratch", owner="uid-p"), False, id="ephemeral, shut down"),
        pytest.param(pod(grace=30, **EPHEMERAL), claim("p-scratch", owner="uid-p"), True, id="ephemeral, terminating"),
        pytest.param(pod(emptyDir=core_v1.EmptyDirVolumeSource()), claim(), False, id="no claim at all"),
    ],
)
def test_who_uses_a_claim(user: core_v1.Pod, used: core_v1.PersistentVolumeClaim, expected: bool) -> None:
    assert plan.pod_uses_claim(user, used) is expected
    assert plan.claim_is_used(used, [user]) is expected


@pytest.mark.parametrize(
    ("finalizers", "deleted", "used", "expected"),
    [
        pytest.param([], False, False, [plan.CLAIM_FINALIZER], id="added to what was made without it"),
        pytest.param([OTHER], False, True, [OTHER, plan.CLAIM_FINALIZER], id="added behind others"),
        pytest.param([plan.CLAIM_FINALIZER], False, False, None, id="right"),
        pytest.param([plan.CLAIM_FINALIZER, OTHER], True, False, [OTHER], id="taken away"),
        pytest.param([plan.CLAIM_FINALIZER], True, True, None, id="kept while used"),
        pytest.param([OTHER], True, False, None, id="not ours to add to what goes"),
    ],
)
def test_finalizers(finalizers: list[str], deleted: bool, used: bool, expected: list[str] | None) -> None:
    found = claim()
    assert found.metadata is not None
    found.metadata.finalizers = finalizers or None
    found.metadata.deletionTimestamp = at(0) if deleted else None
    assert plan.plan_finalizers(found, plan.CLAIM_FINALIZER, lambda: used) == expected


@pytest.mark.parametrize("phase", ["Available", "Bound", "Released", "Pending", None])
def test_a_bound_volume_is_used(phase: str | None) -> None:
    status = core_v1.PersistentVolumeStatus(phase=phase) if phase else None
    assert plan.volume_is_used(core_v1.PersistentVolume(status=status)) is (phase == "Bound")


def test_classes_of_a_claim_and_a_volume() -> None:
    wanted = claim(volumeAttributesClassName="gold")
    wanted.status = core_v1.PersistentVolumeClaimStatus(
        currentVolumeAttributesClassName="silver",
        modifyVolumeStatus=core_v1.ModifyVolumeStatus(status="InProgress", targetVolumeAttributesClassName="platinum"),
    )
    assert plan.classes_of_claim(wanted) == {"gold", "silver", "platinum"}
    assert plan.classes_of_claim(claim()) == set()
    volume = core_v1.PersistentVolume(spec=core_v1.PersistentVolumeSpec(volumeAttributesClassName="gold"))
    assert plan.classes_of_volume(volume) == {"gold"}
    assert plan.classes_of_volume(core_v1.PersistentVolume()) == set()
