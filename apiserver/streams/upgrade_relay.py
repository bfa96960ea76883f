"""A request that leaves HTTP, passed on to a backend: its bytes cross in both directions after the backend's 101.

Owns: the backend's connection of one upgraded request, and its answer when it refuses. Never knows what the bytes mean.
Called by `streams.proxy` and `aggregation.proxy`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Protocol

import h11

from apiserver.rest.bodies import ClientGone
from apiserver.rest.request import Request
from apiserver.rest.responses import Header, send_bytes
from apiserver.streams.http_relay import CHUNK, MAX_HEAD, Exchange, dial
from apiserver.streams.proxy_targets import unreachable

MAX_REFUSAL = 1 << 20
REFUSAL_SECONDS = 30.0  # real: the backend has to answer the upgrade by then
_OWN = (b"connection", b"upgrade", b"content-length", b"transfer-encoding")


class Tunnel(Protocol):
    """`rest.upgrade.Tunnel`."""

    def accept(self, extra: list[Header]) -> None: ...
    async def read(self) -> bytes: ...
    async def write(self, data: bytes) -> None: ...
    async def close(self) -> None: ...


async def relay_upgrade(request: Request, exchange: Exchange, tunnel: Tunnel, upgrade: bytes) -> None:
    """Raises StatusError before anything is answered, or ClientGone."""
    reader, writer = await dial(exchange)
    try:
        asking = [*exchange.headers, (b"connection", b"Upgrade"), (b"upgrade", upgrade)]
        lines = [f"{request.method} {exchange.target} HTTP/1.1\r\n".encode("latin-1")]
        lines += [name + b": " + value + b"\r\n" for name, value in asking]
        writer.write(b"".join((*lines, b"\r\n")))
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        http.send(h11.Request(method=request.method, target=exchange.target, headers=asking))
        http.send(h11.EndOfMessage())
        try:
            async with asyncio.timeout(REFUSAL_SECONDS):
                answer = await _head(http, reader)
                switched = isinstance(answer, h11.InformationalResponse)
                body = b"" if switched else b"".join([part async for part in _body(http, reader)])
        except (h11.ProtocolError, OSError) as error:
            raise unreachable(str(error) or "EOF") from error
        headers = exchange.answer(list(answer.headers.raw_items()))
        if not switched:
            kept = [(name, value) for name, value in headers if name.lower() not in _OWN]
            await send_bytes(request, answer.status_code, body, content_type=b"", extra=kept)
            return
        request.code = 101
        tunnel.accept([(name, value) for name, value in headers if name.lower() not in _OWN])
        rest, _ = http.trailing_data
        with contextlib.suppress(ClientGone, OSError):
            await _carry(reader, writer, tunnel, rest)
        await tunnel.close()
    finally:
        if not writer.is_closing():
            writer.transport.abort()


async def _head(http: h11.Connection, reader: asyncio.StreamReader) -> h11.Response | h11.InformationalResponse:
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(CHUNK))
        elif isinstance(event, h11.Response):
            return event
        elif isinstance(event, h11.InformationalResponse):
            if event.status_code == 101:
                return event
        else:
            raise ConnectionResetError("EOF")


async def _body(http: h11.Connection, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    left = MAX_REFUSAL
    while left > 0:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(CHUNK))
        elif isinstance(event, h11.Data):
            left -= len(event.data)
            yield bytes(event.data)
        else:
            return


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tunnel: Tunnel, first: bytes) -> None:
    """Until either side has ended."""

    async def down() -> None:
        if first:
            await tunnel.write(first)
        while data := await reader.read(CHUNK):
            await tunnel.write(data)

    async def up() -> None:
        while data := await tunnel.read():
            writer.write(data)
            await writer.drain()

    tasks = {asyncio.ensure_future(down()), asyncio.ensure_future(up())}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
