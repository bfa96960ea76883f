"""Volumes on their way between nodes, against a real API server; the driver's attacher is played by the test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api import attachments as names
from api import resources
from api.models import core_v1, storage_v1
from client.client import Client, PatchType
from machinery.clock import RealClock
from machinery.errors import NotFound, StatusError
from tests.integration.controller_manager import volumes as v
from tests.integration.controller_manager.hollow import Cluster, eventually, running_cluster

DRIVER, HANDLE = "block.csi.example", "vol-1"
UNIQUE = names.unique_name(DRIVER, HANDLE)
FINALIZER = f"external-attacher/{DRIVER}"
CONTROLLERS = [
    "persistentvolume-binder-controller",
    "persistentvolume-attach-detach-controller",
    "serviceaccount-controller",
]
SUCCESS = ("Normal", 'AttachVolume.Attach succeeded for volume "pv-1" ')


class Attacher:
    """What an external attacher does: a finalizer, then attached; on deletion the finalizer again."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.error = ""
        self.idle = False
        self.seen: set[str] = set()

    async def run(self) -> None:
        while True:
            with contextlib.suppress(StatusError):
                for each in (await self._client.list(storage_v1.VolumeAttachment)).items:
                    self.seen.add(each.spec.nodeName)
                    if not self.idle:
                        await self._advance(each)
            await asyncio.sleep(0.02)

    async def _advance(self, each: Any) -> None:
        meta = each.metadata
        if meta.deletionTimestamp is not None:
            await self._patch(meta.name, {"metadata": {"finalizers": None}})
            return
        if not meta.finalizers:
            await self._patch(meta.name, {"metadata": {"finalizers": [FINALIZER]}})
        error = {"message": self.error, "time": "2026-01-01T00:00:00Z"} if self.error else None
        await self._patch(meta.name, {"status": {"attached": not self.error, "attachError": error}}, "status")

    async def _patch(self, name: str, patch: v.Obj, subresource: str = "") -> None:
        await self._client.patch(
            storage_v1.VolumeAttachment, name, patch, type=PatchType.MERGE, subresource=subresource
        )


class Site:
    """A cluster with a bound volume, and the kubelets' words on it."""

    def __init__(self, cluster: Cluster, attacher: Attacher) -> None:
        self.cluster = cluster
        self.client = cluster.client
        self.attacher = attacher

    async def pod(self, name: str, node: str, claim: str = "data") -> None:
        volume = {"name": "data", "persistentVolumeClaim": {"claimName": claim}}
        spec = {"containers": [{"name": "c", "image": "i"}], "nodeName": node, "volumes": [volume]}
        meta = {"name": name, "namespace": v.NS}
        made = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}

        async def probe() -> v.Obj:
            return await self.client.create(made)  # its service account may take a moment

        await eventually(probe, f"pod {name}")

    async def delete_pod(self, name: str) -> None:
        await self.client.delete(core_v1.Pod, name, v.NS, grace_period_seconds=0)

    async def mounts(self, node: str, *volumes: str) -> None:
        patch = {"status": {"volumesInUse": list(volumes) or None}}
        await self.client.patch(core_v1.Node, node, patch, type=PatchType.MERGE, subresource="status")

    async def attachment(self, node: str) -> Any:
        return await self.client.get(storage_v1.VolumeAttachment, names.attachment_name(DRIVER, HANDLE, node))

    async def is_attached(self, node: str) -> bool:
        async def probe() -> bool:
            found = await self.client.get(core_v1.Node, node)
            listed = (found.status.volumesAttached if found.status else None) or []
            return [(each.name, each.devicePath) for each in listed] == [(UNIQUE, "")]

        return bool(await eventually(probe, f"volume attached to {node}"))

    async def is_detached(self, node: str) -> bool:
        async def probe() -> bool:
            found = await self.client.get(core_v1.Node, node)
            assert not (found.status.volumesAttached if found.status else None)
            try:
                await self.attachment(node)
            except NotFound:
                return True
            return False

        return bool(await eventually(probe, f"volume detached from {node}"))


@contextlib.asynccontextmanager
async def site(modes: tuple[str, ...] = ("ReadWriteOnce",), scale: float = 1.0, **driver: Any) -> AsyncIterator[Site]:
    async with running_cluster(nodes=2, controllers=CONTROLLERS, clock=RealClock(scale)) as cluster:
        for node in ("n1", "n2"):
            patch = {"metadata": {"annotations": {names.MANAGED: "true"}}}
            await cluster.client.patch(core_v1.Node, node, patch, type=PatchType.MERGE)
        source = {"driver": DRIVER, "volumeHandle": HANDLE}
        volume = v.volume("pv-1", accessModes=list(modes), hostPath=None, csi=source)
        del volume["spec"]["hostPath"]
        if driver:
            spec = {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "CSIDriver",
                "metadata": {"name": DRIVER},
                "spec": driver,
            }
            await cluster.client.create(spec)
        await cluster.client.create(volume)
        await cluster.client.create(v.claim(accessModes=list(modes)))
        await v.claim_in(cluster, "Bound")
        attacher = Attacher(cluster.client)
        task = asyncio.ensure_future(attacher.run())
        try:
            yield Site(cluster, attacher)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_volume_comes_with_the_pod_and_goes_when_it_is_unmounted() -> None:
    async with site() as s:
        await s.pod("web-0", "n1")
        assert await s.is_attached("n1")
        found = await s.attachment("n1")
        assert (found.spec.attacher, found.spec.nodeName) == (DRIVER, "n1")
        assert found.spec.source.persistentVolumeName == "pv-1"
        assert await v.told(s.cluster, "Pod", "web-0", "SuccessfulAttachVolume") == SUCCESS
        await s.mounts("n1", UNIQUE)
        await s.delete_pod("web-0")
        await s.pod("web-1", "n2")
        # The last user is gone, but the kubelet has it mounted still: nobody else may have it.
        text = 'Multi-Attach error for volume "pv-1" Volume is already exclusively attached to one node and '
        told = await v.told(s.cluster, "Pod", "web-1", "FailedAttachVolume")
        assert told == ("Warning", text + "can't be attached to another")
        assert (await s.attachment("n1")).metadata.deletionTimestamp is None
        await s.mounts("n1")
        assert await s.is_detached("n1")
        assert await s.is_attached("n2")


async def test_a_second_pod_elsewhere_waits_for_the_first_and_is_told_its_name() -> None:
    async with site() as s:
        await s.pod("web-0", "n1")
        assert await s.is_attached("n1")
        await s.pod("web-1", "n2")
        told = await v.told(s.cluster, "Pod", "web-1", "FailedAttachVolume")
        assert told == ("Warning", 'Multi-Attach error for volume "pv-1" Volume is already used by pod(s) web-0')
        assert s.attacher.seen == {"n1"}


async def test_shared_volumes_go_to_every_node() -> None:
    async with site(modes=("ReadWriteMany",)) as s:
        for number in (1, 2):
            await s.pod(f"web-{number}", f"n{number}")
        assert await s.is_attached("n1")
        assert await s.is_attached("n2")


async def test_a_node_out_of_service_loses_its_volumes_at_once() -> None:
    async with site() as s:
        await s.pod("web-0", "n1")
        assert await s.is_attached("n1")
        await s.mounts("n1", UNIQUE)
        s.cluster.alive.discard("n1")
        taint = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}
        await s.client.patch(core_v1.Node, "n1", {"spec": {"taints": [taint]}}, type=PatchType.MERGE)
        await s.delete_pod("web-0")
        assert await s.is_detached("n1")
        await s.pod("web-1", "n2")
        assert await s.is_attached("n2")


async def test_a_silent_node_loses_them_after_six_minutes() -> None:
    async with site(scale=300.0) as s:
        await s.pod("web-0", "n1")
        assert await s.is_attached("n1")
        await s.mounts("n1", UNIQUE)
        s.cluster.alive.discard("n1")
        began = s.cluster.clock.monotonic()
        unknown = {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]}
        await s.client.patch(core_v1.Node, "n1", {"status": unknown}, type=PatchType.STRATEGIC, subresource="status")
        await s.delete_pod("web-0")
        assert await s.is_detached("n1")
        assert s.cluster.clock.monotonic() - began >= 360


async def test_an_attacher_that_fails_is_heard_and_tried_again() -> None:
    async with site() as s:
        s.attacher.error = "rpc error: code = Internal desc = no such disk"
        await s.pod("web-0", "n1")
        told = await v.told(s.cluster, "Pod", "web-0", "FailedAttachVolume")
        assert told == ("Warning", f'AttachVolume.Attach failed for volume "pv-1" : {s.attacher.error}')
        s.attacher.error = ""
        assert await s.is_attached("n1")


async def test_an_attacher_that_says_nothing_is_complained_of() -> None:
    async with site(scale=300.0) as s:
        s.attacher.idle = True
        await s.pod("web-0", "n1")
        told = await v.told(s.cluster, "Pod", "web-0", "FailedAttachVolume")
        slow = f"timed out waiting for external-attacher of {DRIVER} CSI driver to attach volume {HANDLE}"
        assert told == ("Warning", f'AttachVolume.Attach failed for volume "pv-1" : {slow}')


async def test_drivers_that_need_no_attaching_get_none() -> None:
    async with site(attachRequired=False) as s:
        await s.pod("web-0", "n1")

        async def runs() -> bool:
            return bool((await s.client.get(v.PODS, "web-0", v.NS))["status"]["phase"] == "Running")

        assert await eventually(runs, "pod running")
        assert not (await s.client.list(storage_v1.VolumeAttachment)).items


async def test_what_others_attach_by_hand_is_left_alone() -> None:
    async with site() as s:
        spec = {"attacher": DRIVER, "nodeName": "n2", "source": {"persistentVolumeName": "pv-1"}}
        meta = {"name": "by-hand"}
        made = {"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": meta, "spec": spec}
        await s.client.create(made)
        await s.pod("web-0", "n1")
        assert await s.is_attached("n1")
        await s.delete_pod("web-0")
        assert await s.is_detached("n1")
        kept = await s.client.get(resources.of(storage_v1.VolumeAttachment), "by-hand")
        assert kept["metadata"].get("deletionTimestamp") is None


@pytest.mark.parametrize("wanted", [True, False], ids=["wanted", "unwanted"])
async def test_a_controller_that_starts_anew_goes_on_where_it_finds_things(wanted: bool) -> None:
    async with site() as s:
        stray = {"status": {"volumesAttached": [{"name": "kubernetes.io/csi/gone^x", "devicePath": ""}]}}
        await s.client.patch(core_v1.Node, "n1", stray, type=PatchType.MERGE, subresource="status")
        spec = {"attacher": DRIVER, "nodeName": "n1", "source": {"persistentVolumeName": "pv-1"}}
        meta = {"name": names.attachment_name(DRIVER, HANDLE, "n1")}
        if wanted:
            await s.pod("web-0", "n1")
        made = {"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": meta, "spec": spec}
        with contextlib.suppress(StatusError):  # ours may have come first
            await s.client.create(made)
        assert await (s.is_attached("n1") if wanted else s.is_detached("n1"))
