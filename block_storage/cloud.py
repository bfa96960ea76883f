"""The cloud as the driver sees it: its own service over gRPC, StatusErrors for refusals.

Owns the channel and the waiting for what the cloud only begins.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from block_storage.answers import CsiError
from machinery import grpc as transport
from machinery.errors import NotFound
from proto.cloud.v1 import cloud_pb2 as pb

TIMEOUT: Final = 10.0  # real seconds for an answer
PATIENCE: Final = 60.0  # real seconds for what is begun to be done, unless the caller's deadline is nearer
MARGIN: Final = 0.5  # before that deadline: to say what is waited for
POLL: Final = 0.05


class Cloud:
    """Orders and questions. Every call raises StatusError."""

    def __init__(self, address: str) -> None:
        self._channel = transport.channel(address)

    async def close(self) -> None:
        await self._channel.close()

    async def ask(self, method: str, request: Any) -> Any:
        import grpc.aio

        from proto.cloud.v1 import cloud_pb2_grpc

        try:
            return await getattr(cloud_pb2_grpc.CloudServiceStub(self._channel), method)(request, timeout=TIMEOUT)
        except grpc.aio.AioRpcError as error:
            raise transport.status_of(error) from error

    async def volumes(self) -> list[pb.Volume]:
        return list((await self.ask("ListVolumes", pb.ListVolumesRequest())).volumes)

    async def find(self, volume: str) -> pb.Volume | None:
        """By id or name."""
        try:
            answer = await self.ask("ListVolumes", pb.ListVolumesRequest(volume=volume))
        except NotFound:
            return None
        found: pb.Volume = answer.volumes[0]
        return found

    async def largest(self, kind: str) -> int:
        """Bytes that a volume of this type may have. Raises INVALID_ARGUMENT for a type that is not."""
        types = (await self.ask("ListTypes", pb.ListTypesRequest())).volume_types
        for each in types:
            if each.name == kind:
                return int(each.max_gib) << 30
        known = ", ".join(each.name for each in types)
        raise CsiError("INVALID_ARGUMENT", f"volume type {kind!r} is not known (known: {known})")

    async def until(
        self, volume: str, context: Any, wanted: Callable[[pb.Volume], bool], what: str
    ) -> pb.Volume | None:
        """The volume when it is as wanted; None when it is gone. Raises DEADLINE_EXCEEDED."""
        left = context.time_remaining()
        deadline = time.monotonic() + (PATIENCE if left is None else min(PATIENCE, max(left - MARGIN, 0.0)))
        while True:
            found = await self.find(volume)
            if found is None or wanted(found):
                return found
            if time.monotonic() >= deadline:
                why = f": {found.message}" if found.message else ""
                raise CsiError("DEADLINE_EXCEEDED", f"volume {volume} is still {found.state}, not yet {what}{why}")
            await asyncio.sleep(POLL)
