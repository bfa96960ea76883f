"""`pods/portforward`: connections into a pod, each a gRPC stream to its kubelet.

Owns: how clients ask for connections (pairs of SPDY streams, or a WebSocket's channels for ports named in the query)
and the relay of each, with half closes and errors. Called by the REST door.

| upgrade | protocol | used by |
|---|---|---|
| WebSocket | `SPDY/3.1+portforward.k8s.io`: SPDY in its binary messages | kubectl 1.31 and newer |
| SPDY/3.1 | `portforward.k8s.io` | older kubectl |
| WebSocket | `v4.channel.k8s.io`, or none: per port a channel of data and one of errors | clients without SPDY |
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, Protocol

from apiserver.rest import query
from apiserver.rest.bodies import ClientGone
from apiserver.rest.request import Request
from apiserver.streams.duplex import duplex
from apiserver.streams.pipes import WebSocketPipe, accept, upgraded
from apiserver.streams.spdy import PROTOCOL_ERROR, Pipe, SpdyConnection, SpdyStream
from apiserver.streams.targets import Kubelets, failure
from machinery.errors import BadRequest
from machinery.log import kv
from proto.kubelet.v1 import kubelet_pb2 as pb

SPDY_PROTOCOL = "portforward.k8s.io"
TUNNEL_PROTOCOL = f"SPDY/3.1+{SPDY_PROTOCOL}"
CHANNEL_PROTOCOL = "v4.channel.k8s.io"
MAX_PORTS = 64
MAX_PAIRS = 1000

log = logging.getLogger("apiserver.streams")


class End(Protocol):
    """The client's end of one connection."""

    async def read(self) -> bytes:
        """The next bytes; b"" when the client has closed its side. Raises ClientGone."""

    async def write(self, data: bytes) -> None:
        """Raises ClientGone."""

    async def close_write(self) -> None:
        """The pod has closed its side. Raises ClientGone."""

    async def fail(self, why: str) -> None:
        """Tell why there is no connection, or no more. Raises ClientGone."""

    async def close(self) -> None:
        """The connection is over."""


def parse_port(text: str) -> int | None:
    """A TCP port, None for anything else."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        return None
    return int(text) if 0 < int(text) < 65536 else None


def queried_ports(options: query.Query) -> list[int]:
    """The ports named in the query of a WebSocket. Raises BadRequest."""
    found = []
    for text in ",".join(options.get("ports", ())).split(","):
        port = parse_port(text)
        if port is None:
            raise BadRequest(f'query parameter "ports" must be a list of ports, not "{text}"')
        found.append(port)
    if len(found) > MAX_PORTS:
        raise BadRequest(f"at most {MAX_PORTS} ports can be forwarded at once")
    return found


class SpdyEnd:
    """A pair of SPDY streams."""

    def __init__(self, data: SpdyStream, error: SpdyStream) -> None:
        self._data = data
        self._error = error
        error.discard()  # clients close it at once

    async def read(self) -> bytes:
        return await self._data.read()

    async def write(self, data: bytes) -> None:
        await self._data.write(data)

    async def close_write(self) -> None:
        await self._data.close()

    async def fail(self, why: str) -> None:
        await self._error.write(why.encode())

    async def close(self) -> None:
        self._data.discard()
        with contextlib.suppress(ClientGone):
            await self._data.close()
            await self._error.close()


class ChannelEnd:
    """Two channels of a WebSocket; both begin with the port."""

    def __init__(self, socket: WebSocketPipe, number: int, port: int) -> None:
        self._socket = socket
        self._channel = 2 * number
        self._head = port.to_bytes(2, "little")
        self._received: asyncio.Queue[bytes] = asyncio.Queue(8)
        self._over = False

    async def open(self) -> None:
        for channel in (self._channel, self._channel + 1):
            await self._socket.write(bytes([channel]) + self._head)

    async def receives(self, data: bytes) -> None:
        """Called for each message of the data channel; waits for the pod."""
        if not self._over and data:
            await self._received.put(data)

    async def read(self) -> bytes:
        return await self._received.get()

    async def write(self, data: bytes) -> None:
        await self._socket.write(bytes([self._channel]) + data)

    async def close_write(self) -> None:
        return  # this protocol knows no half close

    async def fail(self, why: str) -> None:
        await self._socket.write(bytes([self._channel + 1]) + why.encode())

    async def close(self) -> None:
        self._over = True
        while not self._received.empty():
            self._received.get_nowait()


class Pairs:
    """Brings the two SPDY streams of each connection together by their request's id."""

    def __init__(self) -> None:
        self._waiting: dict[str, SpdyStream] = {}

    def add(self, stream: SpdyStream) -> tuple[int, SpdyStream, SpdyStream] | None:
        """(port, data, error) once a pair is complete. Raises ValueError for a stream that belongs to no pair."""
        kind, port = stream.headers.get("streamtype", ""), parse_port(stream.headers.get("port", ""))
        if kind not in ("data", "error"):
            raise ValueError(f'unknown streamType "{kind}"')
        if port is None:
            raise ValueError("no such port")
        # Old clients open the error stream first and the data stream next, without an id.
        default = stream.number if kind == "error" else stream.number - 2
        request = stream.headers.get("requestid") or str(default)
        other = self._waiting.pop(request, None)
        if other is None:
            if len(self._waiting) >= MAX_PAIRS:
                raise ValueError("too many connections wait for their second stream")
            self._waiting[request] = stream
            return None
        if other.headers.get("streamtype") == kind:
            raise ValueError(f"second {kind} stream of one connection")
        return (port, stream, other) if kind == "data" else (port, other, stream)


class PortForwards:
    """Serves the subresource."""

    def __init__(self, kubelets: Kubelets) -> None:
        self._kubelets = kubelets

    async def serve(self, request: Request) -> None:
        """Raises StatusError before the upgrade is answered."""
        await self._kubelets.admit(request)
        address = await self._kubelets.address(request.namespace, request.info.name)
        if request.scope["type"] != "websocket":
            tunnel, protocol = upgraded(request, (SPDY_PROTOCOL,))
            accept(request, tunnel, protocol)
            await self._serve_spdy(request, address, tunnel)
            return
        offered = list(request.scope.get("subprotocols") or ())
        chosen = next((name for name in (TUNNEL_PROTOCOL, CHANNEL_PROTOCOL) if name in offered), "")
        if offered and not chosen:
            raise BadRequest(f"unable to upgrade: none of the offered sub-protocols {offered} is supported")
        ports = queried_ports(request.query) if chosen != TUNNEL_PROTOCOL else []
        await request.send({"type": "websocket.accept", "subprotocol": chosen or None})
        request.code = 101
        socket = WebSocketPipe(request)
        if ports:
            await self._serve_channels(request, address, socket, ports)
        else:
            await self._serve_spdy(request, address, socket)

    async def _serve_spdy(self, request: Request, address: str, pipe: Pipe) -> None:
        pairs = Pairs()
        async with _Tasks() as tasks:

            def on_stream(stream: SpdyStream) -> None:
                try:
                    pair = pairs.add(stream)
                except ValueError as error:
                    log.info("Refused a stream", extra=kv(pod=request.info.name, error=error))
                    stream.discard()
                    tasks.start(_refuse(stream))
                    return
                if pair is not None:
                    port, data, error_stream = pair
                    tasks.start(self._forward(request, address, port, SpdyEnd(data, error_stream)))

            connection = SpdyConnection(pipe, on_stream)
            try:
                await connection.run()
            finally:
                await pipe.close()

    async def _serve_channels(self, request: Request, address: str, socket: WebSocketPipe, ports: list[int]) -> None:
        ends = [ChannelEnd(socket, number, port) for number, port in enumerate(ports)]
        with contextlib.suppress(ClientGone):
            for end in ends:
                await end.open()
            async with _Tasks() as tasks:
                for end, port in zip(ends, ports, strict=True):
                    tasks.start(self._forward(request, address, port, end))
                reading = tasks.start(_distribute(socket, ends))
                await tasks.wait_others(reading)
        await socket.close()

    async def _forward(self, request: Request, address: str, port: int, end: End) -> None:
        """One connection, until the pod or the client ends it."""
        import grpc

        opening = pb.PortForwardOpen(namespace=request.namespace, pod=request.info.name, port=port)
        call: Any = self._kubelets.stub(address).PortForward()
        try:
            await duplex(call, _inputs(opening, end), _outputs(call, end))
        except ClientGone:
            pass
        except grpc.aio.AioRpcError as error:
            # INTERNAL without words of the kubelet's is a write that met the end of the call.
            if error.code() is not grpc.StatusCode.INTERNAL or error.trailing_metadata():
                with contextlib.suppress(ClientGone):
                    await end.fail(failure(error, address).message)
        finally:
            call.cancel()
            await end.close()


async def _inputs(opening: pb.PortForwardOpen, end: End) -> AsyncGenerator[pb.PortForwardData, None]:
    yield pb.PortForwardData(open=opening)
    while data := await end.read():
        yield pb.PortForwardData(data=data)
    yield pb.PortForwardData(half_close=True)


async def _outputs(call: Any, end: End) -> None:
    async for message in call:
        match message.WhichOneof("message"):
            case "data":
                await end.write(message.data)
            case "half_close":
                await end.close_write()
            case "error":
                await end.fail(message.error)


class _Tasks:
    """Tasks of one client; those still there at the end are cancelled."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> _Tasks:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("Failed to forward", exc_info=task.exception())

    async def wait_others(self, main: asyncio.Task[None]) -> None:
        """Until `main` has ended, or all others have."""
        while not main.done() and self._tasks - {main}:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)


async def _distribute(socket: WebSocketPipe, ends: list[ChannelEnd]) -> None:
    while message := await socket.read():
        number, is_error = divmod(message[0], 2)
        if not is_error and number < len(ends):
            await ends[number].receives(message[1:])


async def _refuse(stream: SpdyStream) -> None:
    with contextlib.suppress(ClientGone):
        await stream.reset(PROTOCOL_ERROR)
