"""Small GETs to backends: the server's own questions, asked as the aggregator.

Owns: one connection per question, bounded in time and size. Requests of clients go through `aggregation.proxy`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import NamedTuple

import h11

from apiserver.aggregation.identity import AGGREGATOR, user_headers

MAX_ANSWER = 32 << 20
CHUNK = 64 * 1024
SECONDS = 5.0  # real: a backend that takes longer does not serve


class FetchError(Exception):
    """No answer; the text tells why."""


class Answer(NamedTuple):
    """Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def fetch(
    address: tuple[str, int],
    path: str,
    tls: ssl.SSLContext,
    host: str,
    headers: Mapping[str, str] | None = None,
    seconds: float = SECONDS,
) -> Answer:
    """GET a path of a backend; `host` is the name that its certificate is checked for. Raises FetchError."""
    shown = f'Get "https://{address[0]}:{address[1]}{path}"'
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(*address, ssl=tls, server_hostname=host)
            try:
                return await _ask(reader, writer, host, path, headers or {})
            finally:
                if not writer.is_closing():
                    writer.transport.abort()
    except TimeoutError:
        raise FetchError(f"{shown}: context deadline exceeded") from None
    except ssl.SSLCertVerificationError as error:
        raise FetchError(f"{shown}: tls: failed to verify certificate: x509: {error.verify_message}") from error
    except ConnectionRefusedError:
        raise FetchError(f"{shown}: dial tcp {address[0]}:{address[1]}: connect: connection refused") from None
    except (OSError, h11.ProtocolError, ValueError) as error:
        raise FetchError(f"{shown}: {getattr(error, 'strerror', None) or error}") from error


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, path: str, headers: Mapping[str, str]
) -> Answer:
    http = h11.Connection(h11.CLIENT)
    told = {"host": host, "user-agent": "kube-aggregator", "connection": "close", **headers}
    listed = [*((key.encode(), value.encode()) for key, value in told.items()), *user_headers(AGGREGATOR)]
    for part in (h11.Request(method="GET", target=path, headers=listed), h11.EndOfMessage()):
        writer.write(http.send(part) or b"")
    await writer.drain()
    status, found, body = 0, {}, bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(CHUNK))
        elif isinstance(event, h11.Response):
            status = event.status_code
            found = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_ANSWER:
                raise FetchError(f"response is longer than {MAX_ANSWER} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return Answer(status, found, bytes(body))
        elif isinstance(event, h11.ConnectionClosed):
            raise ConnectionResetError("EOF")
