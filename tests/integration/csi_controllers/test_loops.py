"""Claims, attachments and growth: a real API server, the volume controllers, and the block driver over a cloud.

Over 500 lines because the three loops share one scene: API server, controllers, driver and cloud.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from api import resources
from api.models import core_v1, storage_v1
from client.client import Client, PatchType
from client.events import EventRecorder
from client.informer import Informers
from cloud.model import Health
from cloud.volumes_media import FakeMedia
from csi_controllers.app import loops
from csi_controllers.driver import Driver, DriverError
from csi_controllers.provisioner import Provisioner
from machinery.clock import Clock, RealClock
from machinery.errors import NotFound, ServiceUnavailable
from machinery.health import HealthServer
from tests.harness import block_storage
from tests.integration.controller_manager import volumes as v
from tests.integration.controller_manager.hollow import Cluster, eventually, running_cluster

DRIVER = "block.csi.nanokube.io"
ZONE = "topology.kubernetes.io/zone"
EVENTS = resources.of(core_v1.Event)
SECRETS = resources.of(core_v1.Secret)
_KEY = {"name": "key", "namespace": "default"}
FINALIZER = "external-attacher/block-csi-nanokube-io"
PROVISIONED = "external-provisioner.volume.kubernetes.io/finalizer"
ATTACHMENTS = resources.of(storage_v1.VolumeAttachment)
CONTROLLERS = [
    "persistentvolume-binder-controller",
    "persistentvolume-expander-controller",
    "persistentvolume-protection-controller",
    "persistentvolumeclaim-protection-controller",
]
Obj = dict[str, Any]
GIB = 1 << 30


class Counted(Driver):
    """A driver whose calls are noted, and fail where they shall."""

    def __init__(self, address: str, timeout: float, clock: Clock) -> None:
        super().__init__(address, timeout)
        self._clock = clock
        self.broken = ""
        self.error = DriverError("INTERNAL", 13, "out of order")
        self.loses_answers = False
        self.calls: dict[str, list[float]] = defaultdict(list)

    async def call(self, method: str, request: Any) -> Any:
        self.calls[method].append(self._clock.monotonic())
        if method == self.broken:
            if self.loses_answers:
                await super().call(method, request)
            raise self.error
        return await super().call(method, request)


@dataclass
class Site:
    cluster: Cluster
    cloud: block_storage.Driver
    disks: FakeMedia
    driver: Counted
    health: HealthServer

    @property
    def client(self) -> Client:
        return self.cluster.client

    def disk(self, handle: str) -> Any:
        return self.cloud.volumes.core.state.volumes[handle]

    async def attachment(self, name: str = "a1", node: str = "node-1", volume: str = "") -> None:
        await self.client.create(
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "VolumeAttachment",
                "metadata": {"name": name},
                "spec": {"attacher": DRIVER, "nodeName": node, "source": {"persistentVolumeName": volume}},
            }
        )

    async def attached(self, name: str = "a1") -> Obj:
        return await self.attachment_where(name, lambda each: each["status"]["attached"])

    async def attachment_where(self, name: str, wanted: Any) -> Obj:
        async def probe() -> Obj | None:
            found: Obj = await self.client.get(ATTACHMENTS, name)
            assert wanted(found), found
            return found

        found: Obj = await eventually(probe, f"attachment {name}", timeout=20)
        return found

    async def gone(self, kind: Any, name: str, namespace: str | None = None) -> None:
        async def probe() -> bool:
            try:
                await self.client.get(kind, name, namespace)
            except NotFound:
                return True
            return False

        await eventually(probe, f"{name} to be gone", timeout=20)

    async def provisioned(self, name: str = "data", node: str = "node-1", size: str = "1Gi") -> Obj:
        """A claim, bound to a volume made for it."""
        await self.client.create(v.claim(name, size, "block"))
        await v.told(self.cluster, "PersistentVolumeClaim", name, "WaitForFirstConsumer")
        await v.select_node(self.cluster, name, node)
        claim = await v.claim_in(self.cluster, "Bound", name)
        return await v.volume_in(self.cluster, "Bound", claim["spec"]["volumeName"])


@contextlib.asynccontextmanager
async def site(*, timeout: float = 10.0, **class_: Any) -> AsyncIterator[Site]:
    disks = FakeMedia()
    async with running_cluster(controllers=CONTROLLERS) as cluster, block_storage.running_driver(disks=disks) as cloud:
        client = cluster.client
        for name, zone in (("node-1", "local-a"), ("node-2", "local-a"), ("node-3", "local-b")):
            node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {ZONE: zone}}}
            await client.create(node)
            spec = {"drivers": [{"name": DRIVER, "nodeID": name, "topologyKeys": [ZONE]}]}
            csi_node = {"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": name}, "spec": spec}
            await client.create(csi_node)
        settings = {"delayed": True, "allowVolumeExpansion": True, "reclaimPolicy": "Delete", **class_}
        await client.create(v.storage_class("block", DRIVER, **settings))
        clock = RealClock(20.0)
        driver = Counted(f"unix:{cloud.socket}", timeout, clock)
        health = HealthServer("")
        health.ready("informers-synced", False)
        about = await driver.about()
        running = asyncio.ensure_future(loops(client, clock, Informers(client, clock), driver, about, "ext4", health))
        try:
            await eventually(lambda: _is(health.is_ready), "the caches", timeout=20)
            yield Site(cluster, cloud, disks, driver, health)
        finally:
            assert not running.done(), running.result()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await driver.close()


async def test_a_claim_gets_a_disk_in_the_zone_of_its_pod_and_takes_it_along() -> None:
    async with site() as s:
        volume = await s.provisioned(node="node-3", size="1500Mi")
        spec, meta = volume["spec"], volume["metadata"]
        disk = s.disk(spec["csi"]["volumeHandle"])
        assert (disk.name, disk.zone, disk.size) == (meta["name"], "local-b", 2 * GIB)
        assert spec["capacity"] == {"storage": "2Gi"}
        assert spec["csi"]["fsType"] == "ext4"
        assert spec["csi"]["volumeAttributes"]["storage.kubernetes.io/csiProvisionerIdentity"].endswith(DRIVER)
        term = {"matchExpressions": [{"key": ZONE, "operator": "In", "values": ["local-b"]}]}
        assert spec["nodeAffinity"] == {"required": {"nodeSelectorTerms": [term]}}
        assert meta["annotations"] | {"pv.kubernetes.io/provisioned-by": DRIVER} == meta["annotations"]
        assert meta["annotations"]["volume.kubernetes.io/provisioner-deletion-secret-name"] == ""
        assert PROVISIONED in meta["finalizers"]
        told = await v.told(s.cluster, "PersistentVolumeClaim", "data", "ProvisioningSucceeded")
        assert told == ("Normal", f"Successfully provisioned volume {meta['name']}")
        await s.client.delete(v.CLAIMS, "data", v.NS)
        await s.gone(v.VOLUMES, meta["name"])
        assert not s.disks.sizes


async def test_what_cannot_be_made_is_told_and_another_class_helps() -> None:
    async with site(parameters={"type": "floppy"}) as s:
        await s.client.create(v.claim("data", "1Gi", "block"))
        await v.told(s.cluster, "PersistentVolumeClaim", "data", "WaitForFirstConsumer")
        await v.select_node(s.cluster, "data", "node-1")
        kind, message = await v.told(s.cluster, "PersistentVolumeClaim", "data", "ProvisioningFailed")
        assert kind == "Warning"
        wanted = 'failed to provision volume with StorageClass "block": rpc error: code = InvalidArgument desc = '
        assert message.startswith(wanted)
        await s.client.delete(v.CLASSES, "block")
        await s.client.create(v.storage_class("block", DRIVER, delayed=True))
        await v.claim_in(s.cluster, "Bound")


async def test_a_node_without_the_driver_is_named() -> None:
    async with site() as s:
        await s.client.create(v.claim("data", "1Gi", "block"))
        await v.told(s.cluster, "PersistentVolumeClaim", "data", "WaitForFirstConsumer")
        await v.select_node(s.cluster, "data", "node-9")
        _, message = await v.told(s.cluster, "PersistentVolumeClaim", "data", "ProvisioningFailed")
        assert message.endswith("error generating accessibility requirements: no topology key found for node node-9")


async def test_attachments_are_carried_out_and_their_volume_is_held() -> None:
    async with site() as s:
        volume = await s.provisioned()
        name, handle = volume["metadata"]["name"], volume["spec"]["csi"]["volumeHandle"]
        await s.attachment(volume=name)
        found = await s.attached()
        assert found["metadata"]["finalizers"] == [FINALIZER]
        assert found["metadata"]["annotations"] == {"csi.alpha.kubernetes.io/node-id": "node-1"}
        assert FINALIZER in (await v.the_volume(s.cluster, name))["metadata"]["finalizers"]
        assert s.disks.plugged == {(handle, "node-1")}

        await s.client.delete(v.CLAIMS, "data", v.NS)
        _, message = await v.told(s.cluster, "PersistentVolume", name, "VolumeFailedDelete")
        assert message == f"persistentvolume {name} is still attached to node node-1"
        await s.client.delete(ATTACHMENTS, "a1")
        await s.gone(ATTACHMENTS, "a1")
        assert not s.disks.plugged
        await s.gone(v.VOLUMES, name)
        assert not s.disks.sizes


async def test_a_failed_attachment_says_why_and_works_later() -> None:
    async with site() as s:
        volume = await s.provisioned()
        name, handle = volume["metadata"]["name"], volume["spec"]["csi"]["volumeHandle"]
        core = s.cloud.volumes.core
        core.fail(s.disk(handle), "attach-fails")
        await s.attachment(volume=name)
        found = await s.attachment_where("a1", lambda each: each["status"].get("attachError"))
        assert found["status"]["attached"] is False
        told = s.health._answer("/metrics")[1]
        publish = 'method_name="/csi.v1.Controller/ControllerPublishVolume"'
        assert any(publish in line and 'grpc_status_code="Internal"' in line for line in told.splitlines())
        error = found["status"]["attachError"]
        assert error["message"].startswith("rpc error: code = Internal desc = ")
        assert error["errorCode"] == 13
        core.fail(s.disk(handle), "")
        found = await s.attached()
        assert "attachError" not in found["status"]
        await s.attachment("a2", "node-2", name)  # the first still has it
        found = await s.attachment_where("a2", lambda each: each["status"].get("attachError"))
        assert "code = FailedPrecondition" in found["status"]["attachError"]["message"]
        await s.client.delete(ATTACHMENTS, "a1")
        await s.attached("a2")
        assert s.disks.plugged == {(handle, "node-2")}


async def test_a_detachment_waits_for_a_working_node_but_not_for_a_dead_one() -> None:
    async with site(timeout=1.0) as s:
        volume = await s.provisioned()
        handle = volume["spec"]["csi"]["volumeHandle"]
        await s.attachment(volume=volume["metadata"]["name"])
        await s.attached()
        s.disks.mounted.add((handle, "node-1"))
        await s.client.delete(ATTACHMENTS, "a1")
        found = await s.attachment_where("a1", lambda each: each["status"].get("detachError"))
        assert found["status"]["attached"] is True
        assert "code = DeadlineExceeded" in found["status"]["detachError"]["message"]
        s.cloud.machines.there["node-1"] = Health("g", healthy=False)
        await s.gone(ATTACHMENTS, "a1")
        assert s.disks.pulled == [(handle, "node-1")]


async def test_an_attachment_to_a_node_without_the_driver_waits_for_it() -> None:
    async with site() as s:
        volume = await s.provisioned()
        await s.client.delete(resources.of(storage_v1.CSINode), "node-2")
        await s.attachment(node="node-2", volume=volume["metadata"]["name"])
        found = await s.attachment_where("a1", lambda each: each["status"].get("attachError"))
        assert found["status"]["attachError"]["message"] == f"CSINode node-2 does not contain driver {DRIVER}"
        assert "finalizers" not in found["metadata"]
        spec = {"drivers": [{"name": DRIVER, "nodeID": "node-2", "topologyKeys": [ZONE]}]}
        await s.client.create(
            {"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": "node-2"}, "spec": spec}
        )
        await s.attached()


async def test_what_the_cloud_has_lost_is_attached_again() -> None:
    async with site() as s:
        volume = await s.provisioned()
        handle = volume["spec"]["csi"]["volumeHandle"]
        await s.attachment(volume=volume["metadata"]["name"])
        await s.attached()
        engine = s.cloud.volumes
        engine.core.detach(s.disk(handle), "", engine.now(), force=True)
        engine.wake()

        async def lost_and_found() -> bool:
            return bool(s.disk(handle).state == "in-use")

        await eventually(lambda: _is(s.disk(handle).state == "available"), "the disk to be gone", timeout=20)
        await eventually(lost_and_found, "the disk to be back", timeout=20)


async def _is(truth: bool) -> bool:
    return truth


async def grow(s: Site, size: str) -> None:
    patch = {"spec": {"resources": {"requests": {"storage": size}}}}
    await s.client.patch(v.CLAIMS, "data", patch, v.NS, type=PatchType.MERGE)


async def claim_where(s: Site, wanted: Any) -> Obj:
    async def probe() -> Obj | None:
        found = await v.the_claim(s.cluster)
        assert wanted(found), found["status"]
        return found

    found: Obj = await eventually(probe, "the claim", timeout=20)
    return found


async def test_a_claim_grows_up_to_the_nodes_part() -> None:
    async with site() as s:
        volume = await s.provisioned()
        name, handle = volume["metadata"]["name"], volume["spec"]["csi"]["volumeHandle"]
        await grow(s, "3Gi")
        claim = await claim_where(
            s, lambda each: any(c["type"] == "FileSystemResizePending" for c in each["status"].get("conditions", ()))
        )
        assert [each["type"] for each in claim["status"]["conditions"]] == ["FileSystemResizePending"]
        condition = claim["status"]["conditions"][0]
        wanted = "Waiting for user to (re-)start a pod to finish file system resize of volume on node."
        assert (condition["status"], condition["message"]) == ("True", wanted)
        assert claim["status"]["capacity"] == {"storage": "1Gi"}, "the kubelet has the last word"
        assert claim["status"]["allocatedResources"] == {"storage": "3Gi"}
        assert claim["status"]["allocatedResourceStatuses"] == {"storage": "NodeResizePending"}
        live = await v.the_volume(s.cluster, name)
        assert live["spec"]["capacity"] == {"storage": "3Gi"}
        assert live["metadata"]["annotations"]["volume.alpha.kubernetes.io/pre-resize-capacity"] == "1Gi"
        assert s.disks.sizes[handle] == 3 * GIB
        for reason, text in (
            ("Resizing", f"External resizer is resizing volume {name}"),
            ("FileSystemResizeRequired", "Require file system resize of volume on node"),
        ):
            assert await v.told(s.cluster, "PersistentVolumeClaim", "data", reason) == ("Normal", text)


async def test_growth_that_cannot_be_is_told_and_may_be_taken_back() -> None:
    async with site() as s:
        volume = await s.provisioned()
        await grow(s, "99Pi")
        claim = await claim_where(s, lambda each: each["status"].get("allocatedResourceStatuses"))
        claim = await claim_where(
            s, lambda each: each["status"]["allocatedResourceStatuses"]["storage"] == "ControllerResizeInfeasible"
        )
        types = {each["type"] for each in claim["status"]["conditions"]}
        assert types == {"Resizing", "ControllerResizeError"}
        _, message = await v.told(s.cluster, "PersistentVolumeClaim", "data", "VolumeResizeFailed")
        name = volume["metadata"]["name"]
        wanted = f'resize volume "{name}" by resizer "{DRIVER}" failed: rpc error: code = OutOfRange desc = '
        assert message.startswith(wanted)
        await grow(s, "2Gi")
        claim = await claim_where(
            s, lambda each: each["status"]["allocatedResourceStatuses"]["storage"] == "NodeResizePending"
        )
        assert claim["status"]["allocatedResources"] == {"storage": "2Gi"}
        assert {each["type"] for each in claim["status"]["conditions"]} == {"FileSystemResizePending"}


async def test_raw_claims_need_no_node_to_grow() -> None:
    async with site() as s:
        await s.client.create(v.claim("data", "1Gi", "block", volumeMode="Block"))
        await v.told(s.cluster, "PersistentVolumeClaim", "data", "WaitForFirstConsumer")
        await v.select_node(s.cluster, "data", "node-1")
        claim = await v.claim_in(s.cluster, "Bound")
        volume = await v.the_volume(s.cluster, claim["spec"]["volumeName"])
        assert volume["spec"]["volumeMode"] == "Block"
        assert "fsType" not in volume["spec"]["csi"]
        await grow(s, "2Gi")
        claim = await claim_where(s, lambda each: each["status"]["capacity"] == {"storage": "2Gi"})
        assert not claim["status"].get("conditions")
        assert "allocatedResourceStatuses" not in claim["status"]


async def test_volumes_that_are_kept_bear_no_finalizer_of_ours() -> None:
    async with site(reclaimPolicy="Retain") as s:
        volume = await s.provisioned()
        name = volume["metadata"]["name"]
        assert PROVISIONED not in volume["metadata"]["finalizers"]
        patch = {"spec": {"persistentVolumeReclaimPolicy": "Delete"}}
        await s.client.patch(v.VOLUMES, name, patch, type=PatchType.MERGE)

        async def guarded() -> bool:
            return PROVISIONED in (await v.the_volume(s.cluster, name))["metadata"]["finalizers"]

        await eventually(guarded, "the finalizer", timeout=20)
        patch = {"spec": {"persistentVolumeReclaimPolicy": "Retain"}}
        await s.client.patch(v.VOLUMES, name, patch, type=PatchType.MERGE)
        await eventually(lambda: _not(guarded()), "the finalizer to go", timeout=20)
        await s.client.delete(v.CLAIMS, "data", v.NS)
        await v.volume_in(s.cluster, "Released", name)
        assert len(s.disks.sizes) == 1


async def _not(truth: Any) -> bool:
    return not await truth


async def test_a_class_that_does_not_wait_gets_its_disk_at_once_and_secrets_are_read() -> None:
    parameters = {
        "csi.storage.k8s.io/provisioner-secret-name": "cloud-${pvc.name}",
        "csi.storage.k8s.io/provisioner-secret-namespace": "default",
        "csi.storage.k8s.io/node-stage-secret-name": "stage",
        "csi.storage.k8s.io/node-stage-secret-namespace": "${pvc.namespace}",
        "type": "ssd",
    }
    async with site(parameters=parameters, delayed=False) as s:
        await s.client.create(v.claim("data", "1Gi", "block"))
        _, message = await v.told(s.cluster, "PersistentVolumeClaim", "data", "ProvisioningFailed")
        assert "error getting secret cloud-data in namespace default" in message
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cloud-data", "namespace": "default"}}
        await s.client.create({**secret, "stringData": {"token": "x"}})
        claim = await v.claim_in(s.cluster, "Bound")
        volume = await v.the_volume(s.cluster, claim["spec"]["volumeName"])
        assert volume["spec"]["csi"]["nodeStageSecretRef"] == {"name": "stage", "namespace": "default"}
        annotations = volume["metadata"]["annotations"]
        assert annotations["volume.kubernetes.io/provisioner-deletion-secret-name"] == "cloud-data"
        assert s.disk(volume["spec"]["csi"]["volumeHandle"]).type == "ssd"


async def test_a_claim_that_goes_while_its_disk_is_made_leaves_none_behind() -> None:
    async with site() as s:
        s.driver.broken, s.driver.loses_answers = "CreateVolume", True
        s.driver.error = DriverError("DEADLINE_EXCEEDED", 4, "who knows")
        await s.client.create(v.claim("data", "1Gi", "block"))
        await v.told(s.cluster, "PersistentVolumeClaim", "data", "WaitForFirstConsumer")
        await v.select_node(s.cluster, "data", "node-1")
        _, message = await v.told(s.cluster, "PersistentVolumeClaim", "data", "ProvisioningFailed")
        assert message.endswith("rpc error: code = DeadlineExceeded desc = who knows")
        assert len(s.disks.sizes) == 1
        await s.client.delete(v.CLAIMS, "data", v.NS)
        await s.gone(v.CLAIMS, "data", v.NS)
        s.driver.broken = ""
        await eventually(lambda: _is(not s.disks.sizes), "the disk to go", timeout=20)
        await eventually(lambda: _no_volumes(s), "no volume to be left", timeout=20)


async def test_a_disk_that_may_be_there_is_remembered_though_the_driver_cannot_be_asked() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key", "namespace": "default"}}
    parameters = {f"csi.storage.k8s.io/provisioner-secret-{each}": value for each, value in _KEY.items()}
    async with site(parameters=parameters) as s:
        await s.client.create(secret)
        s.driver.broken, s.driver.loses_answers = "CreateVolume", True
        s.driver.error = DriverError("DEADLINE_EXCEEDED", 4, "who knows")
        await s.client.create(v.claim("data", "1Gi", "block"))
        await v.told(s.cluster, "PersistentVolumeClaim", "data", "WaitForFirstConsumer")
        await v.select_node(s.cluster, "data", "node-1")
        await eventually(lambda: _is(bool(s.disks.sizes)), "the disk", timeout=20)
        await s.client.delete(SECRETS, "key", v.NS)
        await _failed(s, "error getting secret key")
        await s.client.delete(v.CLAIMS, "data", v.NS)
        await s.gone(v.CLAIMS, "data", v.NS)
        s.driver.broken = ""
        await s.client.create(secret)
        await eventually(lambda: _is(not s.disks.sizes), "the disk to go", timeout=20)


async def test_a_disk_whose_volume_cannot_be_written_down_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    async with site() as s:
        create, refused = s.client.create, 0

        async def refusing(obj: Any, *args: Any, **more: Any) -> Any:
            nonlocal refused
            if isinstance(obj, dict) and obj["kind"] == "PersistentVolume":
                refused += 1
                raise ServiceUnavailable("not now")
            return await create(obj, *args, **more)

        monkeypatch.setattr(s.client, "create", refusing)
        await create(v.claim("data", "1Gi", "block"))
        await v.told(s.cluster, "PersistentVolumeClaim", "data", "WaitForFirstConsumer")
        await v.select_node(s.cluster, "data", "node-1")
        await eventually(lambda: _is(refused > 0), "a refusal", timeout=20)
        await s.client.delete(v.CLAIMS, "data", v.NS)
        await s.gone(v.CLAIMS, "data", v.NS)
        monkeypatch.undo()
        await eventually(lambda: _is(not s.disks.sizes), "the disk to go", timeout=20)


async def test_no_disk_is_deleted_on_the_word_of_a_cache() -> None:
    async with site() as s:
        volume = await s.provisioned()
        name = volume["metadata"]["name"]
        keep = {"spec": {"persistentVolumeReclaimPolicy": "Retain"}}
        await s.client.patch(v.VOLUMES, name, keep, type=PatchType.MERGE)
        clock = RealClock(20.0)
        informers, events = Informers(s.client, clock), EventRecorder(s.client, clock, "test")
        late = Provisioner(s.client, informers, clock, events, s.driver, await s.driver.about(), "ext4")
        volume["spec"]["persistentVolumeReclaimPolicy"], volume["status"]["phase"] = "Delete", "Released"
        await late._keep(msgspec.convert(volume, core_v1.PersistentVolume))
        assert s.driver.calls["DeleteVolume"] == []
        assert s.disk(volume["spec"]["csi"]["volumeHandle"]).deleting is False


async def _failed(s: Site, why: str) -> None:
    async def probe() -> bool:
        return any(why in (each.get("message") or "") for each in (await s.client.list(EVENTS)).items)

    await eventually(probe, why, timeout=20)


async def _no_volumes(s: Site) -> bool:
    return not (await s.client.list(v.VOLUMES)).items


async def test_a_place_without_room_is_given_up_and_the_scheduler_asked_again() -> None:
    async with site() as s:
        s.driver.broken = "CreateVolume"
        s.driver.error = DriverError("RESOURCE_EXHAUSTED", 8, "no room")
        await s.client.create(v.claim("data", "1Gi", "block"))
        await v.told(s.cluster, "PersistentVolumeClaim", "data", "WaitForFirstConsumer")
        await v.select_node(s.cluster, "data", "node-1")
        chosen = "volume.kubernetes.io/selected-node"
        await claim_where(s, lambda each: chosen not in each["metadata"].get("annotations", {}))
        s.driver.broken = ""
        await v.select_node(s.cluster, "data", "node-3")
        claim = await v.claim_in(s.cluster, "Bound")
        volume = await v.the_volume(s.cluster, claim["spec"]["volumeName"])
        assert s.disk(volume["spec"]["csi"]["volumeHandle"]).zone == "local-b"


@pytest.mark.parametrize(
    "method",
    [
        "CreateVolume",
        "ControllerPublishVolume",
        "ControllerExpandVolume",
        "ControllerUnpublishVolume",
        "DeleteVolume",
    ],
)
async def test_what_fails_is_tried_ever_more_slowly_and_works_in_the_end(method: str) -> None:
    """What a loop writes about a failure wakes the loop itself; that must not make it hot."""
    async with site() as s:
        calls = s.driver.calls[method]
        if method == "CreateVolume":
            s.driver.broken = method
            await s.client.create(v.claim("data", "1Gi", "block"))
            await v.told(s.cluster, "PersistentVolumeClaim", "data", "WaitForFirstConsumer")
            await v.select_node(s.cluster, "data", "node-1")
        else:
            name = (await s.provisioned())["metadata"]["name"]
            if method == "ControllerUnpublishVolume":
                await s.attachment(volume=name)
                await s.attached()
            s.driver.broken = method
            match method:
                case "ControllerPublishVolume":
                    await s.attachment(volume=name)
                case "ControllerExpandVolume":
                    await grow(s, "2Gi")
                case "ControllerUnpublishVolume":
                    await s.client.delete(ATTACHMENTS, "a1")
                case "DeleteVolume":
                    await s.client.delete(v.CLAIMS, "data", v.NS)
        await eventually(lambda: _is(len(calls) >= 5), "five attempts", timeout=20)
        pauses = [later - earlier for earlier, later in itertools.pairwise(calls[:5])]
        assert all(pause >= least for pause, least in zip(pauses, (1, 2, 4, 8), strict=True)), pauses
        s.driver.broken = ""
        match method:
            case "CreateVolume":
                await v.claim_in(s.cluster, "Bound")
            case "ControllerPublishVolume":
                await s.attached()
            case "ControllerExpandVolume":
                await claim_where(
                    s, lambda each: each["status"]["allocatedResourceStatuses"]["storage"] == "NodeResizePending"
                )
            case "ControllerUnpublishVolume":
                await s.gone(ATTACHMENTS, "a1")
            case "DeleteVolume":
                await s.gone(v.VOLUMES, name)
