"""Both directions of a call to a kubelet, and the end of one by the other.

Owns: writing what a client sends until the call takes no more, beside the task that reads from the call. Written
message by message and not by an iterator given to gRPC, which forgets such an iterator in the middle of its work when
the call ends. Called by remote sessions and port-forward.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from typing import Any


async def duplex(call: Any, inputs: AsyncGenerator[Any, None], outputs: Coroutine[Any, Any, None]) -> None:
    """Ends with `outputs`, and raises what it raises; earlier only when `inputs` raise (ClientGone)."""
    reading = asyncio.ensure_future(outputs)
    writing = asyncio.ensure_future(_write(call, inputs))
    try:
        await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            writing.result()
        await asyncio.wait({reading})
        reading.result()
    finally:
        for task in (reading, writing):
            task.cancel()
        await asyncio.gather(reading, writing, return_exceptions=True)


async def _write(call: Any, inputs: AsyncGenerator[Any, None]) -> None:
    import grpc

    async with contextlib.aclosing(inputs):
        try:
            async for message in inputs:
                await call.write(message)
        except (grpc.RpcError, asyncio.InvalidStateError):
            return  # the call is over: who reads from it learns why
