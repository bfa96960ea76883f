"""A connection that leaves HTTP: after the 101 its bytes belong to a stream.

Owns: taking the transport over from uvicorn's HTTP protocol, the 101 itself, and back-pressure both ways. Never knows
what the bytes mean. Made by `rest.server` for requests that ask for a known protocol; a request that is refused is
answered as any other, and its connection closed. WebSockets do not come this way, uvicorn has them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from apiserver.rest.bodies import ClientGone
from apiserver.rest.responses import Header

HIGH_WATER = 256 * 1024  # bytes that wait for the stream's reader


class Tunnel(asyncio.Protocol):
    """The transport of one upgraded request, as a pipe of bytes."""

    def __init__(self, http: HttpToolsProtocol, upgrade: bytes) -> None:
        self._http = http
        self._cycle: RequestResponseCycle = http.cycle
        self._flow: FlowControl = http.flow
        self._transport = http.transport
        self._upgrade = upgrade
        self._received: deque[bytes] = deque()
        self._waiting = 0
        self._ended = False
        self._changed = asyncio.Event()
        self._accepted = False
        self._cycle.keep_alive = False  # a refusal ends the connection: nobody parses what comes after it

    # Called by the stream.

    def accept(self, extra: Iterable[Header] = ()) -> None:
        """Answer 101."""
        cycle = self._cycle
        self._accepted = cycle.response_started = True
        lines = [b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: ", self._upgrade, b"\r\n"]
        for name, value in extra:
            lines += (name, b": ", value, b"\r\n")
        self._transport.write(b"".join((*lines, b"\r\n")))

    async def read(self) -> bytes:
        """Some bytes; b"" at the end."""
        while not self._received:
            if self._ended:
                return b""
            self._changed.clear()
            await self._changed.wait()
        data = self._received.popleft()
        self._waiting -= len(data)
        if self._waiting <= HIGH_WATER:
            self._flow.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """Raises ClientGone."""
        if self._ended or self._transport.is_closing():
            raise ClientGone
        self._transport.write(data)
        if self._flow.write_paused:
            await self._flow.drain()

    async def close(self) -> None:
        """End the connection, once all is written, if it was taken over."""
        if self._accepted:
            self._cycle.response_complete = True
            self._transport.close()
            self.end()

    def end(self) -> None:
        """The reader sees the end."""
        self._ended = True
        self._changed.set()

    # Called by the event loop.

    def data_received(self, data: bytes) -> None:
        self._received.append(data)
        self._waiting += len(data)
        if self._waiting > HIGH_WATER:
            self._flow.pause_reading()
        self._changed.set()

    def eof_received(self) -> None:
        self.end()

    def connection_lost(self, exc: Exception | None) -> None:
        self.end()
        self._http.connection_lost(exc)

    def pause_writing(self) -> None:
        self._flow.pause_writing()

    def resume_writing(self) -> None:
        self._flow.resume_writing()
