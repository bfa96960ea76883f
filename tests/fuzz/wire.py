"""Requests over sockets: bytes out, the answer in, each within a deadline. Keeps connections where the server does."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from tests.fuzz.inputs import Wanted

DEADLINE = 20.0  # seconds for one answer; what takes longer hangs
WATCHED = 0.3  # seconds for which a watch is read
BODY_LIMIT = 64 * 1024 * 1024


@dataclass(frozen=True)
class Answer:
    """`code` 0: the server closed the connection without an answer."""

    code: int
    headers: dict[str, str]
    body: bytes


class Wire:
    """One connection at a time to a plain HTTP port."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._address = (host, port)
        self._token = token
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, wanted: Wanted) -> Answer:
        """Raises TimeoutError when no answer comes in time, ValueError on an answer that is no HTTP."""
        async with asyncio.timeout(DEADLINE):
            fresh = self._streams is None
            try:
                return await self._exchange(wanted)
            except (ConnectionError, asyncio.IncompleteReadError):
                self.close()
                if fresh:
                    return Answer(0, {}, b"")
            try:  # the server may have closed a kept connection just then
                return await self._exchange(wanted)
            except (ConnectionError, asyncio.IncompleteReadError):
                self.close()
                return Answer(0, {}, b"")

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    def _bytes(self, wanted: Wanted) -> bytes:
        if wanted.raw:
            return wanted.raw
        headers = [("host", "localhost"), ("authorization", f"Bearer {self._token}"), *wanted.headers]
        if wanted.body or wanted.method in ("POST", "PUT", "PATCH"):
            headers += [("content-length", str(len(wanted.body))), ("content-type", wanted.content_type)]
        lines = [f"{wanted.method} {wanted.path} HTTP/1.1", *(f"{key}: {value}" for key, value in headers), "", ""]
        return "\r\n".join(lines).encode("latin-1", "replace") + wanted.body

    async def _exchange(self, wanted: Wanted) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address, limit=1 << 20)
        reader, writer = self._streams
        writer.write(self._bytes(wanted))
        if wanted.raw:
            writer.write_eof()
        try:
            answer = await self._read(reader, wanted)
        except ConnectionError:
            self.close()
            raise
        if wanted.raw or wanted.watch or answer.headers.get("connection", "").lower() == "close":
            self.close()
        return answer

    async def _read(self, reader: asyncio.StreamReader, wanted: Wanted) -> Answer:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        code = int(head[0].split(" ")[1])
        headers = {}
        for line in filter(None, head[1:]):
            key, _, value = line.partition(":")
            headers[key.lower()] = value.strip()
        if wanted.method == "HEAD" or code in (204, 304):
            return Answer(code, headers, b"")
        if "content-length" in headers:
            return Answer(code, headers, await reader.readexactly(min(int(headers["content-length"]), BODY_LIMIT)))
        if headers.get("transfer-encoding") != "chunked":
            return Answer(code, headers, await reader.read(BODY_LIMIT))
        parts: list[bytes] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WATCHED if wanted.watch else None):
                while size := int(await reader.readline(), 16):
                    parts.append((await reader.readexactly(size + 2))[:-2])
                await reader.readline()
        return Answer(code, headers, b"".join(parts))
