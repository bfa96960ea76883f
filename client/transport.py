"""The wire edge of the client: one method per RPC, protobuf messages in and out, StatusErrors raised.

Owns: the Transport protocol (what a fake must offer) and its gRPC implementation. Never: decodes objects, retries.
Used by client.client only. Errors: every failure is a machinery.errors.StatusError; ServiceUnavailable means that
nothing answered and the call may be repeated.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol, TypeVar

from client.session import Session
from machinery.errors import StatusError
from proto.api.v1 import resource_pb2 as pb

M = TypeVar("M")

UNARY_TIMEOUT = 30.0
"""Real seconds: a request that takes longer is given up, because a hung server must not hang every reconciler."""


class Transport(Protocol):
    """ResourceService as the client sees it. A watch ends by raising StatusError, or plainly when closed."""

    async def get(self, request: pb.GetRequest) -> pb.Object: ...
    async def list(self, request: pb.ListRequest) -> pb.ListResponse: ...
    async def create(self, request: pb.CreateRequest) -> pb.Object: ...
    async def update(self, request: pb.UpdateRequest) -> pb.Object: ...
    async def patch(self, request: pb.PatchRequest) -> pb.Object: ...
    async def delete(self, request: pb.DeleteRequest) -> pb.DeleteResponse: ...
    async def delete_collection(self, request: pb.DeleteCollectionRequest) -> pb.ListResponse: ...
    def watch(self, request: pb.WatchRequest) -> AsyncIterator[pb.WatchBatch]: ...
    async def close(self) -> None: ...


class GrpcTransport:
    """Transport over one grpc.aio channel: calls about single objects share a stream, the others have their own."""

    def __init__(self, channel: Any) -> None:
        from proto.api.v1 import resource_pb2_grpc

        self._channel = channel
        self._stub: Any = resource_pb2_grpc.ResourceServiceStub(channel)
        self._session = Session(self._stub.Session, UNARY_TIMEOUT)

    async def get(self, request: pb.GetRequest) -> pb.Object:
        return (await self._session.call(pb.Call(get=request))).object

    async def list(self, request: pb.ListRequest) -> pb.ListResponse:
        return await _unary(self._stub.List, request, pb.ListResponse)

    async def create(self, request: pb.CreateRequest) -> pb.Object:
        return (await self._session.call(pb.Call(create=request))).object

    async def update(self, request: pb.UpdateRequest) -> pb.Object:
        return (await self._session.call(pb.Call(update=request))).object

    async def patch(self, request: pb.PatchRequest) -> pb.Object:
        return (await self._session.call(pb.Call(patch=request))).object

    async def delete(self, request: pb.DeleteRequest) -> pb.DeleteResponse:
        return (await self._session.call(pb.Call(delete=request))).deleted

    async def delete_collection(self, request: pb.DeleteCollectionRequest) -> pb.ListResponse:
        return await _unary(self._stub.DeleteCollection, request, pb.ListResponse)

    async def watch(self, request: pb.WatchRequest) -> AsyncIterator[pb.WatchBatch]:
        import grpc

        call = self._stub.Watch(request)
        try:
            async for batch in call:
                yield batch
        except grpc.RpcError as error:
            raise _status(error) from error
        finally:
            call.cancel()

    async def close(self) -> None:
        await self._session.close()
        await self._channel.close()


async def _unary(method: Any, request: Any, _answer: type[M]) -> M:
    import grpc

    try:
        received: M = await method(request, timeout=UNARY_TIMEOUT)
        return received
    except grpc.RpcError as error:
        raise _status(error) from error


def _status(error: Any) -> StatusError:
    from machinery import grpc as machinery_grpc

    status: StatusError = machinery_grpc.status_of(error)
    return status
