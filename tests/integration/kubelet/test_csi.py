"""Volumes of drivers: a kubelet between a real API server and a driver that records what it is asked."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api import attachments as names
from api import resources
from api.models import core_v1, storage_v1
from client.client import PatchType
from machinery.errors import Conflict, NotFound
from tests.harness.csi_driver import NAME, FakeDriver
from tests.integration.kubelet.conftest import FOREVER, NODE, Site, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
HANDLE = "vol-1"
UNIQUE = names.unique_name(NAME, HANDLE)
CLAIMS = resources.of(core_v1.PersistentVolumeClaim)
USES_CLAIM = {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}
MOUNTED = {"command": FOREVER, "volumeMounts": [{"name": "data", "mountPath": "/data"}]}


class Volumes:
    """A site with a driver, and what controllers would do for it."""

    def __init__(self, site: Site, driver: FakeDriver) -> None:
        self.site = site
        self.client = site.client
        self.driver = driver

    async def driver_object(self, **spec: Any) -> None:
        made = {"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": NAME}, "spec": spec}
        await self.client.create(made)

    async def volume(self, source: dict[str, Any] | None = None, **spec: Any) -> None:
        """A PersistentVolume bound to the claim `data`."""
        wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        claim: dict[str, Any] = await self.client.create(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "data", "namespace": "default"},
                "spec": {**wanted, "volumeName": "pv-1", "storageClassName": ""},
            }
        )
        ref = {"namespace": "default", "name": "data", "uid": claim["metadata"]["uid"]}
        made = {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "1Gi"},
            "csi": {"driver": NAME, "volumeHandle": HANDLE, **(source or {})},
            "claimRef": ref,
            **spec,
        }
        await self.client.create(
            {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv-1"}, "spec": made}
        )
        status = {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}
        await self.client.patch(
            CLAIMS, "data", {"status": status}, "default", type=PatchType.MERGE, subresource="status"
        )

    async def in_use(self, *wanted: str) -> None:
        async def look() -> bool:
            node = await self.client.get(core_v1.Node, NODE)
            return list((node.status.volumesInUse if node.status else None) or ()) == list(wanted)

        await until(look, f"volumesInUse {wanted}")

    async def attachment(self) -> str:
        """What the attach/detach controller makes for a pod; its name."""
        name = names.attachment_name(NAME, HANDLE, NODE)
        spec = {"attacher": NAME, "nodeName": NODE, "source": {"persistentVolumeName": "pv-1"}}
        made = {"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": {"name": name}, "spec": spec}
        await self.client.create(made)
        return name

    async def attached(self, name: str, status: dict[str, Any]) -> None:
        """What an attacher has to say."""
        await self.client.patch(
            storage_v1.VolumeAttachment, name, {"status": status}, type=PatchType.MERGE, subresource="status"
        )

    async def attach(self) -> None:
        """The whole, once the kubelet has said that it wants the volume."""
        await self.in_use(UNIQUE)
        await self.attached(
            await self.attachment(), {"attached": True, "attachmentMetadata": {"devicePath": "/dev/xvdba"}}
        )
        listed = {"status": {"volumesAttached": [{"name": UNIQUE, "devicePath": ""}]}}
        await self.client.patch(core_v1.Node, NODE, listed, type=PatchType.MERGE, subresource="status")

    async def registered(self) -> None:
        async def look() -> bool:
            return (True, "") in self.driver.registered

        await until(look, "registration")

    async def told(self, pod: str, reason: str, text: str) -> None:
        async def look() -> bool:
            return (reason, text) in await self.site.events(pod)

        try:
            await until(look, f"event {reason}")
        except AssertionError as error:
            raise AssertionError(f"{error}; events: {await self.site.events(pod)}") from None

    async def given_back(self) -> None:
        async def look() -> bool:
            return bool(self.driver.asked("unstage"))

        await until(look, "unstage")
        await self.in_use()

    @property
    def root(self) -> Path:
        return self.site.folder / "kubelet"


@contextlib.asynccontextmanager
async def volumes_of(site: Site, **options: Any) -> AsyncIterator[Volumes]:
    driver = FakeDriver(site.folder / "d", **options)
    async with driver.serve(site.folder / "kubelet" / "plugins_registry"):
        made = Volumes(site, driver)
        await made.registered()
        yield made


async def test_a_driver_that_registers_is_told_of_and_forgotten_when_it_leaves(site: Site) -> None:
    async def csi_node() -> storage_v1.CSINode:
        return await site.client.get(storage_v1.CSINode, NODE)

    async def there() -> bool:
        with contextlib.suppress(NotFound):
            return (await csi_node()).spec.drivers == []
        return False

    await until(there, "a CSINode without drivers")
    async with volumes_of(site):
        found = await csi_node()
        assert [(each.name, each.nodeID, each.topologyKeys) for each in found.spec.drivers] == [
            (NAME, "id-of-node-1", ["example.com/rack"])
        ]
        assert found.spec.drivers[0].allocatable == storage_v1.VolumeNodeResources(count=5)
        node = await site.client.get(core_v1.Node, NODE)
        assert node.metadata is not None and node.metadata.labels is not None and node.metadata.annotations is not None
        assert found.metadata is not None and found.metadata.ownerReferences is not None
        assert found.metadata.ownerReferences[0].uid == node.metadata.uid
        assert node.metadata.labels["example.com/rack"] == "r1"
        assert node.metadata.annotations["csi.volume.kubernetes.io/nodeid"] == f'{{"{NAME}":"id-of-node-1"}}'
    await until(there, "a CSINode without drivers")


async def test_a_driver_whose_topology_contradicts_the_node_is_refused(site: Site) -> None:
    await site.client.patch(core_v1.Node, NODE, {"metadata": {"labels": {"example.com/rack": "r9"}}})
    driver = FakeDriver(site.folder / "d")
    async with driver.serve(site.folder / "kubelet" / "plugins_registry"):

        async def refused() -> bool:
            return bool(driver.registered)

        await until(refused, "an answer")
    text = 'detected topology value collision: driver reported "example.com/rack":"r1" but existing label is '
    assert driver.registered[0] == (False, text + '"example.com/rack":"r9"')


async def test_a_volume_is_waited_for_staged_published_and_given_back(site: Site) -> None:
    async with volumes_of(site) as v:
        source = {"fsType": "ext4", "volumeAttributes": {"speed": "high"}}
        await v.volume(source, mountOptions=["noatime"])
        pod = await site.create("web", MOUNTED, **USES_CLAIM)
        await v.in_use(UNIQUE)
        assert not v.driver.asked("stage") and not site.runtime.sandboxes, "nothing before it is attached"
        await v.attach()
        await site.phase("web", "Running")
        (staged,), (published,) = v.driver.asked("stage"), v.driver.asked("publish")
        assert pod.metadata is not None
        uid = pod.metadata.uid
        assert staged.volume_id == published.volume_id == HANDLE
        assert dict(staged.publish_context) == {"devicePath": "/dev/xvdba"}
        assert dict(staged.volume_context) == dict(published.volume_context) == {"speed": "high"}
        assert (staged.volume_capability.mount.fs_type, list(staged.volume_capability.mount.mount_flags)) == (
            "ext4",
            ["noatime"],
        )
        assert staged.staging_target_path.startswith(f"{v.root}/plugins/kubernetes.io/csi/{NAME}/")
        assert staged.staging_target_path.endswith("/globalmount")
        assert published.target_path == f"{v.root}/pods/{uid}/volumes/kubernetes.io~csi/pv-1/mount"
        assert published.staging_target_path == staged.staging_target_path
        assert not published.readonly
        bound = site.containers("web")[0].config.mounts
        assert ("/data", published.target_path) in [(each.container_path, each.host_path) for each in bound]
        await site.client.delete(core_v1.Pod, "web", "default", grace_period_seconds=0)
        await v.given_back()
        assert [each.target_path for each in v.driver.asked("unpublish")] == [published.target_path]
        assert [each.staging_target_path for each in v.driver.asked("unstage")] == [staged.staging_target_path]
        assert not Path(staged.staging_target_path).parent.exists()


async def test_pods_of_one_node_share_a_staged_volume(site: Site) -> None:
    async with volumes_of(site) as v:
        await v.driver_object(attachRequired=False)
        await v.volume()
        for name in ("one", "two"):
            await site.create(name, MOUNTED, **USES_CLAIM)
        for name in ("one", "two"):
            await site.phase(name, "Running")
        assert (len(v.driver.asked("stage")), len(v.driver.asked("publish"))) == (1, 2)
        await v.in_use()  # what is not attached is nobody's business
        await site.client.delete(core_v1.Pod, "one", "default")
        await site.gone("one")
        await site.pod("two", "still runs", lambda pod: pod.status and pod.status.phase == "Running")
        assert not v.driver.asked("unstage")
        await site.client.delete(core_v1.Pod, "two", "default", grace_period_seconds=0)
        await v.given_back()


async def test_what_a_driver_refuses_is_told_and_tried_again(site: Site) -> None:
    async with volumes_of(site) as v:
        await v.driver_object(attachRequired=False)
        await v.volume()
        v.driver.failures["stage"].append(("INTERNAL", "no such disk"))
        v.driver.failures["publish"].append(("UNAVAILABLE", "busy"))
        v.driver.failures["unpublish"].append(("INTERNAL", "device is busy"))
        v.driver.failures["unstage"].append(("INTERNAL", "device is busy"))
        await site.create("web", MOUNTED, **USES_CLAIM)
        await site.phase("web", "Running")
        lead = 'failed for volume "pv-1" : rpc error: code = '
        await v.told("web", "FailedMount", f"MountVolume.MountDevice {lead}Internal desc = no such disk")
        await v.told("web", "FailedMount", f"MountVolume.SetUp {lead}Unavailable desc = busy")
        await site.client.delete(core_v1.Pod, "web", "default")
        await site.gone("web")

        async def done() -> bool:
            return len(v.driver.asked("unpublish")) == 2 and len(v.driver.asked("unstage")) == 2

        await until(done, "second tries")


async def test_a_driver_that_is_not_there_is_named(site: Site) -> None:
    driver = FakeDriver(site.folder / "d")
    v = Volumes(site, driver)
    await v.driver_object(attachRequired=False)
    await v.volume()
    await site.create("web", MOUNTED, **USES_CLAIM)
    text = f"driver name {NAME} not found in the list of registered CSI drivers"
    await v.told(
        "web",
        "FailedMount",
        'MountVolume.MountDevice failed for volume "pv-1" : kubernetes.io/csi: attacher.MountDevice failed to create '
        f"newCsiDriverClient: {text}",
    )
    assert not site.runtime.sandboxes
    async with driver.serve(site.folder / "kubelet" / "plugins_registry"):
        await site.phase("web", "Running")
        await site.client.delete(core_v1.Pod, "web", "default", grace_period_seconds=0)
        await v.given_back()


async def test_a_volume_of_the_pods_own_comes_with_facts_and_secrets(site: Site) -> None:
    async with volumes_of(site) as v:
        inline = {
            "driver": NAME,
            "readOnly": True,
            "volumeAttributes": {"what": "it"},
            "nodePublishSecretRef": {"name": "key"},
        }
        await site.create("web", MOUNTED, volumes=[{"name": "data", "csi": inline}])
        lead = 'MountVolume.SetUp failed for volume "data" : kubernetes.io/csi: '
        why = f'volume mode "Ephemeral" not supported by driver {NAME} (no CSIDriver object)'
        await v.told("web", "FailedMount", lead + why)
        await v.driver_object(podInfoOnMount=True, volumeLifecycleModes=["Ephemeral"])
        why = "fetching NodePublishSecretRef default/key failed: kubernetes.io/csi: failed to find the secret key in "
        why += 'the namespace default with error: secrets "key" not found'
        await v.told("web", "FailedMount", 'MountVolume.SetUp failed for volume "data" : ' + why)
        meta = {"name": "key", "namespace": "default"}
        await site.client.create({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"k": "v"}})
        pod = await site.phase("web", "Running")
        assert pod.metadata is not None
        (published,) = v.driver.asked("publish")
        assert published.volume_id.startswith("csi-") and published.readonly
        assert dict(published.secrets) == {"k": "v"}
        lead = "csi.storage.k8s.io/"
        assert dict(published.volume_context) == {
            "what": "it",
            f"{lead}pod.name": "web",
            f"{lead}pod.namespace": "default",
            f"{lead}pod.uid": pod.metadata.uid,
            f"{lead}serviceAccount.name": "default",
            f"{lead}ephemeral": "true",
        }
        assert not v.driver.asked("stage")
        await site.client.delete(core_v1.Pod, "web", "default")
        await site.gone("web")
        assert len(v.driver.asked("unpublish")) == 1, "the pod goes when its volumes are unmounted"


async def test_files_become_the_groups(site: Site) -> None:
    async with volumes_of(site) as v:
        await v.driver_object(attachRequired=False, fsGroupPolicy="File")
        await v.volume()
        (v.driver.store / HANDLE).mkdir(parents=True)
        (v.driver.store / HANDLE / "file").write_text("x")
        await site.create("web", MOUNTED, securityContext={"fsGroup": 4321}, **USES_CLAIM)
        await site.phase("web", "Running")
        assert (v.driver.store / HANDLE / "file").stat().st_gid == 4321


async def test_a_volume_in_use_grows(fast_site: Site) -> None:
    site = fast_site
    async with volumes_of(site) as v:
        await v.driver_object(attachRequired=False)
        await v.volume()
        await site.create("web", MOUNTED, **USES_CLAIM)
        await site.phase("web", "Running")
        pending = [{"type": "FileSystemResizePending", "status": "True"}]
        await site.client.patch(CLAIMS, "data", {"status": {"conditions": pending}}, "default", subresource="status")
        await site.client.patch(core_v1.PersistentVolume, "pv-1", {"spec": {"capacity": {"storage": "2Gi"}}})

        async def grown() -> bool:
            status = (await site.client.get(CLAIMS, "data", "default"))["status"]
            return bool(status["capacity"] == {"storage": "2Gi"} and not status.get("conditions"))

        await until(grown, "the claim to grow")
        (expanded,) = v.driver.asked("expand")
        assert expanded.capacity_range.required_bytes == 2 << 30
        assert expanded.volume_path.endswith("/kubernetes.io~csi/pv-1/mount")
        text = f'MountVolume.NodeExpandVolume succeeded for volume "pv-1" {NODE}'
        await v.told("web", "FileSystemResizeSuccessful", text)
        await v.told("data", "FileSystemResizeSuccessful", text)


async def test_what_grows_only_while_nobody_uses_it_keeps_no_pod_waiting(fast_site: Site) -> None:
    site = fast_site
    async with volumes_of(site) as v:
        await v.driver_object(attachRequired=False)
        await v.volume()
        await site.create("web", MOUNTED, **USES_CLAIM)
        await site.phase("web", "Running")
        v.driver.failures["expand"] = [("FAILED_PRECONDITION", "it is in use")] * 2
        await site.client.patch(core_v1.PersistentVolume, "pv-1", {"spec": {"capacity": {"storage": "2Gi"}}})
        text = (
            'NodeExpandVolume.NodeExpandVolume failed for volume "pv-1" : rpc error: code = FailedPrecondition desc = '
        )
        await v.told("data", "VolumeResizeFailed", f"{text}it is in use")
        for attempts in (2, 3):
            await site.client.delete(core_v1.Pod, "web", "default")
            await site.gone("web")
            await site.create("web", MOUNTED, **USES_CLAIM)
            await site.phase("web", "Running")
            assert len(v.driver.asked("expand")) == attempts, "once each time that it is mounted"

        async def grown() -> bool:
            return bool((await site.client.get(CLAIMS, "data", "default"))["status"]["capacity"] == {"storage": "2Gi"})

        await until(grown, "the claim to grow")


async def test_a_kubelet_that_was_killed_leaves_nothing_mounted(site: Site) -> None:
    async with volumes_of(site) as v:
        await v.volume()
        await site.create("web", MOUNTED, **USES_CLAIM)
        await v.attach()
        await site.phase("web", "Running")
        await site.stop()
        await site.client.delete(core_v1.Pod, "web", "default", grace_period_seconds=0)
        await site.start()
        await v.given_back()
        assert len(v.driver.asked("unpublish")) == 1


async def test_a_kubelet_that_was_killed_keeps_what_is_in_use(site: Site) -> None:
    async with volumes_of(site) as v:
        await v.volume()
        await site.create("web", MOUNTED, **USES_CLAIM)
        await v.attach()
        await site.phase("web", "Running")
        await site.stop()
        with contextlib.suppress(Conflict):
            await site.client.patch(core_v1.Node, NODE, {"metadata": {"labels": {"seen": "yes"}}})
        await site.start()
        await v.in_use(UNIQUE)

        async def adopted() -> bool:
            workers = site.kubelet.pods.workers() if site.kubelet.pods is not None else []
            return bool(workers) and workers[0].machine.volumes_ready

        await until(adopted, "adoption")
        assert len(v.driver.asked("publish")) == 1, "it was mounted still"
        assert not v.driver.asked("unpublish")
        await site.client.delete(core_v1.Pod, "web", "default", grace_period_seconds=0)
        await v.given_back()


async def test_a_driver_that_wants_tokens_gets_them_again_and_again(fast_site: Site) -> None:
    site = fast_site
    async with volumes_of(site) as v:
        tokens = [{"audience": "vault", "expirationSeconds": 3600}]
        await v.driver_object(attachRequired=False, requiresRepublish=True, tokenRequests=tokens)
        await v.volume()
        await site.create("web", MOUNTED, **USES_CLAIM)
        await site.phase("web", "Running")

        async def republished() -> bool:
            return len(v.driver.asked("publish")) >= 3

        await until(republished, "the volume to be published again")
        for request in v.driver.asked("publish"):
            told = json.loads(request.volume_context["csi.storage.k8s.io/serviceAccount.tokens"])
            assert told["vault"]["token"].count(".") == 2
            assert told["vault"]["expirationTimestamp"].endswith("Z")
        assert len({request.target_path for request in v.driver.asked("publish")}) == 1


async def test_a_driver_may_be_asked_again_how_much_the_node_bears(fast_site: Site) -> None:
    site = fast_site
    async with volumes_of(site) as v:
        await v.driver_object(nodeAllocatableUpdatePeriodSeconds=10)
        v.driver.limit = 3

        async def lowered() -> bool:
            found = await site.client.get(storage_v1.CSINode, NODE)
            return [each.allocatable for each in found.spec.drivers] == [storage_v1.VolumeNodeResources(count=3)]

        await until(lowered, "the new limit")


async def test_a_pod_for_whose_volume_there_is_no_room_fails_so_that_another_can_take_its_place(
    fast_site: Site,
) -> None:
    site = fast_site
    async with volumes_of(site) as v:
        await v.driver_object(nodeAllocatableUpdatePeriodSeconds=3600)
        await v.volume()
        v.driver.limit = 2
        await site.create("web", MOUNTED, **USES_CLAIM)
        name = await v.attachment()
        status = {"attached": False, "attachError": {"message": "too many", "errorCode": 8}}
        await v.attached(name, status)
        pod = await site.phase("web", "Failed")
        assert pod.status is not None
        assert pod.status.reason == "VolumeAttachmentLimitExceeded"
        assert (pod.status.message or "").startswith("Pod was rejected: ")
        found = await site.client.get(storage_v1.CSINode, NODE)
        assert found.spec.drivers[0].allocatable == storage_v1.VolumeNodeResources(count=2), "told at once"
        await v.in_use()
