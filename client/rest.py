"""GETs over REST, for what the gRPC door does not serve: the APIs of aggregated servers, such as metrics, and others'.

Owns a few idle connections. Answers are decoded JSON; failures are StatusErrors as everywhere, ServiceUnavailable when
nobody answers. Used by controllers that read metrics.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import h11
import msgspec

from machinery.errors import ServiceUnavailable, StatusError, Timeout
from machinery.tls import KeyPair

TIMEOUT: Final = 30.0
MAX_ANSWER: Final = 64 << 20
MAX_IDLE: Final = 4
CHUNK: Final = 1 << 16


class RestClient:
    """One server, as the owner of a client certificate; one without TLS is asked as nobody."""

    def __init__(self, url: str, pair: KeyPair | None, *, user_agent: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise ValueError(f"want https://HOST:PORT, not {url!r}")
        self._host, self._port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        self._agent = user_agent
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self._tls = ssl.create_default_context(cafile=str(pair.ca) if pair else None)
            if pair is not None:
                self._tls.load_cert_chain(pair.cert, pair.key)
        self._idle: list[_Connection] = []

    async def get(
        self, path: str, params: Mapping[str, str] | None = None, accept: str = "application/json"
    ) -> dict[str, Any]:
        """The object at a path. Raises StatusError."""
        target = f"{path}?{urlencode(params)}" if params else path
        try:
            async with asyncio.timeout(TIMEOUT):
                status, body = await self._exchange(target, accept)
        except TimeoutError:
            raise Timeout(f"{self._host}:{self._port} did not answer in time") from None
        except (OSError, h11.ProtocolError) as error:
            raise ServiceUnavailable(str(error)) from error
        try:
            found = msgspec.json.decode(body)
        except msgspec.DecodeError:
            found = None
        if status >= 400:
            if isinstance(found, dict) and found.get("kind") == "Status":
                raise StatusError.from_status(found)
            raise StatusError(body[:200].decode("utf-8", "replace").strip() or f"HTTP {status}", code=status)
        if not isinstance(found, dict):
            raise StatusError(f"{path} was not answered with an object")
        return found

    async def close(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _exchange(self, target: str, accept: str) -> tuple[int, bytes]:
        while True:
            reused = bool(self._idle)
            connection = self._idle.pop() if reused else await _Connection.open(self._host, self._port, self._tls)
            try:
                answer = await connection.get(self._host, target, self._agent, accept)
            except (OSError, h11.ProtocolError):
                connection.close()
                if reused:
                    continue  # the server has closed an idle connection, as it may
                raise
            except BaseException:
                connection.close()
                raise
            if len(self._idle) < MAX_IDLE and connection.reusable():
                self._idle.append(connection)
            else:
                connection.close()
            return answer


class _Connection:
    """A connection and the state of HTTP on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)

    @classmethod
    async def open(cls, host: str, port: int, tls: ssl.SSLContext | None) -> _Connection:
        return cls(*await asyncio.open_connection(host, port, ssl=tls))

    async def get(self, host: str, target: str, agent: str, accept: str) -> tuple[int, bytes]:
        headers = [("host", host), ("accept", accept), ("user-agent", agent)]
        for part in (h11.Request(method="GET", target=target, headers=headers), h11.EndOfMessage()):
            self._writer.write(self._http.send(part) or b"")
        await self._writer.drain()
        status, body = 0, bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(CHUNK))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_ANSWER:
                    raise ConnectionError(f"the answer is longer than {MAX_ANSWER} bytes")
            elif isinstance(event, h11.EndOfMessage):
                return status, bytes(body)
            elif isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError("EOF")

    def reusable(self) -> bool:
        """May another request be sent on it?"""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            return not self._reader.at_eof()
        return False

    def close(self) -> None:
        self._writer.close()
