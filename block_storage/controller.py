"""CSI's Controller service: volumes of the cloud, by name and id, in zones, attached to one machine at a time.

Owns idempotency as the specification wants it: a call that was made before, and whose answer was lost, finds what it
made. Keeps nothing; the cloud remembers. A node's id is its machine's name.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

from block_storage import capabilities as rules
from block_storage.answers import CsiError, call, invalid, required
from block_storage.cloud import Cloud
from machinery.errors import AlreadyExists, Conflict, NotFound
from proto.cloud.v1 import cloud_pb2 as cloud_pb
from proto.csi.v1 import csi_pb2 as pb
from proto.csi.v1 import csi_pb2_grpc

DEFAULT_TYPE: Final = "standard"
TYPE: Final = "type"  # the one parameter that a StorageClass may have
_NAME = re.compile(r"[a-zA-Z0-9]([-._a-zA-Z0-9]{0,126}[a-zA-Z0-9])?")
_Rpc = pb.ControllerServiceCapability.RPC
_CAN: Final = (
    _Rpc.CREATE_DELETE_VOLUME,
    _Rpc.PUBLISH_UNPUBLISH_VOLUME,
    _Rpc.LIST_VOLUMES,
    _Rpc.LIST_VOLUMES_PUBLISHED_NODES,
    _Rpc.EXPAND_VOLUME,
    _Rpc.GET_VOLUME,
    _Rpc.SINGLE_NODE_MULTI_WRITER,
)


def cloud_name(name: str) -> str:
    """What the cloud calls a volume: CSI allows any text, the cloud does not."""
    return name if _NAME.fullmatch(name) else f"csi-{hashlib.sha256(name.encode()).hexdigest()}"


class Controller(csi_pb2_grpc.ControllerServicer):
    """The service; what is not among its capabilities is answered with UNIMPLEMENTED."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    @call
    async def ControllerGetCapabilities(
        self, request: pb.ControllerGetCapabilitiesRequest, context: Any
    ) -> pb.ControllerGetCapabilitiesResponse:
        can = [pb.ControllerServiceCapability(rpc=_Rpc(type=each)) for each in _CAN]
        return pb.ControllerGetCapabilitiesResponse(capabilities=can)

    @call
    async def GetCapacity(self, request: pb.GetCapacityRequest, context: Any) -> pb.GetCapacityResponse:
        raise CsiError("UNIMPLEMENTED", "a cloud does not tell how much it has")

    @call
    async def ControllerModifyVolume(
        self, request: pb.ControllerModifyVolumeRequest, context: Any
    ) -> pb.ControllerModifyVolumeResponse:
        raise CsiError("UNIMPLEMENTED", "volumes cannot be changed but in size")

    # ---- volumes ----

    @call
    async def CreateVolume(self, request: pb.CreateVolumeRequest, context: Any) -> pb.CreateVolumeResponse:
        required(request, "name", "volume_capabilities")
        rules.check(request.volume_capabilities)
        unknown = sorted({*request.parameters, *request.mutable_parameters} - {TYPE})
        if unknown:
            raise invalid(f"parameter {unknown[0]!r} is not known (known: {TYPE})")
        if request.HasField("volume_content_source"):
            raise invalid("volumes with a content source are not supported")
        kind = request.parameters.get(TYPE, DEFAULT_TYPE)
        size = rules.size_for(request.capacity_range, await self._cloud.largest(kind))
        zones = rules.zones(request.accessibility_requirements)
        name = cloud_name(request.name)
        found = await self._cloud.find(name)
        if found is None:
            wanted = cloud_pb.CreateVolumeRequest(name=name, size=size, zone=zones[0] if zones else "", type=kind)
            found = await self._cloud.ask("CreateVolume", wanted)
        elif not rules.has_size(found.size, request.capacity_range) or (zones and found.zone not in zones):
            raise AlreadyExists(f"volume {request.name} already exists with another size or in another zone")
        elif found.type != kind:
            raise AlreadyExists(f"volume {request.name} already exists and is of type {found.type}")
        made = await self._cloud.until(found.id, context, lambda each: each.actual > 0, "available")
        if made is None:
            raise CsiError("ABORTED", f"volume {request.name} was deleted meanwhile")
        return pb.CreateVolumeResponse(volume=_volume(made))

    @call
    async def DeleteVolume(self, request: pb.DeleteVolumeRequest, context: Any) -> pb.DeleteVolumeResponse:
        required(request, "volume_id")
        if await self._known(request.volume_id) is not None:
            try:
                await self._cloud.ask("DeleteVolume", cloud_pb.DeleteVolumeRequest(volume=request.volume_id))
            except NotFound:
                return pb.DeleteVolumeResponse()
            await self._cloud.until(request.volume_id, context, lambda each: False, "gone")
        return pb.DeleteVolumeResponse()

    @call
    async def ControllerExpandVolume(
        self, request: pb.ControllerExpandVolumeRequest, context: Any
    ) -> pb.ControllerExpandVolumeResponse:
        required(request, "volume_id", "capacity_range")
        found = await self._there(request.volume_id)
        if request.HasField("volume_capability"):
            rules.check([request.volume_capability])
        size = rules.size_for(request.capacity_range, await self._cloud.largest(found.type))
        if size > found.size:
            wanted = cloud_pb.ExpandVolumeRequest(volume=found.id, size=size)
            found = await self._cloud.ask("ExpandVolume", wanted)
        grown = await self._cloud.until(found.id, context, lambda each: each.actual >= size, "grown")
        if grown is None:
            raise NotFound(f"volume {request.volume_id} not found")
        is_block = request.volume_capability.WhichOneof("access_type") == "block"
        return pb.ControllerExpandVolumeResponse(capacity_bytes=grown.actual, node_expansion_required=not is_block)

    @call
    async def ValidateVolumeCapabilities(
        self, request: pb.ValidateVolumeCapabilitiesRequest, context: Any
    ) -> pb.ValidateVolumeCapabilitiesResponse:
        required(request, "volume_id", "volume_capabilities")
        await self._there(request.volume_id)
        why = next(filter(None, map(rules.problem, request.volume_capabilities)), "")
        if why:
            return pb.ValidateVolumeCapabilitiesResponse(message=why)
        confirmed = pb.ValidateVolumeCapabilitiesResponse.Confirmed(
            volume_context=request.volume_context,
            volume_capabilities=request.volume_capabilities,
            parameters=request.parameters,
            mutable_parameters=request.mutable_parameters,
        )
        return pb.ValidateVolumeCapabilitiesResponse(confirmed=confirmed)

    @call
    async def ListVolumes(self, request: pb.ListVolumesRequest, context: Any) -> pb.ListVolumesResponse:
        if request.max_entries < 0:
            raise invalid("max_entries must not be negative")
        volumes = sorted(await self._cloud.volumes(), key=lambda each: each.id)
        if request.starting_token:
            if not any(each.id == request.starting_token for each in volumes):
                raise CsiError("ABORTED", f"starting_token {request.starting_token!r} is not valid (any more)")
            volumes = [each for each in volumes if each.id >= request.starting_token]
        page = volumes[: request.max_entries] if request.max_entries else volumes
        entries = []
        for each in page:
            status = pb.ListVolumesResponse.VolumeStatus(published_node_ids=filter(None, [each.instance]))
            entries.append(pb.ListVolumesResponse.Entry(volume=_volume(each), status=status))
        rest = volumes[len(page) :]
        return pb.ListVolumesResponse(entries=entries, next_token=rest[0].id if rest else "")

    @call
    async def ControllerGetVolume(
        self, request: pb.ControllerGetVolumeRequest, context: Any
    ) -> pb.ControllerGetVolumeResponse:
        required(request, "volume_id")
        found = await self._there(request.volume_id)
        status = pb.ControllerGetVolumeResponse.VolumeStatus(published_node_ids=filter(None, [found.instance]))
        return pb.ControllerGetVolumeResponse(volume=_volume(found), status=status)

    # ---- attachments ----

    @call
    async def ControllerPublishVolume(
        self, request: pb.ControllerPublishVolumeRequest, context: Any
    ) -> pb.ControllerPublishVolumeResponse:
        required(request, "volume_id", "node_id", "volume_capability")
        rules.check([request.volume_capability])
        found = await self._there(request.volume_id)
        if found.instance == request.node_id and found.state == "detaching":
            raise CsiError("ABORTED", f"volume {found.id} is still being detached from {found.instance}")
        wanted = cloud_pb.AttachVolumeRequest(volume=found.id, instance=request.node_id)
        await self._cloud.ask("AttachVolume", wanted)
        there = await self._cloud.until(found.id, context, lambda each: each.state != "attaching", "attached")
        if there is None or there.state != "in-use" or there.instance != request.node_id:
            raise CsiError("ABORTED", f"volume {found.id} was taken from {request.node_id} again")
        return pb.ControllerPublishVolumeResponse()

    @call
    async def ControllerUnpublishVolume(
        self, request: pb.ControllerUnpublishVolumeRequest, context: Any
    ) -> pb.ControllerUnpublishVolumeResponse:
        required(request, "volume_id")
        node = request.node_id
        found = await self._known(request.volume_id)
        if found is not None and found.instance and node in ("", found.instance):
            try:
                wanted = cloud_pb.DetachVolumeRequest(volume=found.id, instance=found.instance)
                await self._cloud.ask("DetachVolume", wanted)
            except NotFound:
                return pb.ControllerUnpublishVolumeResponse()
            was = found.instance
            await self._cloud.until(found.id, context, lambda each: each.instance != was, "detached")
        return pb.ControllerUnpublishVolumeResponse()

    async def _known(self, volume_id: str) -> cloud_pb.Volume | None:
        found = await self._cloud.find(volume_id)
        return found if found is not None and found.id == volume_id else None  # the cloud would take a name too

    async def _there(self, volume_id: str) -> cloud_pb.Volume:
        found = await self._known(volume_id)
        if found is None:
            raise NotFound(f"volume {volume_id} not found")
        if found.state == "deleting":
            raise Conflict(f"volume {volume_id} is being deleted")
        return found


def _volume(found: cloud_pb.Volume) -> pb.Volume:
    zone = pb.Topology(segments={rules.ZONE: found.zone})
    return pb.Volume(volume_id=found.id, capacity_bytes=found.actual or found.size, accessible_topology=[zone])
