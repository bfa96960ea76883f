"""The node service of one CSI driver: a channel to its socket, one error type, bounded calls.

Owns the channel. Never decides or retries. Called by `plugins.drivers` and `volumes.csi`; requests are CSI's own
messages, made by `volumes.csi.messages`. Secrets in them are never logged.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from machinery import grpc as transport
from proto.csi.v1 import csi_pb2 as csi

if TYPE_CHECKING:
    import grpc.aio

T = TypeVar("T")
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

    async def _ask(self, call: Awaitable[T]) -> T:
        import grpc

        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise CsiError(go_code(error.code().name), error.details() or "") from error

    async def info(self) -> csi.NodeGetInfoResponse:
        answer: csi.NodeGetInfoResponse = await self._ask(
            self._node.NodeGetInfo(csi.NodeGetInfoRequest(), timeout=CALL_SECONDS)
        )
        return answer

    async def abilities(self) -> frozenset[str]:
        """The capabilities of the node service by name."""
        answer: csi.NodeGetCapabilitiesResponse = await self._ask(
            self._node.NodeGetCapabilities(csi.NodeGetCapabilitiesRequest(), timeout=CALL_SECONDS)
        )
        kinds = csi.NodeServiceCapability.RPC.Type
        known = set(kinds.values())
        return frozenset(kinds.Name(each.rpc.type) for each in answer.capabilities if each.rpc.type in known)

    async def stage(self, request: csi.NodeStageVolumeRequest) -> None:
        await self._ask(self._node.NodeStageVolume(request, timeout=CALL_SECONDS))

    async def unstage(self, handle: str, path: str) -> None:
        request = csi.NodeUnstageVolumeRequest(volume_id=handle, staging_target_path=path)
        await self._ask(self._node.NodeUnstageVolume(request, timeout=CALL_SECONDS))

    async def publish(self, request: csi.NodePublishVolumeRequest) -> None:
        await self._ask(self._node.NodePublishVolume(request, timeout=CALL_SECONDS))

    async def unpublish(self, handle: str, path: str) -> None:
        request = csi.NodeUnpublishVolumeRequest(volume_id=handle, target_path=path)
        await self._ask(self._node.NodeUnpublishVolume(request, timeout=CALL_SECONDS))

    async def expand(self, request: csi.NodeExpandVolumeRequest) -> int:
        """The size in bytes that the driver tells, 0 when it tells none."""
        answer: csi.NodeExpandVolumeResponse = await self._ask(
            self._node.NodeExpandVolume(request, timeout=CALL_SECONDS)
        )
        return answer.capacity_bytes
