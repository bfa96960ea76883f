"""The node service of one CSI driver: a channel to its socket, one error type, bounded calls.

Owns the channel. Never decides or retries. Called by `plugins.drivers` and `volumes.csi`; requests are CSI's own
messages, made by `volumes.csi.messages`. Secrets in them are never logged.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from machinery import grpc as transport
from proto.csi.v1 import csi_pb2 as csi

if TYPE_CHECKING:
    import grpc.aio

CALL_SECONDS: Final = 120.0
"""Real seconds, upstream's csiTimeout."""
_NAMES: Final = {"CANCELLED": "Canceled", "OK": "OK"}
UNCERTAIN: Final = frozenset({"Canceled", "DeadlineExceeded", "Unavailable", "ResourceExhausted", "Aborted"})
"""Codes after which the driver may still be at work."""


class CsiError(Exception):
    """A call that failed; `code` as Go's gRPC writes it. The text is what Kubernetes shows."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"rpc error: code = {code} desc = {message}")
        self.code = code
        self.message = message


def go_code(name: str) -> str:
    """`DEADLINE_EXCEEDED` as Go writes it: DeadlineExceeded."""
    return _NAMES.get(name) or "".join(word.capitalize() for word in name.split("_"))


def socket_target(endpoint: str) -> str:
    """A gRPC target of what a plugin calls its endpoint: a path, or a unix: URL."""
    path = endpoint.removeprefix("unix://") if endpoint.startswith("unix://") else endpoint.removeprefix("unix:")
    return f"unix:{path}"


class CsiClient:
    """One registered driver's node service."""

    def __init__(self, endpoint: str) -> None:
        from proto.csi.v1 import csi_pb2_grpc as stubs

        self._channel: grpc.aio.Channel = transport.channel(socket_target(endpoint))
        self._node: Any = stubs.NodeStub(self._channel)

    async def close(self) -> None:
        await self._channel.close()

    async def _ask(self, method: str, request: Any) -> Any:
        import grpc

        try:
            return await getattr(self._node, method)(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise CsiError(go_code(error.code().name), error.details() or "") from error
        except grpc.aio.UsageError as error:  # the driver has left
            raise CsiError("Unavailable", str(error)) from error
        except asyncio.CancelledError:
            # Closing the channel of a driver that leaves looks like the caller's end: only the second may end it.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise CsiError("Canceled", "the driver has left") from None

    async def info(self) -> csi.NodeGetInfoResponse:
        answer: csi.NodeGetInfoResponse = await self._ask("NodeGetInfo", csi.NodeGetInfoRequest())
        return answer

    async def abilities(self) -> frozenset[str]:
        """The capabilities of the node service by name."""
        answer: csi.NodeGetCapabilitiesResponse = await self._ask(
            "NodeGetCapabilities", csi.NodeGetCapabilitiesRequest()
        )
        kinds = csi.NodeServiceCapability.RPC.Type
        known = set(kinds.values())
        return frozenset(kinds.Name(each.rpc.type) for each in answer.capabilities if each.rpc.type in known)

    async def stage(self, request: csi.NodeStageVolumeRequest) -> None:
        await self._ask("NodeStageVolume", request)

    async def unstage(self, handle: str, path: str) -> None:
        request = csi.NodeUnstageVolumeRequest(volume_id=handle, staging_target_path=path)
        await self._ask("NodeUnstageVolume", request)

    async def publish(self, request: csi.NodePublishVolumeRequest) -> None:
        await self._ask("NodePublishVolume", request)

    async def unpublish(self, handle: str, path: str) -> None:
        request = csi.NodeUnpublishVolumeRequest(volume_id=handle, target_path=path)
        await self._ask("NodeUnpublishVolume", request)

    async def expand(self, request: csi.NodeExpandVolumeRequest) -> int:
        """The size in bytes that the driver tells, 0 when it tells none."""
        answer: csi.NodeExpandVolumeResponse = await self._ask("NodeExpandVolume", request)
        return answer.capacity_bytes
