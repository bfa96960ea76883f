"""CSI's Node service: an attached disk becomes a directory, or a device, for pods of one machine.

Owns the order of things: a disk is staged once per machine and published once per pod. What the machine has is what
its folder of devices shows; a volume that is not attached to it cannot be used, whoever asks. One operation per volume
at a time; a second one is told to come again, as the specification wants it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from block_storage import capabilities as rules
from block_storage import disks
from block_storage.answers import CsiError, call, invalid, required
from linux import loop, mount
from machinery import log
from machinery.log import kv
from proto.csi.v1 import csi_pb2 as pb
from proto.csi.v1 import csi_pb2_grpc

_Rpc = pb.NodeServiceCapability.RPC
_log = log.get(__name__)
_Result = TypeVar("_Result")
_Given = ParamSpec("_Given")
_CAN: Final = (_Rpc.STAGE_UNSTAGE_VOLUME, _Rpc.GET_VOLUME_STATS, _Rpc.EXPAND_VOLUME, _Rpc.SINGLE_NODE_MULTI_WRITER)


@dataclass(frozen=True)
class Settings:
    """A machine: its node's id, its zone, how many disks it can have, where they appear; the usual file system."""

    node_id: str
    zone: str
    max_volumes: int
    devices: Path
    filesystem: str = "ext4"


class Node(csi_pb2_grpc.NodeServicer):
    """The service of one machine."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._busy: set[str] = set()

    @call
    async def NodeGetInfo(self, request: pb.NodeGetInfoRequest, context: Any) -> pb.NodeGetInfoResponse:
        zone = pb.Topology(segments={rules.ZONE: self._settings.zone})
        return pb.NodeGetInfoResponse(
            node_id=self._settings.node_id,
            max_volumes_per_node=self._settings.max_volumes,
            accessible_topology=zone,
        )

    @call
    async def NodeGetCapabilities(
        self, request: pb.NodeGetCapabilitiesRequest, context: Any
    ) -> pb.NodeGetCapabilitiesResponse:
        can = [pb.NodeServiceCapability(rpc=_Rpc(type=each)) for each in _CAN]
        return pb.NodeGetCapabilitiesResponse(capabilities=can)

    # ---- once per machine ----

    @call
    async def NodeStageVolume(self, request: pb.NodeStageVolumeRequest, context: Any) -> pb.NodeStageVolumeResponse:
        required(request, "volume_id", "staging_target_path", "volume_capability")
        rules.check([request.volume_capability])
        await self._alone(request.volume_id, self._stage, request)
        return pb.NodeStageVolumeResponse()

    def _stage(self, request: pb.NodeStageVolumeRequest) -> None:
        disk, target = self._disk(request.volume_id), request.staging_target_path
        if request.volume_capability.WhichOneof("access_type") == "block":
            self._refuse_folder(disk)
            return  # the device itself is published
        read_only = rules.is_read_only(request.volume_capability)
        if self._is_there(disk, target):
            if disks.is_read_only(target) != read_only and not disks.is_folder(disk):
                raise CsiError("ALREADY_EXISTS", f"volume {request.volume_id} is staged at {target} for other use")
            return
        Path(target).mkdir(parents=True, exist_ok=True, mode=0o750)
        if disks.is_folder(disk):
            disks.bind(disk, target, read_only=read_only)
            return
        wanted = request.volume_capability.mount.fs_type or self._settings.filesystem
        present = disks.filesystem(disk)
        if not present:
            disks.make_filesystem(disk, wanted)
        elif present != wanted:
            raise CsiError("FAILED_PRECONDITION", f"volume {request.volume_id} is {present}, not {wanted}")
        options = request.volume_capability.mount.mount_flags
        disks.mount_filesystem(disk, target, wanted, options, read_only=read_only)

    @call
    async def NodeUnstageVolume(
        self, request: pb.NodeUnstageVolumeRequest, context: Any
    ) -> pb.NodeUnstageVolumeResponse:
        required(request, "volume_id", "staging_target_path")
        await self._alone(request.volume_id, disks.unmount, request.staging_target_path)
        return pb.NodeUnstageVolumeResponse()

    # ---- once per pod ----

    @call
    async def NodePublishVolume(
        self, request: pb.NodePublishVolumeRequest, context: Any
    ) -> pb.NodePublishVolumeResponse:
        required(request, "volume_id", "target_path", "volume_capability")
        rules.check([request.volume_capability])
        if not request.staging_target_path:
            raise CsiError("FAILED_PRECONDITION", "staging_target_path is missing in the request")
        await self._alone(request.volume_id, self._publish, request)
        return pb.NodePublishVolumeResponse()

    def _publish(self, request: pb.NodePublishVolumeRequest) -> None:
        disk, target = self._disk(request.volume_id), Path(request.target_path)
        source = request.staging_target_path
        is_block = request.volume_capability.WhichOneof("access_type") == "block"
        if is_block:
            self._refuse_folder(disk)
            source = disk
        elif not mount.is_mount_point(source) or not disks.shows(disk, source):
            raise CsiError("FAILED_PRECONDITION", f"volume {request.volume_id} is not staged at {source}")
        read_only = request.readonly or rules.is_read_only(request.volume_capability)
        if self._is_there(disk, str(target)):
            if not is_block and disks.is_read_only(str(target)) != read_only:
                raise CsiError("ALREADY_EXISTS", f"volume {request.volume_id} is published at {target} for other use")
            return
        if not is_block and not disks.is_folder(disk):
            staged_read_only = rules.is_read_only(request.volume_capability)
            options = request.volume_capability.mount.mount_flags
            disks.grow_idle(disk, source, options, read_only=staged_read_only)
        if is_block:
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            target.touch()
        else:
            target.mkdir(parents=True, exist_ok=True, mode=0o750)
        disks.bind(source, str(target), read_only=read_only)

    @call
    async def NodeUnpublishVolume(
        self, request: pb.NodeUnpublishVolumeRequest, context: Any
    ) -> pb.NodeUnpublishVolumeResponse:
        required(request, "volume_id", "target_path")
        await self._alone(request.volume_id, self._unpublish, Path(request.target_path))
        return pb.NodeUnpublishVolumeResponse()

    @staticmethod
    def _is_there(disk: str, target: str) -> bool:
        """Whether the disk is mounted at a path of its own; what is left there of a disk that was pulled is removed."""
        if not mount.is_mount_point(target):
            return False
        if disks.shows(disk, target):
            return True
        _log.warning("Unmounted what was left of a lost disk", extra=kv(path=target))
        disks.unmount(target)
        return False

    @staticmethod
    def _unpublish(target: Path) -> None:
        disks.unmount(str(target))
        with contextlib.suppress(FileNotFoundError):
            if target.is_dir():
                target.rmdir()  # never what is in it: were it still mounted, that would be the data
            else:
                target.unlink()

    # ---- sizes ----

    @call
    async def NodeGetVolumeStats(
        self, request: pb.NodeGetVolumeStatsRequest, context: Any
    ) -> pb.NodeGetVolumeStatsResponse:
        required(request, "volume_id", "volume_path")
        return await asyncio.to_thread(self._stats, request)

    def _stats(self, request: pb.NodeGetVolumeStatsRequest) -> pb.NodeGetVolumeStatsResponse:
        path, Unit = request.volume_path, pb.VolumeUsage
        disk = self._mounted_disk(request.volume_id, path)
        if Path(path).is_block_device():
            size = pb.VolumeUsage(total=loop.size(disk), unit=Unit.BYTES)
            return pb.NodeGetVolumeStatsResponse(usage=[size])
        units = (Unit.BYTES, Unit.INODES)
        usage = [
            pb.VolumeUsage(available=available, total=total, used=used, unit=unit)
            for unit, (available, total, used) in zip(units, disks.usage(path), strict=True)
        ]
        return pb.NodeGetVolumeStatsResponse(usage=usage)

    @call
    async def NodeExpandVolume(self, request: pb.NodeExpandVolumeRequest, context: Any) -> pb.NodeExpandVolumeResponse:
        required(request, "volume_id", "volume_path")
        size = await self._alone(request.volume_id, self._expand, request)
        return pb.NodeExpandVolumeResponse(capacity_bytes=size)

    def _expand(self, request: pb.NodeExpandVolumeRequest) -> int:
        path = request.volume_path
        disk = self._mounted_disk(request.volume_id, path)
        if disks.is_folder(disk):
            return request.capacity_range.required_bytes
        size = loop.size(disk)
        if size < request.capacity_range.required_bytes:
            raise CsiError("OUT_OF_RANGE", f"the device of volume {request.volume_id} has {size} bytes")
        if not Path(path).is_block_device():
            try:
                disks.grow(disk, path, disks.filesystem(disk))
            except PermissionError as error:
                text = f"volume {request.volume_id} can grow only while it is not mounted here: {error}"
                raise CsiError("FAILED_PRECONDITION", text) from error
        return size

    # ---- what the machine has ----

    def _disk(self, volume: str) -> str:
        """The device or folder of a volume. Raises FAILED_PRECONDITION when it is not attached here."""
        if "/" in volume or "\0" in volume or volume.startswith("."):
            raise invalid(f"{volume!r} is no volume id")
        link = self._settings.devices / volume
        try:
            found = link.resolve(strict=True)
        except OSError as error:
            text = f"volume {volume} is not attached to node {self._settings.node_id}"
            raise CsiError("FAILED_PRECONDITION", text) from error
        return str(found)

    def _mounted_disk(self, volume: str, path: str) -> str:
        """The disk that is to be found at a path. Raises NOT_FOUND."""
        try:
            disk = self._disk(volume)
        except CsiError as error:
            raise CsiError("NOT_FOUND", str(error)) from error
        if not mount.is_mount_point(path) or not disks.shows(disk, path):
            raise CsiError("NOT_FOUND", f"volume {volume} is not at {path}")
        return disk

    @staticmethod
    def _refuse_folder(disk: str) -> None:
        if disks.is_folder(disk):
            raise invalid("this machine has no loop devices, so volumes cannot be used as block devices")

    async def _alone(
        self, volume: str, work: Callable[_Given, _Result], *args: _Given.args, **kwargs: _Given.kwargs
    ) -> _Result:
        """Do it in a thread. The volume's turn ends with the work, which a caller that hangs up does not end."""
        if volume in self._busy:
            raise CsiError("ABORTED", f"an operation on volume {volume} is still going on")
        self._busy.add(volume)
        running = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
        running.add_done_callback(lambda done: self._done(volume, done))
        return await asyncio.shield(running)

    def _done(self, volume: str, work: asyncio.Future[Any]) -> None:
        self._busy.discard(volume)
        if not work.cancelled():
            work.exception()  # told to the caller, if there still is one
