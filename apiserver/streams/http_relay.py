"""One HTTP/1.1 request passed on to a backend, and its answer passed back, both as they come.

Owns: the connection to the backend (one per request), the framing of both bodies, and the end when either side leaves.
Never chooses the backend nor the headers. Called by `streams.proxy`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httptools

from apiserver.rest.bodies import ClientGone
from apiserver.rest.request import Request
from apiserver.rest.responses import Header
from apiserver.streams.proxy_targets import unreachable
from machinery.errors import StatusError

DIAL_SECONDS = 30.0  # real
CHUNK = 64 * 1024
MAX_HEAD = 256 * 1024


@dataclass(frozen=True)
class Exchange:
    """What is sent where; `answer` turns the backend's headers into the client's."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    target: str
    headers: list[Header]
    answer: Callable[[list[Header]], list[Header]]
    refuse: Callable[[int, list[Header]], None] = lambda code, headers: None  # raises StatusError on a bad answer
    server_name: str | None = None  # what the backend's certificate is checked for, where it is not the host


class _Answer:
    """The backend's answer, parsed piece by piece."""

    def __init__(self, method: str) -> None:
        self._bodiless = method == "HEAD"
        self._parser = httptools.HttpResponseParser(self)
        # as Go's client: programs behind CGI end their header lines with a bare newline
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True)
        self.headers: list[Header] = []
        self.code = 0
        self.begun = self.complete = self.framed = False
        self.body: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Raises HttpParserError."""
        if not self.complete:
            self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.framed = self.framed or name.lower() in (b"content-length", b"transfer-encoding")
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        code = self._parser.get_status_code()
        if code < 200:  # an answer before the answer
            self.headers, self.framed = [], False
            return
        self.code, self.begun = code, True
        if self._bodiless or code in (204, 304):
            self.complete = True

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self.body.append(body)

    def on_message_complete(self) -> None:
        self.complete = self.complete or self.begun


async def relay(request: Request, exchange: Exchange) -> None:
    """Raises StatusError before the first byte of the answer, ClientGone, or OSError when the answer breaks off."""
    reader, writer = await dial(exchange)
    sending = asyncio.ensure_future(_send(request, exchange, writer))
    answering = asyncio.ensure_future(_answer(request, exchange, reader))
    try:
        await asyncio.wait({sending, answering}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done() and isinstance(sending.exception(), ConnectionError):
            # The backend does not want the body; it may have answered all the same.
            await asyncio.wait({answering})
        if not answering.done():
            sending.result()
            raise ClientGone
        answering.result()
    finally:
        for task in (sending, answering):
            task.cancel()
        await asyncio.gather(sending, answering, return_exceptions=True)
        if not writer.is_closing():
            writer.transport.abort()


async def dial(exchange: Exchange) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Raises ServiceUnavailable."""
    where = f"dial tcp {exchange.host}:{exchange.port}"
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            return await asyncio.open_connection(
                exchange.host, exchange.port, ssl=exchange.tls, server_hostname=exchange.server_name
            )
    except TimeoutError as error:
        raise unreachable(f"{where}: i/o timeout") from error
    except ssl.SSLCertVerificationError as error:
        raise unreachable(f"tls: failed to verify certificate: x509: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise unreachable(f"tls: {error.reason or 'handshake failed'}") from error
    except ConnectionRefusedError as error:
        raise unreachable(f"{where}: connect: connection refused") from error
    except OSError as error:
        raise unreachable(f"{where}: connect: {(error.strerror or str(error)).lower()}") from error


async def _send(request: Request, exchange: Exchange, writer: asyncio.StreamWriter) -> None:
    """Head and body; ends when the client has gone."""
    length, chunked = request.headers.get(b"content-length"), b"transfer-encoding" in request.headers
    lines = [f"{request.method} {exchange.target} HTTP/1.1\r\n".encode("latin-1")]
    lines += [name + b": " + value + b"\r\n" for name, value in exchange.headers]
    if chunked:
        lines.append(b"transfer-encoding: chunked\r\n")
    elif length is not None:
        lines.append(b"content-length: " + length + b"\r\n")
    writer.write(b"".join((*lines, b"connection: close\r\n\r\n")))
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            return
        body = message.get("body", b"")
        if body:
            writer.write(b"%x\r\n%b\r\n" % (len(body), body) if chunked else body)
        if chunked and not message.get("more_body"):
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        if not message.get("more_body"):
            break
    while (await request.receive())["type"] != "http.disconnect":
        continue


async def _answer(request: Request, exchange: Exchange, reader: asyncio.StreamReader) -> None:
    answer, seen = _Answer(request.method), 0
    while not answer.complete:
        try:
            data = await reader.read(CHUNK)
            answer.feed(data)
        except (httptools.HttpParserError, ConnectionError) as error:
            _broken(request, error)
        if not data:
            if not answer.begun or answer.framed:
                _broken(request, EOFError("EOF"))
            answer.complete = True  # the end of the connection was the end of the body
        seen += len(data)
        if not answer.begun and seen > MAX_HEAD:
            _broken(request, EOFError("headers are too large"))
        if answer.begun:
            await _write(request, exchange, answer)


def _broken(request: Request, error: Exception) -> None:
    """The backend failed: an error while there is no answer yet, else the client's connection has to break off too."""
    if not request.code:
        raise unreachable(str(error)) from error
    raise StatusError("answer of the backend broke off", code=502, reason="") from error


async def _write(request: Request, exchange: Exchange, answer: _Answer) -> None:
    if not request.code:
        exchange.refuse(answer.code, answer.headers)
        request.code = answer.code
        headers: list[Any] = exchange.answer(answer.headers)
        await request.send({"type": "http.response.start", "status": answer.code, "headers": headers})
    body, answer.body = b"".join(answer.body), []
    if body or answer.complete:
        await request.send({"type": "http.response.body", "body": body, "more_body": not answer.complete})
