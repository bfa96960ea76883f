"""HTTPS for reviews: POSTs of the API server with bounded bodies, answered by a function.

Owns the socket, TLS and HTTP/1.1. Who asks does not matter: an answer tells nothing but what a pod would be given.
Run by app.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Final

import h11

from machinery import log
from machinery.log import kv
from machinery.tls import KeyPair
from vertical_autoscaler.admission import BadReview

IDLE_SECONDS: Final = 90.0  # real
MAX_BODY: Final = 8 << 20
HEAD_LIMIT: Final = 64 << 10
MAX_CONNECTIONS: Final = 256
CHUNK: Final = 64 << 10
Review = Callable[[bytes], bytes]
_log = log.get(__name__)


class Door:
    """Listens, and lets `review` answer. It raises BadReview for a body that makes no sense."""

    def __init__(self, review: Review, pair: KeyPair) -> None:
        self._review = review
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._tls.load_cert_chain(pair.cert, pair.key)
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
                await self._converse(reader, writer)
        except (OSError, TimeoutError, h11.ProtocolError):
            pass  # the client has gone, or speaks something else
        except asyncio.CancelledError:
            pass  # the server stops
        finally:
            self._open.discard(task)
            with contextlib.suppress(OSError):
                writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT)
        while True:
            async with asyncio.timeout(IDLE_SECONDS):
                asked = await _request(http, reader)
            if asked is None:
                return
            method, body = asked
            code, answer = self._answer(method, body)
            headers = [("content-type", "application/json"), ("content-length", str(len(answer)))]
            parts = (h11.Response(status_code=code, headers=headers), h11.Data(data=answer), h11.EndOfMessage())
            for part in parts:
                writer.write(http.send(part) or b"")
            async with asyncio.timeout(IDLE_SECONDS):
                await writer.drain()
            if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
                return
            http.start_next_cycle()

    def _answer(self, method: bytes, body: bytes | None) -> tuple[int, bytes]:
        if method != b"POST":
            return 405, b"reviews are POSTed\n" if method != b"HEAD" else b""
        if body is None:
            return 413, b"the review is too large\n"
        try:
            return 200, self._review(body)
        except BadReview as error:
            return 400, f"{error}\n".encode()
        except Exception as error:  # noqa: BLE001  logged; the API server goes on without us
            _log.exception("Failed a review", extra=kv(error=error))
            return 500, b"internal error\n"


async def _request(http: h11.Connection, reader: asyncio.StreamReader) -> tuple[bytes, bytes | None] | None:
    """(method, body) of the next request, the body None when too large; None at the end."""
    method, body, size = b"", bytearray(), 0
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(CHUNK))
        elif isinstance(event, h11.Request):
            method = bytes(event.method)
        elif isinstance(event, h11.Data):
            size += len(event.data)
            if size <= MAX_BODY:
                body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return method, bytes(body) if size <= MAX_BODY else None
        elif isinstance(event, h11.ConnectionClosed):
            return None
