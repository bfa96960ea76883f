"""Static volumes and claims against a real API server: who gets what, and what everybody is told."""

from __future__ import annotations

from typing import Any

import pytest

from client.client import PatchType
from tests.integration.controller_manager import volumes as v
from tests.integration.controller_manager.hollow import Cluster, running_cluster

CONTROLLERS = ["persistentvolume-binder-controller"]
BOUND_BY = "pv.kubernetes.io/bound-by-controller"
COMPLETED = "pv.kubernetes.io/bind-completed"


def cluster() -> Any:
    return running_cluster(controllers=CONTROLLERS)


async def make(cluster: Cluster, *objects: v.Obj) -> None:
    for each in objects:
        await cluster.client.create(each)


async def test_a_claim_gets_the_smallest_volume_that_fits_and_both_say_so() -> None:
    async with cluster() as c:
        await make(
            c,
            v.volume("small", "500Mi"),
            v.volume("big", "5Gi"),
            v.volume("right", "2Gi"),
            v.volume("other-class", "1Gi", "fast"),
            v.volume("block", "1Gi", volumeMode="Block"),
            v.volume("shared", "1Gi", accessModes=["ReadWriteMany"]),
        )
        for name in ("small", "big", "right"):
            await v.volume_in(c, "Available", name)
        await make(c, v.claim())
        claim = await v.claim_in(c, "Bound")
        assert claim["spec"]["volumeName"] == "right"
        assert claim["status"]["capacity"] == {"storage": "2Gi"}
        assert claim["status"]["accessModes"] == ["ReadWriteOnce"]
        assert claim["metadata"]["annotations"] == {BOUND_BY: "yes", COMPLETED: "yes"}
        volume = await v.volume_in(c, "Bound", "right")
        assert volume["metadata"]["annotations"] == {BOUND_BY: "yes"}
        ref = volume["spec"]["claimRef"]
        assert {key: ref[key] for key in ("apiVersion", "kind", "namespace", "name", "uid")} == {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": "default",
            "name": "data",
            "uid": claim["metadata"]["uid"],
        }
        assert ref["resourceVersion"]


async def test_a_volume_that_comes_later_is_taken_and_each_goes_to_one_claim_only() -> None:
    async with cluster() as c:
        await make(c, *(v.claim(f"c{number}") for number in range(8)))
        assert await v.told(c, "PersistentVolumeClaim", "c0", "ProvisioningFailed") == (
            "Warning",
            'storageclass.storage.k8s.io "manual" not found',
        )
        await make(c, *(v.volume(f"v{number}") for number in range(8)))
        names = {(await v.claim_in(c, "Bound", f"c{number}"))["spec"]["volumeName"] for number in range(8)}
        assert names == {f"v{number}" for number in range(8)}


async def test_selectors_choose_by_label() -> None:
    async with cluster() as c:
        await make(c, v.volume("blue", labels={"tier": "blue"}), v.volume("green", labels={"tier": "green"}))
        await make(c, v.claim(selector={"matchLabels": {"tier": "green"}}))
        assert (await v.claim_in(c, "Bound"))["spec"]["volumeName"] == "green"


async def test_no_class_means_volumes_without_class_and_a_word_about_it() -> None:
    async with cluster() as c:
        await make(c, v.claim(class_=""))
        assert await v.told(c, "PersistentVolumeClaim", "data", "FailedBinding") == (
            "Normal",
            "no persistent volumes available for this claim and no storage class is set",
        )
        await make(c, v.volume("plain", class_=""))
        assert (await v.claim_in(c, "Bound"))["spec"]["volumeName"] == "plain"


async def test_a_claim_may_name_its_volume() -> None:
    async with cluster() as c:
        await make(c, v.volume("mine", "3Gi"), v.volume("tight", "1Gi"), v.claim(volumeName="mine"))
        claim = await v.claim_in(c, "Bound")
        assert claim["spec"]["volumeName"] == "mine"
        assert claim["metadata"]["annotations"] == {COMPLETED: "yes"}  # the user chose, not the controller
        await make(c, v.claim("late", volumeName="mine"))
        assert await v.told(c, "PersistentVolumeClaim", "late", "FailedBinding") == (
            "Warning",
            'volume "mine" already bound to a different claim.',
        )


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        pytest.param({"resources": {"requests": {"storage": "9Gi"}}}, "requested PV is too small", id="size"),
        pytest.param({"class_": "other"}, "storageClassName does not match", id="class"),
        pytest.param({"volumeMode": "Block"}, "incompatible volumeMode", id="mode"),
        pytest.param({"accessModes": ["ReadWriteMany"]}, "incompatible accessMode", id="access"),
    ],
)
async def test_a_named_volume_that_does_not_do_is_refused_with_the_reason(spec: dict[str, Any], why: str) -> None:
    async with cluster() as c:
        await make(c, v.volume("mine"), v.claim(volumeName="mine", **spec))
        assert await v.told(c, "PersistentVolumeClaim", "data", "VolumeMismatch") == (
            "Warning",
            f'Cannot bind to requested volume "mine": {why}',
        )
        assert (await v.the_claim(c))["status"]["phase"] == "Pending"


async def test_a_volume_may_name_its_claim_and_waits_for_it() -> None:
    async with cluster() as c:
        await make(c, v.volume("set-aside", "5Gi", claimRef={"namespace": "default", "name": "data"}))
        await make(c, v.volume("free"))
        await v.volume_in(c, "Available", "set-aside")
        await make(c, v.claim("other"), v.claim())
        assert (await v.claim_in(c, "Bound", "other"))["spec"]["volumeName"] == "free"
        assert (await v.claim_in(c, "Bound"))["spec"]["volumeName"] == "set-aside"
        volume = await v.volume_in(c, "Bound", "set-aside")
        assert BOUND_BY not in volume["metadata"].get("annotations", {})
        assert volume["spec"]["claimRef"]["uid"] == (await v.the_claim(c))["metadata"]["uid"]


async def test_a_new_phase_is_dated_by_the_server() -> None:
    async with cluster() as c:
        await make(c, v.volume("v"))
        await v.volume_in(c, "Available", "v")
        early = "2020-01-01T00:00:00Z"
        patch = {"status": {"lastPhaseTransitionTime": early}}
        kept = await c.client.patch(v.VOLUMES, "v", patch, subresource="status")
        assert kept["status"]["lastPhaseTransitionTime"] == early
        await make(c, v.claim())
        assert (await v.volume_in(c, "Bound", "v"))["status"]["lastPhaseTransitionTime"] > early


async def test_a_claim_that_loses_its_volume_is_lost() -> None:
    async with cluster() as c:
        await make(c, v.volume("only"), v.claim())
        await v.claim_in(c, "Bound")
        await c.client.delete(v.VOLUMES, "only")
        await c.client.patch(v.VOLUMES, "only", {"metadata": {"finalizers": None}}) if await _there(c) else None
        lost = await v.claim_in(c, "Lost")
        assert "capacity" not in lost["status"]
        assert await v.told(c, "PersistentVolumeClaim", "data", "ClaimLost") == (
            "Warning",
            "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
        )


async def _there(cluster: Cluster) -> bool:
    return any(each["metadata"]["name"] == "only" for each in (await cluster.client.list(v.VOLUMES)).items)


async def delete_claim(cluster: Cluster, name: str = "data") -> None:
    await cluster.client.delete(v.CLAIMS, name, v.NS)
    if any(each["metadata"]["name"] == name for each in (await cluster.client.list(v.CLAIMS, v.NS)).items):
        await cluster.client.patch(v.CLAIMS, name, {"metadata": {"finalizers": None}}, v.NS)


async def test_released_volumes_are_kept_until_somebody_frees_them() -> None:
    async with cluster() as c:
        await make(c, v.volume("kept"), v.claim())
        await v.claim_in(c, "Bound")
        await delete_claim(c)
        await v.volume_in(c, "Released", "kept")
        await make(c, v.claim())
        await v.told(c, "PersistentVolumeClaim", "data", "ProvisioningFailed")
        assert (await v.the_claim(c))["status"]["phase"] == "Pending"  # the data is another claim's
        await c.client.patch(v.VOLUMES, "kept", {"spec": {"claimRef": None}}, type=PatchType.MERGE)
        assert (await v.claim_in(c, "Bound"))["spec"]["volumeName"] == "kept"


@pytest.mark.parametrize(
    ("policy", "reason", "text"),
    [
        pytest.param(
            "Delete",
            "VolumeFailedDelete",
            'error getting deleter volume plugin for volume "gone": no deletable volume plugin matched',
            id="delete",
        ),
        pytest.param("Recycle", "VolumeFailedRecycle", "No recycler plugin found for the volume!", id="recycle"),
    ],
)
async def test_what_nobody_can_reclaim_fails_with_the_reason(policy: str, reason: str, text: str) -> None:
    async with cluster() as c:
        await make(c, v.volume("gone", persistentVolumeReclaimPolicy=policy), v.claim())
        await v.claim_in(c, "Bound")
        await delete_claim(c)
        failed = await v.volume_in(c, "Failed", "gone")
        assert failed["status"]["message"] == text
        assert await v.told(c, "PersistentVolume", "gone", reason) == ("Warning", text)


async def test_claims_without_a_class_get_the_default_one_when_it_comes() -> None:
    async with cluster() as c:
        await make(c, v.volume("cheap", class_="cheap"), v.claim(class_=None), v.claim("none", class_=""))
        await v.told(c, "PersistentVolumeClaim", "data", "FailedBinding")
        mark = {"storageclass.kubernetes.io/is-default-class": "true"}
        await make(c, v.storage_class("cheap", annotations=mark))
        claim = await v.claim_in(c, "Bound")
        assert (claim["spec"]["storageClassName"], claim["spec"]["volumeName"]) == ("cheap", "cheap")
        assert (await v.the_claim(c, "none"))["spec"]["storageClassName"] == ""


async def test_delayed_claims_wait_for_their_pod_and_say_for_which() -> None:
    async with cluster() as c:
        await make(c, v.storage_class("late", delayed=True), v.volume("there", class_="late"), v.claim(class_="late"))
        assert await v.told(c, "PersistentVolumeClaim", "data", "WaitForFirstConsumer") == (
            "Normal",
            "waiting for first consumer to be created before binding",
        )
        assert (await v.the_claim(c))["status"]["phase"] == "Pending"
        # The scheduler sets the volume aside; then the controller finishes.
        await c.client.patch(v.VOLUMES, "there", {"spec": {"claimRef": {"namespace": "default", "name": "data"}}})
        assert (await v.claim_in(c, "Bound"))["spec"]["volumeName"] == "there"


async def test_external_provisioners_are_asked_by_annotation() -> None:
    async with cluster() as c:
        await make(c, v.storage_class("far", "example.com/disks"), v.claim(class_="far"))
        kind, text = await v.told(c, "PersistentVolumeClaim", "data", "ExternalProvisioning")
        assert kind == "Normal" and "external provisioner 'example.com/disks'" in text
        noted = (await v.the_claim(c))["metadata"]["annotations"]
        assert noted["volume.kubernetes.io/storage-provisioner"] == "example.com/disks"
        assert noted["volume.beta.kubernetes.io/storage-provisioner"] == "example.com/disks"


async def test_nobody_provisions_for_the_class_of_static_volumes() -> None:
    async with cluster() as c:
        await make(c, v.storage_class("static"), v.claim(class_="static"))
        kind, text = await v.told(c, "PersistentVolumeClaim", "data", "ProvisioningFailed")
        assert (kind, text) == ("Warning", "no volume plugin matched name: kubernetes.io/no-provisioner")
