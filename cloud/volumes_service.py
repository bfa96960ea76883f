"""The part of CloudService that concerns block volumes, over `cloud.volumes_core`.

Owns the translation between messages and the model. Asked by `./nanokube cloud` and by the block driver. Attaching and
detaching are begun, not awaited: `state` tells how far they are, as in any cloud.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cloud.model import ZONES
from cloud.volumes_engine import VolumeEngine
from cloud.volumes_model import DEFAULT_TYPE, GIB, TYPES, Volume
from machinery import grpc as transport
from machinery.errors import BadRequest, StatusError
from proto.cloud.v1 import cloud_pb2 as pb

NONE = "this cloud has no block volumes (see `nanokube up --block-volumes`)"


class VolumeCalls:
    """The calls; without an engine every order is refused."""

    def __init__(self, volumes: VolumeEngine | None) -> None:
        self._volumes = volumes

    @staticmethod
    def volume_types() -> list[pb.VolumeType]:
        return [pb.VolumeType(name=t.name, price_per_month=t.pricePerMonth, max_gib=t.maxGiB) for t in TYPES.values()]

    async def ListVolumes(self, request: pb.ListVolumesRequest, context: Any) -> pb.ListVolumesResponse:
        engine = self._volumes
        if engine is None:
            return pb.ListVolumesResponse()
        try:
            state = engine.core.state
            found = [engine.core.find(request.volume)] if request.volume else state.volumes.values()
        except StatusError as error:
            await transport.abort(context, error)
        return pb.ListVolumesResponse(volumes=[_message(each, engine.now()) for each in found])

    async def CreateVolume(self, request: pb.CreateVolumeRequest, context: Any) -> pb.Volume:
        zone, kind = request.zone or ZONES[0], request.type or DEFAULT_TYPE

        def create(engine: VolumeEngine) -> Volume:
            return engine.core.create(request.name, request.size, zone, kind, engine.now())

        return await self._order(context, create)

    async def DeleteVolume(self, request: pb.DeleteVolumeRequest, context: Any) -> pb.DeleteVolumeResponse:
        def delete(engine: VolumeEngine) -> Volume:
            volume = engine.core.find(request.volume)
            engine.core.delete(volume)
            return volume

        await self._order(context, delete)
        return pb.DeleteVolumeResponse()

    async def AttachVolume(self, request: pb.AttachVolumeRequest, context: Any) -> pb.Volume:
        def attach(engine: VolumeEngine) -> Volume:
            volume = engine.core.find(request.volume)
            engine.core.attach(volume, request.instance, engine.now())
            return volume

        return await self._order(context, attach)

    async def DetachVolume(self, request: pb.DetachVolumeRequest, context: Any) -> pb.Volume:
        def detach(engine: VolumeEngine) -> Volume:
            volume = engine.core.find(request.volume)
            engine.core.detach(volume, request.instance, engine.now(), force=request.force)
            return volume

        return await self._order(context, detach)

    async def ExpandVolume(self, request: pb.ExpandVolumeRequest, context: Any) -> pb.Volume:
        def expand(engine: VolumeEngine) -> Volume:
            volume = engine.core.find(request.volume)
            engine.core.expand(volume, request.size, engine.now())
            return volume

        return await self._order(context, expand)

    async def InjectVolumeFault(self, request: pb.InjectVolumeFaultRequest, context: Any) -> pb.Volume:
        def inject(engine: VolumeEngine) -> Volume:
            volume = engine.core.find(request.volume)
            engine.core.fail(volume, request.mode)
            return volume

        return await self._order(context, inject)

    async def _order(self, context: Any, act: Callable[[VolumeEngine], Volume]) -> pb.Volume:
        engine = self._volumes
        try:
            if engine is None:
                raise BadRequest(NONE)
            volume = act(engine)
        except StatusError as error:
            await transport.abort(context, error)
        engine.wake()
        return _message(volume, engine.now())


def _message(volume: Volume, now: float) -> pb.Volume:
    there = volume.attachment
    return pb.Volume(
        id=volume.id,
        name=volume.name,
        size=volume.size,
        actual=volume.made,
        zone=volume.zone,
        type=volume.type,
        state=volume.state,
        instance=there.instance if there is not None else "",
        age=now - volume.created,
        price_per_month=volume.size / GIB * TYPES[volume.type].pricePerMonth,
        cost=volume.cost(now),
        fault=volume.fault,
        message=(there.message if there is not None else "") or volume.message,
    )
