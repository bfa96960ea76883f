"""Calls over one stream to the API server: those that are made while others are being sent share a message.

Owns the stream and which calls wait for an answer on it. A broken stream fails the calls that it carried, and the next
call opens another. Used by `client.transport`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from machinery.errors import ServiceUnavailable, StatusError, Timeout
from proto.api.v1 import resource_pb2 as pb

BATCH_CALLS = 128
BATCH_BYTES = 1 << 20


class Session:
    """One per channel; opened by its first call."""

    def __init__(self, open_stream: Callable[[], Any], timeout: float) -> None:
        self._open_stream = open_stream
        self._timeout = timeout
        self._next = 0
        self._waiting: dict[int, asyncio.Future[pb.Reply]] = {}
        self._unsent: list[pb.Call] = []
        self._wake = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None

    async def call(self, call: pb.Call) -> pb.Reply:
        """Send, and wait for the answer. Raises StatusError; ServiceUnavailable when the stream broke."""
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        self._next += 1
        call.id = self._next
        answer: asyncio.Future[pb.Reply] = asyncio.get_running_loop().create_future()
        self._waiting[call.id] = answer
        self._unsent.append(call)
        self._wake.set()
        try:
            async with asyncio.timeout(self._timeout):
                reply = await answer
        except TimeoutError as error:
            raise Timeout("the API server did not answer in time") from error
        finally:
            self._waiting.pop(call.id, None)
        if reply.WhichOneof("answer") == "status_json":
            raise StatusError.from_status(msgspec.json.decode(reply.status_json))
        return reply

    async def close(self) -> None:
        """Give up what waits."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.gather(self._runner, return_exceptions=True)

    async def _run(self) -> None:
        import grpc.aio

        trouble: StatusError = ServiceUnavailable("the API server ended the session")
        try:
            stream = self._open_stream()
        except grpc.aio.UsageError as error:
            self._fail(ServiceUnavailable(f"no session: {error}"))
            return
        sender = asyncio.ensure_future(self._send(stream))
        try:
            async for batch in stream:
                for reply in batch.replies:
                    answer = self._waiting.get(reply.id)
                    if answer is not None and not answer.done():
                        answer.set_result(reply)
        except grpc.aio.AioRpcError as error:
            from machinery import grpc as machinery_grpc

            trouble = machinery_grpc.status_of(error)
        finally:
            sender.cancel()
            stream.cancel()
            self._fail(trouble)

    def _fail(self, trouble: StatusError) -> None:
        self._unsent.clear()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(trouble)

    async def _send(self, stream: Any) -> None:
        import grpc.aio

        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._unsent:
                try:
                    await stream.write(self._batch())
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    return  # whoever reads the stream learns why

    def _batch(self) -> pb.CallBatch:
        """The next calls, as many as one message may hold; those that nobody waits for any more are left out."""
        batch, size, taken = pb.CallBatch(), 0, 0
        for call in self._unsent[:BATCH_CALLS]:
            weight = call.ByteSize()
            if taken and size + weight > BATCH_BYTES:
                break
            taken += 1
            if call.id in self._waiting:
                batch.calls.append(call)
                size += weight
        del self._unsent[:taken]
        return batch
