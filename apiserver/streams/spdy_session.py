"""Exec and attach for clients that speak SPDY/3.1: one stream each for errors, stdin, stdout, stderr and resizes.

Owns: protocols v2 to v4 of channel.k8s.io (v4 ends with a Status, older ones with text; v2 has no resizes). Made by
`streams.remote`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator

from apiserver.rest.bodies import ClientGone
from apiserver.rest.request import Request
from apiserver.streams.pipes import accept, upgraded
from apiserver.streams.sessions import parse_size
from apiserver.streams.spdy import REFUSED_STREAM, SpdyConnection, SpdyStream
from proto.kubelet.v1 import kubelet_pb2 as pb

V4 = "v4.channel.k8s.io"
PROTOCOLS = (V4, "v3.channel.k8s.io", "v2.channel.k8s.io")
STREAMS_SECONDS = 30.0  # real: for the client to open its streams
LINGER_SECONDS = 5.0  # real: for the client to close; it may drop what it has not handled when we close first
MAX_SIZE_TEXT = 1024


def expected_streams(opening: pb.StreamOpen, protocol: str) -> frozenset[str]:
    """The streams that a client opens for these options."""
    wanted = {
        "error": True,
        "stdin": opening.stdin,
        "stdout": opening.stdout,
        "stderr": opening.stderr,
        "resize": opening.tty and protocol != PROTOCOLS[2],
    }
    return frozenset(name for name, is_wanted in wanted.items() if is_wanted)


def last_words(status_json: bytes, protocol: str) -> bytes:
    """What goes to the error stream at the end."""
    if protocol == V4:
        return status_json
    status = json.loads(status_json)
    return b"" if status.get("status") == "Success" else str(status.get("message", "")).encode()


class SpdySession:
    """Streams of one SPDY connection. The constructor raises BadRequest or Forbidden."""

    def __init__(self, request: Request, opening: pb.StreamOpen) -> None:
        self._request = request
        self._tunnel, self._protocol = upgraded(request, PROTOCOLS)
        self._expected = expected_streams(opening, self._protocol)
        self._streams: dict[str, SpdyStream] = {}
        self._refused: list[SpdyStream] = []
        self._complete = asyncio.Event()
        self._messages: asyncio.Queue[pb.StreamInput | None] = asyncio.Queue(2)
        self._connection = SpdyConnection(self._tunnel, self._on_stream)
        self._running: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def _on_stream(self, stream: SpdyStream) -> None:
        kind = stream.headers.get("streamtype", "")
        if kind not in self._expected or kind in self._streams:
            stream.discard()
            self._tasks.append(asyncio.ensure_future(_refuse(stream)))
            return
        self._streams[kind] = stream
        if len(self._streams) == len(self._expected):
            self._complete.set()

    async def accept(self) -> None:
        accept(self._request, self._tunnel, self._protocol)
        self._running = asyncio.ensure_future(self._run())
        try:
            async with asyncio.timeout(STREAMS_SECONDS):
                await self._complete.wait()
        except TimeoutError as exc:
            raise ClientGone from exc
        if len(self._streams) < len(self._expected):
            raise ClientGone
        for kind, pump in (("stdin", self._pump_stdin), ("resize", self._pump_sizes)):
            if kind in self._streams:
                self._tasks.append(asyncio.ensure_future(pump(self._streams[kind])))

    async def _run(self) -> None:
        await self._connection.run()
        self._complete.set()
        await self._messages.put(None)

    async def _pump_stdin(self, stream: SpdyStream) -> None:
        with contextlib.suppress(ClientGone):
            while data := await stream.read():
                await self._messages.put(pb.StreamInput(stdin=data))
            await self._messages.put(pb.StreamInput(close_stdin=True))

    async def _pump_sizes(self, stream: SpdyStream) -> None:
        text = b""
        with contextlib.suppress(ClientGone):
            while data := await stream.read():
                *documents, text = (text + data).replace(b"}", b"}\n").split(b"\n")
                for document in documents:
                    size = parse_size(document) if document.strip() else None
                    if size is not None:
                        await self._messages.put(size)
                text = text[-MAX_SIZE_TEXT:]

    async def inputs(self) -> AsyncGenerator[pb.StreamInput, None]:
        while (message := await self._messages.get()) is not None:
            yield message
        raise ClientGone

    async def output(self, message: pb.StreamOutput) -> None:
        kind = message.WhichOneof("message")
        if kind == "status_json":
            await self._streams["error"].write(last_words(message.status_json, self._protocol))
            return
        stream = self._streams.get(str(kind))
        if stream is not None:
            await stream.write(message.stdout or message.stderr)

    async def finish(self) -> None:
        with contextlib.suppress(ClientGone):
            for stream in self._streams.values():
                await stream.close()
            await self._connection.go_away()
        if self._running is not None:
            await asyncio.wait({self._running}, timeout=LINGER_SECONDS)

    async def close(self) -> None:
        tasks = [task for task in (*self._tasks, self._running) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._tunnel.close()


async def _refuse(stream: SpdyStream) -> None:
    with contextlib.suppress(ClientGone):
        await stream.reset(REFUSED_STREAM)
