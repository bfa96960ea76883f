"""CSI volumes of this node's pods: published for a pod, published anew where the driver wants that, taken back.

Owns the pods' holds on volumes, on disk and in memory; volumes as such are `devices`'. Every step may be repeated: that
is what a kubelet does that comes after one that was killed. Called by PodVolumes.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from api import attachments as names
from api.models import core_v1, storage_v1
from api.volumes import Claim
from kubelet.plugins.csi_client import CsiError
from kubelet.plugins.drivers import CsiDrivers, Driver, UnknownDriver
from kubelet.plugins.limits import Limits, wishes
from kubelet.volumes.csi import folders as disk
from kubelet.volumes.csi.attachment import Attachments
from kubelet.volumes.csi.devices import Devices
from kubelet.volumes.csi.expansion import Expansion
from kubelet.volumes.csi.folders import Folders, Held, Note
from kubelet.volumes.csi.messages import (
    TOKENS,
    CsiVolume,
    capability,
    changes_group,
    mode_problem,
    pod_facts,
)
from kubelet.volumes.csi.secrets import secret_values
from kubelet.volumes.objects import ObjectReader
from kubelet.volumes.ownership import give_to_pod
from kubelet.volumes.payload import VolumeError, VolumeLimit, VolumeWait
from linux import mount
from machinery import log
from machinery.clock import Clock
from machinery.errors import StatusError
from machinery.log import kv
from proto.csi.v1 import csi_pb2 as csi

LOOK_SECONDS: Final = 10.0
"""Cluster seconds between looks whether volumes in use have grown."""
_CSI: Final = "kubernetes.io/csi: "
_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Use:
    """A pod's volume that is in place."""

    pod: core_v1.Pod
    volume: CsiVolume
    claim: str
    """The claim's name, "" for a volume of the pod's own."""
    path: Path
    staging: str
    context: Mapping[str, str]
    republish: bool


class PodCsi:
    """One per kubelet."""

    def __init__(
        self,
        reader: ObjectReader,
        clock: Clock,
        drivers: CsiDrivers,
        devices: Devices,
        attachments: Attachments,
        limits: Limits,
        folders: Folders,
        expansion: Expansion,
        node: str,
    ) -> None:
        self._reader = reader
        self._clock = clock
        self._drivers = drivers
        self._devices = devices
        self._attachments = attachments
        self._limits = limits
        self._folders = folders
        self._expansion = expansion
        self._node = node
        self._uses: dict[tuple[str, str], Use] = {}  # by pod and volume

    async def run(self) -> None:
        """Follow volumes that grow, until cancelled."""
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            async with asyncio.TaskGroup() as looks:
                for use in tuple(self._uses.values()):
                    if use.claim:
                        looks.create_task(self._follow(use))

    async def _follow(self, use: Use) -> None:
        """Side by side with others: a driver that hangs holds up its own volume."""
        try:
            async with self._devices.turn(use.volume.unique):
                await self._expansion.follow(use.pod, use.volume, use.claim, use.path, use.staging)
        except Exception:  # noqa: BLE001  a defect about one volume must not end the kubelet
            _log.exception("Failed to follow a volume", extra=kv(volume=use.volume.unique))

    # ---- set up ----

    async def set_up(self, pod: core_v1.Pod, volume: CsiVolume, claim: Claim | None) -> Path:
        """Publish a volume for a pod; where it is. Raises VolumeError with the whole text (VolumeWait: not yet)."""
        use = await self._begin(pod, volume, claim)
        self._uses[pod.metadata.uid or "", volume.name] = use
        return use.path

    async def refresh(self, pod: core_v1.Pod, name: str) -> None:
        """Publish a volume in place again if its driver wants that. Raises VolumeError."""
        use = self._uses.get((pod.metadata.uid or "", name))
        if use is not None and use.republish:
            driver, its_object = self._driver("MountVolume.SetUp", use.volume), await self._object_of(use.volume)
            await self._publish(pod, use.volume, driver, its_object, use.path, use.staging, use.context)

    async def _begin(self, pod: core_v1.Pod, volume: CsiVolume, claim: Claim | None) -> Use:
        uid, its_object = pod.metadata.uid or "", await self._object_of(volume)
        if problem := mode_problem(volume, its_object):
            raise VolumeError(f'MountVolume.SetUp failed for volume "{volume.name}" : {_CSI}{problem}')
        context: Mapping[str, str] = {}
        staging = ""
        if volume.persistent:
            context = await self._attach(volume, uid, its_object)
            staging = await self._stage(pod, volume, context)
        driver = self._driver("MountVolume.SetUp", volume)
        path = await self._publish(pod, volume, driver, its_object, None, staging, context)
        if claim is not None:
            async with self._devices.turn(volume.unique):
                await self._expansion.catch_up(pod, volume, claim, path, staging)
        republish = its_object is not None and bool(its_object.spec.requiresRepublish)
        name = (claim.metadata.name or "") if claim is not None else ""
        return Use(pod, volume, name, path, staging, context, republish)

    async def _attach(self, volume: CsiVolume, uid: str, its_object: storage_v1.CSIDriver | None) -> Mapping[str, str]:
        try:
            return await self._devices.attach(volume, uid, attached=names.attach_required(its_object))
        except VolumeWait as error:
            if wishes(its_object) is None or not await self._attachments.exhausted(volume.driver, volume.handle):
                raise
            await self._limits.ask(volume.driver)  # so that the scheduler knows before the pod's successor comes
            raise VolumeLimit(
                f"Node has no room for more volumes of driver {volume.driver}: unmounted volumes=[{volume.name}], "
                f"unattached volumes=[{volume.name}], failed to process volumes=[]: context deadline exceeded"
            ) from error

    async def _object_of(self, volume: CsiVolume) -> storage_v1.CSIDriver | None:
        try:
            return await self._reader.csi_driver(volume.driver)
        except StatusError as error:
            raise VolumeError(f'MountVolume.SetUp failed for volume "{volume.name}" : {error.message}') from error

    def _driver(self, step: str, volume: CsiVolume) -> Driver:
        what = {
            "MountVolume.MountDevice": "attacher.MountDevice failed to create newCsiDriverClient",
            "MountVolume.SetUp": "mounter.SetUpAt failed to get CSI client",
        }[step]
        try:
            return self._drivers.get(volume.driver)
        except UnknownDriver as error:
            raise VolumeError(f'{step} failed for volume "{volume.name}" : {_CSI}{what}: {error}') from error

    async def _stage(self, pod: core_v1.Pod, volume: CsiVolume, context: Mapping[str, str]) -> str:
        step = "MapVolume.SetUpDevice" if volume.block else "MountVolume.MountDevice"
        driver = self._driver("MountVolume.MountDevice", volume)
        try:
            secrets = {}
            if driver.stages:
                secrets = await secret_values(self._reader, "NodeStageSecretRef", volume.stage_secret)
            group = _group(pod) if driver.sets_group else None
            return await self._devices.stage(volume, driver, context, secrets, group)
        except (CsiError, OSError, VolumeError) as error:
            raise VolumeError(f'{step} failed for volume "{volume.name}" : {error}') from error

    async def _publish(
        self,
        pod: core_v1.Pod,
        volume: CsiVolume,
        driver: Driver,
        its_object: storage_v1.CSIDriver | None,
        there: Path | None,
        staging: str,
        context: Mapping[str, str],
    ) -> Path:
        """`there`: where it is published already, and is to be again."""
        step = "MapVolume.MapPodDevice" if volume.block else "MountVolume.SetUp"
        try:
            target = there or self._prepare(pod, volume)
            if there is None and not volume.block and mount.is_mount_point(str(target)):
                return target  # by a former kubelet
            own = {} if its_object is None else await self._tokens(pod, its_object)
            request = csi.NodePublishVolumeRequest(
                volume_id=volume.handle,
                publish_context=context,
                staging_target_path=staging,
                target_path=str(target),
                volume_capability=capability(
                    volume,
                    tells_writers_apart=driver.tells_writers_apart,
                    group=_group(pod) if driver.sets_group else None,
                ),
                readonly=volume.read_only,
                secrets=await secret_values(self._reader, "NodePublishSecretRef", volume.publish_secret),
                volume_context={**volume.attributes, **pod_facts(pod, volume, its_object), **own},
            )
            async with self._devices.turn(volume.unique):
                await driver.client.publish(request)
            group = _group(pod)
            if there is None and group is not None and not driver.sets_group and changes_group(volume, its_object):
                await give_to_pod(target, group, _policy(pod))
        except (CsiError, OSError, VolumeError) as error:
            raise VolumeError(f'{step} failed for volume "{volume.name}" : {error}') from error
        return target

    def _prepare(self, pod: core_v1.Pod, volume: CsiVolume) -> Path:
        """Note the hold before the driver is asked; the driver makes the target itself."""
        uid = pod.metadata.uid or ""
        if volume.block:
            target, link = self._folders.device_target(uid, volume.name), self._folders.pod_device(uid, volume.name)
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            link.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            if not link.is_symlink():
                link.symlink_to(target)
            return target
        note = Note(volume.driver, volume.handle, volume.name, self._node, volume_lifecycle_mode=volume.lifecycle)
        disk.write(self._folders.pod(uid, volume.name), note)
        return self._folders.target(uid, volume.name)

    async def _tokens(self, pod: core_v1.Pod, its_object: storage_v1.CSIDriver) -> dict[str, str]:
        """Service account tokens that the driver asks for, as one JSON text."""
        wanted = its_object.spec.tokenRequests or ()
        if not wanted:
            return {}
        tokens: dict[str, dict[str, str]] = {}
        for each in wanted:
            try:
                text, expires = await self._reader.token_until(pod, each.audience, each.expirationSeconds or 3600)
            except StatusError as error:
                raise VolumeError(f"failed to fetch service account tokens: {error.message}") from error
            tokens[each.audience] = {"token": text, "expirationTimestamp": expires}
        return {TOKENS: msgspec.json.encode(tokens).decode()}

    # ---- take back ----

    async def tear_down(self, uid: str) -> None:
        """Take back whatever the pod holds, in memory or on disk. Raises VolumeError: try again."""
        failures: list[str] = []
        for held in self._folders.held(uid):
            try:
                await self._unpublish(held)
            except (CsiError, UnknownDriver, OSError, VolumeError) as error:
                failures.append(f"UnmountVolume.TearDown failed for volume {held.folder.name}: {error}")
                continue
            if held.note is not None:
                self._devices.release(_unique(held.note), uid)
            self._uses.pop((uid, held.folder.name), None)
        if failures:
            raise VolumeError("; ".join(failures))
        self._devices.release_all(uid)

    async def _unpublish(self, held: Held) -> None:
        if held.note is not None:
            driver = self._drivers.get(held.note.driver_name)
            async with self._devices.turn(_unique(held.note)):
                await driver.client.unpublish(held.note.volume_handle, str(held.path))
        if held.path.exists() and mount.is_mount_point(str(held.path)):
            raise VolumeError(f"{held.path} is still a mount point")
        disk.remove_target(held.path)
        if held.folder.is_symlink():
            held.folder.unlink()
        else:
            disk.remove(held.folder)


def _unique(note: Note) -> str:
    return names.unique_name(note.driver_name, note.volume_handle)


def _group(pod: core_v1.Pod) -> int | None:
    context = pod.spec.securityContext
    return context.fsGroup if context is not None else None


def _policy(pod: core_v1.Pod) -> str | None:
    context = pod.spec.securityContext
    return context.fsGroupChangePolicy if context is not None else None
