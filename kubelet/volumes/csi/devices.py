"""Volumes on this node, each staged once however many pods use it, and given back when the last of them is gone.

Owns the staging folders, who uses a volume, and the tasks that give volumes back. One operation per volume at a time.
What is staged is noted on disk before the driver is asked, so that a kubelet that comes after one that was killed gives
it back, too. Called by `pod_csi`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from api import attachments as names
from kubelet.backoff import Backoff
from kubelet.plugins.csi_client import CsiError
from kubelet.plugins.drivers import CsiDrivers, Driver, UnknownDriver
from kubelet.volumes.csi import folders as disk
from kubelet.volumes.csi.attachment import Attachments
from kubelet.volumes.csi.folders import Folders, Note
from kubelet.volumes.csi.messages import CsiVolume, capability
from kubelet.volumes.payload import VolumeError
from linux import mount
from machinery import log
from machinery.clock import Clock
from machinery.log import kv
from proto.csi.v1 import csi_pb2 as csi

FIRST_RETRY, LAST_RETRY = 0.5, 122.0  # cluster seconds, upstream's durationBeforeRetry
_log = log.get(__name__)


@dataclass(slots=True)
class Device:
    """One volume here. `staged`: known to be so, by this process."""

    driver: str
    handle: str
    name: str
    block: bool
    attached: bool
    """Whether it is attached to nodes at all."""
    users: set[str] = field(default_factory=set)
    staged: bool = False
    leaving: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def unique(self) -> str:
        return names.unique_name(self.driver, self.handle)


class Devices:
    """One per kubelet."""

    def __init__(
        self,
        folders: Folders,
        drivers: CsiDrivers,
        attachments: Attachments,
        clock: Clock,
        node: str,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._folders = folders
        self._drivers = drivers
        self._attachments = attachments
        self._clock = clock
        self._node = node
        self._tasks = tasks
        self._devices: dict[str, Device] = {}

    def __len__(self) -> int:
        return len(self._devices)

    def recall(self) -> None:
        """Learn from the disk what a former kubelet has left; before the first word about volumes in use."""
        for _, note, block in self._folders.devices():
            name = note.spec_vol_id
            device = Device(note.driver_name, note.volume_handle, name, block, bool(note.attachment_id))
            self._devices[device.unique] = device
            if device.attached:
                self._attachments.hold(device.unique)
        for uid in self._folders.pods():
            for held in self._folders.held(uid):
                if held.note is not None:
                    unique = names.unique_name(held.note.driver_name, held.note.volume_handle)
                    if unique in self._devices:
                        self._devices[unique].users.add(uid)

    def give_back_unused(self) -> None:
        """Start to give back what no pod uses; once the pods of the node are known."""
        for device in self._devices.values():
            self._retire(device)

    async def attach(self, volume: CsiVolume, uid: str, *, attached: bool) -> dict[str, str]:
        """Hold the volume for a pod and wait until it is attached; returns its publish context. Raises VolumeError."""
        device = self._devices.get(volume.unique)
        if device is None:
            device = Device(volume.driver, volume.handle, volume.name, volume.block, attached)
            self._devices[volume.unique] = device
        device.users.add(uid)
        if not attached:
            return {}
        device.attached = True
        self._attachments.hold(volume.unique)
        return await self._attachments.wait(volume.driver, volume.handle, volume.name)

    async def stage(
        self,
        volume: CsiVolume,
        driver: Driver,
        context: Mapping[str, str],
        secrets: Mapping[str, str],
        group: int | None,
    ) -> str:
        """Where the volume is staged, "" for drivers that do not stage. Raises CsiError, OSError."""
        device = self._devices[volume.unique]
        async with device.lock:
            folder = self._folders.device(volume.driver, volume.handle, volume.name, block=volume.block)
            staging = self._folders.staging(volume.driver, volume.handle, volume.name, block=volume.block)
            if not device.staged:
                disk.write(folder, self._note(device))
                if driver.stages:
                    staging.mkdir(parents=True, exist_ok=True, mode=0o750)
                    request = csi.NodeStageVolumeRequest(
                        volume_id=volume.handle,
                        publish_context=context,
                        staging_target_path=str(staging),
                        volume_capability=capability(
                            volume, tells_writers_apart=driver.tells_writers_apart, group=group
                        ),
                        secrets=secrets,
                        volume_context=volume.attributes,
                    )
                    await driver.client.stage(request)
                device.staged = True
            return str(staging) if driver.stages else ""

    def _note(self, device: Device) -> Note:
        attachment = names.attachment_name(device.driver, device.handle, self._node) if device.attached else ""
        return Note(device.driver, device.handle, device.name, self._node, attachment, "Persistent")

    def turn(self, unique: str) -> asyncio.Lock:
        """Whoever asks a driver about a volume takes its turn: drivers refuse what overlaps."""
        device = self._devices.get(unique)
        return device.lock if device is not None else asyncio.Lock()

    def release(self, unique: str, uid: str) -> None:
        """The pod has given the volume back."""
        device = self._devices.get(unique)
        if device is not None:
            device.users.discard(uid)
            self._retire(device)

    def release_all(self, uid: str) -> None:
        """The pod has given back whatever it held."""
        for device in tuple(self._devices.values()):
            if uid in device.users:
                self.release(device.unique, uid)

    def _retire(self, device: Device) -> None:
        if not device.users and not device.leaving:
            device.leaving = True
            self._tasks.create_task(self._leave(device))

    async def _leave(self, device: Device) -> None:
        """Try until the volume is given back, or somebody wants it again."""
        backoff = Backoff(initial=FIRST_RETRY, maximum=LAST_RETRY)
        try:
            while not device.users:
                async with device.lock:
                    if device.users:
                        return
                    try:
                        await self._unstage(device)
                    except (CsiError, UnknownDriver, VolumeError, OSError) as error:
                        _log.warning("Failed to unmount device", extra=kv(volume=device.unique, error=error))
                    else:
                        if not device.users:  # nobody came while the driver was at it
                            del self._devices[device.unique]
                            self._attachments.drop(device.unique)
                        return
                now = self._clock.monotonic()
                backoff.advance(now, now)
                await self._clock.sleep(backoff.delay)
        finally:
            device.leaving = False

    async def _unstage(self, device: Device) -> None:
        folder = self._folders.device(device.driver, device.handle, device.name, block=device.block)
        if disk.read(folder) is None:
            return  # never got that far
        device.staged = False
        driver = self._drivers.get(device.driver)
        staging = self._folders.staging(device.driver, device.handle, device.name, block=device.block)
        if driver.stages:
            await driver.client.unstage(device.handle, str(staging))
            _check_unmounted(staging)
            disk.remove_target(staging)
        disk.remove(folder)
        if device.block:
            _remove_if_empty(folder.parent)
            _remove_if_empty(self._folders.device_target("", device.name))


def _check_unmounted(path: Path) -> None:
    """A driver that says that it is done but is not must not cost anybody's data. Raises VolumeError."""
    if path.exists() and mount.is_mount_point(str(path)):
        raise VolumeError(f"{path} is still a mount point")


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
