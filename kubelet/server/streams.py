"""Exec, attach and port-forward: between KubeletService messages and the runtime's WebSocket streams.

The runtime answers a CRI Exec or Attach with a URL for one WebSocket; binary frames carry a channel number first
(v5.channel.k8s.io). `websockets` is imported with the first stream. Called by `server.service`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from machinery.errors import BadRequest, InternalError
from proto.kubelet.v1 import kubelet_pb2 as pb

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
SUBPROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
CONNECT_SECONDS = 10.0
MAX_FRAME = 4 * 1024 * 1024

Opened = Callable[[], Awaitable[None]]  # tells the caller that the stream stands, before there is anything to say


async def connect(url: str) -> Any:
    """The WebSocket behind a URL of the runtime. Raises InternalError."""
    from websockets.asyncio.client import connect as dial
    from websockets.exceptions import WebSocketException
    from websockets.typing import Subprotocol

    if not url:
        raise InternalError.of("the runtime offers no streams")
    target = url.replace("http://", "ws://", 1).replace("https://", "wss://", 1)
    try:
        return await dial(
            target,
            subprotocols=[Subprotocol(name) for name in SUBPROTOCOLS],
            compression=None,
            max_size=MAX_FRAME,
            open_timeout=CONNECT_SECONDS,
            ping_interval=None,
            proxy=None,
        )
    except (OSError, TimeoutError, WebSocketException) as error:
        raise InternalError.of(f"cannot open stream to the runtime: {error}") from error


async def relay(url: str, inputs: AsyncIterator[pb.StreamInput], opened: Opened) -> AsyncIterator[pb.StreamOutput]:
    """Carry a session until the runtime ends it with a Status."""
    from websockets.exceptions import ConnectionClosed

    socket = await connect(url)
    feeder = asyncio.ensure_future(_feed(socket, inputs))
    ended = False
    try:
        await opened()
        while not ended:
            try:
                frame = await socket.recv()
            except ConnectionClosed as error:
                yield _failure(f"stream ended without a status: {error}")
                return
            if isinstance(frame, str) or not frame:
                continue
            channel, data = frame[0], frame[1:]
            if channel == STDOUT and data:
                yield pb.StreamOutput(stdout=data)
            elif channel == STDERR and data:
                yield pb.StreamOutput(stderr=data)
            elif channel == ERROR and data:
                yield pb.StreamOutput(status_json=data)
                ended = True
    finally:
        feeder.cancel()
        await asyncio.gather(feeder, return_exceptions=True)
        await socket.close()


async def _feed(socket: Any, inputs: AsyncIterator[pb.StreamInput]) -> None:
    """What the user types, until they stop; the end of the request stream closes standard input."""
    from websockets.exceptions import ConnectionClosed

    can_close = socket.subprotocol == SUBPROTOCOLS[0]
    try:
        async for message in inputs:
            match message.WhichOneof("message"):
                case "stdin":
                    await socket.send(bytes([STDIN]) + message.stdin)
                case "resize":
                    size = {"Width": message.resize.width, "Height": message.resize.height}
                    await socket.send(bytes([RESIZE]) + json.dumps(size).encode())
                case "close_stdin":
                    if can_close:
                        await socket.send(bytes([CLOSE, STDIN]))
        if can_close:
            await socket.send(bytes([CLOSE, STDIN]))
    except ConnectionClosed:
        return


def _failure(message: str) -> pb.StreamOutput:
    return pb.StreamOutput(status_json=json.dumps(InternalError.of(message).to_status()).encode())


async def forward(
    url: str, port: int, pod: str, inputs: AsyncIterator[pb.PortForwardData]
) -> AsyncIterator[pb.PortForwardData]:
    """Carry one forwarded connection: channel 0 is data, 1 is the error; both start with the port."""
    from websockets.exceptions import ConnectionClosed

    socket = await connect(url)

    async def feed() -> None:
        try:
            async for message in inputs:
                kind = message.WhichOneof("message")
                if kind == "data":
                    await socket.send(b"\x00" + message.data)
                elif kind == "half_close":
                    await socket.send(bytes([CLOSE, 0]))
        except ConnectionClosed:
            return

    feeder = asyncio.ensure_future(feed())
    introduced: set[int] = set()
    try:
        while True:
            try:
                frame = await socket.recv()
            except ConnectionClosed:
                return
            if isinstance(frame, str) or not frame:
                continue
            channel, data = frame[0], frame[1:]
            if channel in (0, 1) and channel not in introduced:
                introduced.add(channel)
                if data[:2] == port.to_bytes(2, "little"):
                    data = data[2:]
            if channel == 0 and data:
                yield pb.PortForwardData(data=data)
            elif channel == 1 and data:
                why = data.decode("utf-8", "replace")
                yield pb.PortForwardData(error=f"error forwarding port {port} to pod {pod}, uid : {why}")
            elif channel == CLOSE and data[:1] == b"\x00":
                yield pb.PortForwardData(half_close=True)
    finally:
        feeder.cancel()
        await asyncio.gather(feeder, return_exceptions=True)
        await socket.close()


async def first_of(inputs: AsyncIterator[Any], field: str) -> Any:
    """The opening message of a stream. Raises BadRequest."""
    async for message in inputs:
        if message.WhichOneof("message") == "open":
            return message.open
        break
    raise BadRequest(f"the first message of the stream must be {field}")
