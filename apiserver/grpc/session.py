"""The Session stream: many calls of one component at once, in few messages.

Owns how many calls of a session are carried out at a time, and the joining of answers that are ready together. What a
call does is the service's. Called by `grpc.service`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from proto.api.v1 import resource_pb2 as pb

CALLS_AT_ONCE = 256
"""Of one session, until their answers have been sent; a caller who sends more, or does not read, waits, as with
HTTP/2's limit of concurrent streams."""
BATCH_BYTES = 1 << 20

Carry = Callable[[pb.Call], Awaitable[pb.Reply]]


class Session:
    """One stream. `run` returns when the caller has ended it or `close` was called."""

    def __init__(self, context: Any, carry: Carry) -> None:
        """`carry` answers every call and raises nothing."""
        self._context = context
        self._carry = carry
        self._room = asyncio.Semaphore(CALLS_AT_ONCE)
        self._calls: set[asyncio.Task[None]] = set()
        self._replies: list[pb.Reply] = []
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._ending = False

    def close(self) -> None:
        """Take no more calls; those under way are answered."""
        self._closing.set()

    async def run(self) -> None:
        """Read, carry out and answer, all at once."""
        reader = asyncio.ensure_future(self._read())
        writer = asyncio.ensure_future(self._write())
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({reader, writer, closing}, return_when=asyncio.FIRST_COMPLETED)
            reader.cancel()
            await asyncio.wait({reader})
            self._ending = True
            self._wake.set()
            await asyncio.wait({writer})
        finally:
            for task in (reader, writer, closing, *self._calls):
                task.cancel()
            await asyncio.gather(reader, writer, closing, *self._calls, return_exceptions=True)

    async def _read(self) -> None:
        import grpc.aio

        while True:
            batch = await self._context.read()
            if batch is grpc.aio.EOF:
                return
            for call in batch.calls:
                await self._room.acquire()
                task = asyncio.create_task(self._answer(call))
                self._calls.add(task)
                task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        if self._ending:
            self._wake.set()

    async def _answer(self, call: pb.Call) -> None:
        reply = await self._carry(call)
        self._replies.append(reply)  # not in one expression: a flush puts another list in place meanwhile
        self._wake.set()

    async def _write(self) -> None:
        """Until the last call is answered after the end, or the caller has gone."""
        while not self._ending or self._calls or self._replies:
            await self._wake.wait()
            self._wake.clear()
            await self._flush()

    async def _flush(self) -> None:
        while self._replies:
            replies, self._replies = self._replies, []
            batch, size = pb.ReplyBatch(), 0
            for reply in replies:
                weight = reply.ByteSize()
                if size and size + weight > BATCH_BYTES:
                    await self._send(batch)
                    batch, size = pb.ReplyBatch(), 0
                batch.replies.append(reply)
                size += weight
            await self._send(batch)

    async def _send(self, batch: pb.ReplyBatch) -> None:
        await self._context.write(batch)
        for _ in batch.replies:
            self._room.release()
