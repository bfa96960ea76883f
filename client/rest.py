"""Requests over REST, for what the gRPC door does not serve: APIs of aggregated servers, such as metrics, and others'.

Owns a few idle connections. Answers are decoded JSON; failures are StatusErrors as everywhere, ServiceUnavailable when
nobody answers. Used by controllers that read metrics, and by `rest_transport` for objects of aggregated APIs.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode, urlsplit

import h11
import msgspec

from machinery.errors import ServiceUnavailable, StatusError, Timeout
from machinery.tls import KeyPair

JSON: Final = "application/json"
TIMEOUT: Final = 30.0
SILENCE: Final = 360.0
"""Seconds after which an answer that goes on is given up; more than a watch is asked for."""
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

    async def get(self, path: str, params: Mapping[str, str] | None = None, accept: str = JSON) -> dict[str, Any]:
        """The object at a path. Raises StatusError."""
        return await self.request("GET", path, params, accept=accept)

    async def request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        body: bytes = b"",
        content_type: str = JSON,
        accept: str = JSON,
    ) -> dict[str, Any]:
        """One request, answered with an object. Raises StatusError; a write that broke off may have happened."""
        asked = _Request(method, _target(path, params), accept, body, content_type if body else "")
        try:
            async with asyncio.timeout(TIMEOUT):
                status, answer = await self._exchange(asked)
        except TimeoutError:
            raise Timeout(f"{self._host}:{self._port} did not answer in time") from None
        except (OSError, h11.ProtocolError) as error:
            raise ServiceUnavailable(str(error)) from error
        return _object(path, status, answer)

    async def lines(
        self, path: str, params: Mapping[str, str] | None = None, accept: str = JSON
    ) -> AsyncIterator[bytes]:
        """The lines of an answer that goes on: a watch. Ends plainly when the server ends it. Raises StatusError."""
        try:
            async with asyncio.timeout(TIMEOUT):
                connection = await _Connection.open(self._host, self._port, self._tls)
        except (OSError, TimeoutError) as error:
            raise ServiceUnavailable(str(error)) from error
        try:
            async with asyncio.timeout(TIMEOUT):
                status = await connection.ask(_Request("GET", _target(path, params), accept), self._host, self._agent)
                if status >= 400:
                    _object(path, status, await connection.rest())
            rest = b""
            while data := await asyncio.wait_for(connection.more(), SILENCE):
                *whole, rest = (rest + data).split(b"\n")
                if len(rest) > MAX_ANSWER:
                    raise ServiceUnavailable(f"a line is longer than {MAX_ANSWER} bytes")
                for line in whole:
                    yield line
        except TimeoutError:
            raise Timeout(f"{self._host}:{self._port} did not answer in time") from None
        except (OSError, h11.ProtocolError) as error:
            raise ServiceUnavailable(str(error)) from error
        finally:
            connection.close()

    async def close(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _exchange(self, asked: _Request) -> tuple[int, bytes]:
        while True:
            # A server may close an idle connection whenever it likes; only what may be sent twice is sent on one.
            reused = bool(self._idle) and asked.method == "GET"
            connection = self._idle.pop() if reused else await _Connection.open(self._host, self._port, self._tls)
            try:
                answer = await connection.ask(asked, self._host, self._agent), await connection.rest()
            except (OSError, h11.ProtocolError):
                connection.close()
                if reused:
                    continue
                raise
            except BaseException:
                connection.close()
                raise
            if len(self._idle) < MAX_IDLE and connection.reusable():
                self._idle.append(connection)
            else:
                connection.close()
            return answer


class _Request(NamedTuple):
    method: str
    target: str
    accept: str
    body: bytes = b""
    content_type: str = ""


def _target(path: str, params: Mapping[str, str] | None) -> str:
    return f"{path}?{urlencode(params)}" if params else path


def _object(path: str, status: int, body: bytes) -> dict[str, Any]:
    """What an answer says. Raises StatusError."""
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


class _Connection:
    """A connection and the state of HTTP on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)

    @classmethod
    async def open(cls, host: str, port: int, tls: ssl.SSLContext | None) -> _Connection:
        return cls(*await asyncio.open_connection(host, port, ssl=tls))

    async def ask(self, asked: _Request, host: str, agent: str) -> int:
        """Send a request; the status of its answer, whose body is to be read next."""
        headers = [("host", host), ("accept", asked.accept), ("user-agent", agent)]
        if asked.body:
            headers += [("content-type", asked.content_type), ("content-length", str(len(asked.body)))]
        parts = [h11.Request(method=asked.method, target=asked.target, headers=headers)]
        for part in (*parts, *([h11.Data(data=asked.body)] if asked.body else ()), h11.EndOfMessage()):
            self._writer.write(self._http.send(part) or b"")
        await self._writer.drain()
        while True:
            event = await self._event()
            if isinstance(event, h11.Response):
                return event.status_code

    async def more(self) -> bytes:
        """The next part of the body; nothing at its end."""
        while True:
            event = await self._event()
            if isinstance(event, h11.Data):
                return bytes(event.data)
            if isinstance(event, h11.EndOfMessage):
                return b""

    async def rest(self) -> bytes:
        """All of the body."""
        body = bytearray()
        while data := await self.more():
            body += data
            if len(body) > MAX_ANSWER:
                raise ConnectionError(f"the answer is longer than {MAX_ANSWER} bytes")
        return bytes(body)

    async def _event(self) -> Any:
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(CHUNK))
            elif isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError("EOF")
            else:
                return event

    def reusable(self) -> bool:
        """May another request be sent on it?"""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            return not self._reader.at_eof()
        return False

    def close(self) -> None:
        self._writer.close()
