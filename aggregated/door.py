"""HTTPS for the API server: connections, requests and who is at the other end.

Owns: the socket, TLS with an optional client certificate, HTTP/1.1 (only what a read-only API and reviews need) and its
bounds. Never knows what a path means: `Handler` answers. Run by `aggregated.serving`, and for the reviews of webhooks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h11
import msgspec

from machinery.errors import InternalError, StatusError
from machinery.log import kv
from machinery.tls import KeyPair

log = logging.getLogger(__name__)

IDLE_SECONDS = 90.0  # real
HEAD_LIMIT = 64 * 1024
MAX_CONNECTIONS = 512
CHUNK = 64 * 1024
Certificate = Mapping[str, Any]


@dataclass(frozen=True)
class Asked:
    """One request. Header names are lower case; `certificate` is the verified one, as the ssl module tells it.

    `body` is None when it is larger than the door takes.
    """

    method: str
    target: str
    headers: Sequence[tuple[bytes, bytes]]
    certificate: Certificate | None
    body: bytes | None = b""

    def header(self, name: bytes) -> str:
        """The first of that name, or ""."""
        return next((value.decode("latin-1") for key, value in self.headers if key == name), "")


@dataclass(frozen=True)
class Told:
    """One answer."""

    code: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Asked], Awaitable[Told]]


def tls_context(pair: KeyPair, authorities: Sequence[str]) -> ssl.SSLContext:
    """TLS that asks for a client certificate of one of the authorities (PEM)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(pair.cert, pair.key)
    for authority in authorities:
        context.load_verify_locations(cadata=authority)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    return context


def refusal(error: StatusError) -> Told:
    """An error as a Status."""
    return Told(error.code, msgspec.json.encode(error.to_status()))


class Door:
    """Listens, and lets the handler answer. Of bodies, up to `max_body` bytes are kept; by default none is."""

    def __init__(self, handler: Handler, tls: ssl.SSLContext, max_body: int = 0) -> None:
        self._handler = handler
        self._tls = tls
        self._max_body = max_body
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    async def start(self, host: str, port: int) -> None:
        """Raises OSError."""
        self._server = await asyncio.start_server(self._serve, host, port, ssl=self._tls, limit=HEAD_LIMIT)

    async def close(self) -> None:
        """Accept nothing more, and end what is open."""
        if self._server is not None:
            self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if len(self._open) < MAX_CONNECTIONS:
                self._open.add(task)
                certificate = writer.get_extra_info("ssl_object").getpeercert() or None
                await self._converse(reader, writer, certificate)
        except (OSError, ssl.SSLError, TimeoutError, h11.ProtocolError):
            pass  # the client has gone, or speaks something else
        except asyncio.CancelledError:
            pass  # the server stops
        finally:
            self._open.discard(task)
            with contextlib.suppress(OSError):
                writer.close()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, certificate: Certificate | None
    ) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT)
        while True:
            async with asyncio.timeout(IDLE_SECONDS):
                found = await _request(http, reader, self._max_body)
            if found is None:
                return
            request, body = found
            headers = [(name, value) for name, value in request.headers]
            asked = Asked(request.method.decode(), request.target.decode("latin-1"), headers, certificate, body)
            told = await self._answer(asked)
            answering = [
                ("content-type", told.content_type),
                ("content-length", str(len(told.body))),
                ("cache-control", "no-cache, private"),
                *told.headers,
            ]
            parts: list[Any] = [h11.Response(status_code=told.code, headers=answering)]
            if asked.method != "HEAD" and told.body:
                parts.append(h11.Data(data=told.body))
            parts.append(h11.EndOfMessage())
            async with asyncio.timeout(IDLE_SECONDS):
                for part in parts:
                    writer.write(http.send(part) or b"")
                await writer.drain()
            if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
                return
            http.start_next_cycle()

    async def _answer(self, asked: Asked) -> Told:
        try:
            return await self._handler(asked)
        except StatusError as error:
            return refusal(error)
        except Exception as error:
            log.exception("Failed a request", extra=kv(method=asked.method, target=asked.target))
            return refusal(InternalError.of(type(error).__name__))


async def _request(
    http: h11.Connection, reader: asyncio.StreamReader, limit: int
) -> tuple[h11.Request, bytes | None] | None:
    """The next request and its body, None when that is larger than the limit; None at the end."""
    request: h11.Request | None = None
    body, size = bytearray(), 0
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(CHUNK))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            size += len(event.data)
            if size <= limit:
                body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert request is not None, "a message begins with its head"
            return request, bytes(body) if size <= limit else None
        elif isinstance(event, h11.ConnectionClosed):
            return None
