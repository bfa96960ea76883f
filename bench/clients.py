"""Clients of an API server for measurements: as little of the generator's own as asyncio allows.

Owns connections with a bearer token. A creator keeps one request on its way; a counter counts events without reading
them.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable

from bench.load import Target


class Creator(asyncio.Protocol):
    """One create after the other over one connection; `wanted` gives the next (name, body), or None to stop."""

    def __init__(self, target: Target, path: str, wanted: Callable[[], tuple[str, str] | None]) -> None:
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {target.token}\r\n"
            "Content-Type: application/json\r\n"
        )
        self._wanted = wanted
        self._buffer = b""
        self._name = ""
        self.asked: dict[bytes, float] = {}
        self.acknowledged: dict[bytes, float] = {}
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._next()

    def _next(self) -> None:
        wish = self._wanted()
        if wish is None:
            self.done.set_result(None)
            return
        self._name, body = wish
        self.asked[self._name.encode()] = time.monotonic()
        self._transport.write(f"{self._head}Content-Length: {len(body)}\r\n\r\n{body}".encode())  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        now, buffer = time.monotonic(), self._buffer + data
        end = buffer.find(b"\r\n\r\n")
        at = buffer.find(b"content-length: ")
        if end < 0 or len(buffer) < end + 4 + int(buffer[at + 16 : buffer.find(b"\r", at)]):
            self._buffer = buffer
            return
        self._buffer = b""
        if not buffer.startswith(b"HTTP/1.1 201"):
            self.done.set_exception(RuntimeError(buffer.decode()))
            return
        self.acknowledged[self._name.encode()] = now
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError("the API server closed the connection"))


class Counter(asyncio.Protocol):
    """A watch whose events are counted as they come, by a text that each has once; `reached` waits for a number."""

    def __init__(self, target: Target, path: str, mark: bytes, accept: str = "application/json") -> None:
        common = f"Host: localhost\r\nAuthorization: Bearer {target.token}\r\nAccept: {accept}\r\n\r\n"
        self._head = f"GET {path} HTTP/1.1\r\n{common}"
        self._mark = mark
        self._tail = b""
        self._goal = 0
        self._arrived = asyncio.get_running_loop().create_future()
        self.count = 0
        self.last = 0.0
        self.ready = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self._head.encode())  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if not self.ready.done():
            self.ready.set_result(None)
        text = self._tail + data
        self._tail = text[-len(self._mark) + 1 :]
        found = text.count(self._mark)
        if found:
            self.count += found
            self.last = time.monotonic()
            if self._goal and self.count >= self._goal and not self._arrived.done():
                self._arrived.set_result(None)

    async def reached(self, goal: int, seconds: float) -> float:
        """The time at which so many events had come. Raises TimeoutError."""
        self._goal = goal
        if self.count < goal:
            async with asyncio.timeout(seconds):
                await self._arrived
        return self.last


async def opened(target: Target, protocol: asyncio.Protocol) -> asyncio.BaseTransport:
    """Connect a client."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(lambda: protocol, "127.0.0.1", target.port, ssl=context)
    return transport
