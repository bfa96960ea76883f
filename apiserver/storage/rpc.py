"""gRPC calls to one server: dialling, deadlines, liveness.

Owns which connection is used and when a new one is made: with a call, after the last one was lost, never in the
background. Never repeats a call; its errors tell whether the server may have acted on it. Bounds are real seconds.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque

from apiserver.storage.http2 import DEADLINE_EXCEEDED, UNAVAILABLE, Connection, RpcError, Stream, request_head
from machinery.tls import KeyPair

DIAL_SECONDS = 5.0
RETRY_FIRST, RETRY_MOST = 0.02, 0.5
KEEPALIVE_SECONDS, KEEPALIVE_TIMEOUT = 20.0, 10.0
MOST_UNREAD = 8 << 20
"""Bytes that may wait for the reader of a call before the server is held back."""


class Channel:
    """`unix:PATH`, or `HOST:PORT` with TLS when a pair is given. Connects with the first call; needs a running loop."""

    def __init__(self, target: str, pair: KeyPair | None = None) -> None:
        self._target = target
        self._tls = _tls(pair) if pair is not None else None
        self._connection: Connection | None = None
        self._dialling: asyncio.Task[Connection] | None = None
        self._keeper: asyncio.TimerHandle | None = None
        self._closed = False

    def method(self, path: str) -> bytes:
        """What calls of a method are made with."""
        authority = "localhost" if self._target.startswith("unix:") else self._target
        return request_head(path, authority, "http" if self._tls is None else "https")

    async def unary(self, method: bytes, message: bytes, seconds: float) -> bytes:
        """One request, one answer. Raises RpcError."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        connection = self._connection
        if connection is None or connection.error is not None:
            connection = await self._connected(deadline)
        answer: asyncio.Future[bytes] = loop.create_future()
        messages: list[bytes] = []

        def ended(error: RpcError | None) -> None:
            if answer.done():
                return
            if error is None and messages:
                answer.set_result(messages[0])
            else:
                answer.set_exception(error or RpcError(UNAVAILABLE, "an answer without a message", sent=True))

        stream = connection.open(method, message, messages.append, ended, last=True)
        late = loop.call_at(
            deadline, lambda: ended(RpcError(DEADLINE_EXCEEDED, "no answer in time", sent=stream.opened))
        )
        try:
            return await answer
        finally:
            late.cancel()
            connection.reset(stream)  # nothing to do after an answer

    async def stream(self, method: bytes, message: bytes, seconds: float) -> Call:
        """A call of many messages, once the server can be reached. Raises RpcError."""
        connection = await self._connected(asyncio.get_running_loop().time() + seconds)
        return Call(connection, method, message)

    async def close(self) -> None:
        """End every call."""
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
        if self._dialling is not None:
            self._dialling.cancel()
            await asyncio.gather(self._dialling, return_exceptions=True)
        if self._connection is not None:
            self._connection.close()

    # -- connections --------------------------------------------------------------------------------------------------

    async def _connected(self, deadline: float) -> Connection:
        """A connection that takes calls, dialled again and again until the deadline. Raises RpcError."""
        loop = asyncio.get_running_loop()
        delay = RETRY_FIRST
        why: object = "no connection in time"
        while True:
            if self._closed:
                raise RpcError(UNAVAILABLE, "the channel was closed", sent=False)
            connection = self._connection
            if connection is not None and connection.error is None:
                return connection
            if self._dialling is None:
                self._dialling = asyncio.ensure_future(self._dial())
                # Whoever waits learns of a failure; when all have left, it counts as seen.
                self._dialling.add_done_callback(lambda done: done.cancelled() or done.exception())
            dialling = self._dialling
            await asyncio.wait((dialling,), timeout=max(deadline - loop.time(), 0))
            if dialling.done() and not dialling.cancelled():
                error = dialling.exception()
                if error is None:
                    continue
                why = "it does not introduce itself" if isinstance(error, TimeoutError) else error
            if loop.time() + delay >= deadline:
                raise RpcError(UNAVAILABLE, f"cannot reach {self._target}: {why}", sent=False)
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_MOST)

    async def _dial(self) -> Connection:
        loop = asyncio.get_running_loop()
        connection: Connection | None = None
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                if self._target.startswith("unix:"):
                    _, connection = await loop.create_unix_connection(Connection, self._target.removeprefix("unix:"))
                else:
                    host, _, port = self._target.rpartition(":")
                    host = host.strip("[]")
                    name = host if self._tls is not None else None
                    _, connection = await loop.create_connection(
                        Connection, host, int(port), ssl=self._tls, server_hostname=name
                    )
                await asyncio.shield(connection.ready)
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        finally:
            self._dialling = None
        self._connection = connection
        self._keep()
        return connection

    def _keep(self) -> None:
        """A server that says nothing to calls under way is asked; one that does not answer is given up."""
        loop, connection = asyncio.get_running_loop(), self._connection
        if self._keeper is not None:
            self._keeper.cancel()
        if self._closed or connection is None or connection.error is not None:
            return
        silent = loop.time() - connection.heard
        if silent >= KEEPALIVE_SECONDS + KEEPALIVE_TIMEOUT and connection.busy:
            connection.close()
            return
        if silent >= KEEPALIVE_SECONDS and connection.busy:
            connection.ping()
        self._keeper = loop.call_later(KEEPALIVE_TIMEOUT, self._keep)


class Call:
    """A call of many messages in both directions. Not shared between tasks."""

    def __init__(self, connection: Connection, method: bytes, message: bytes) -> None:
        self._connection = connection
        self._messages: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self._error: RpcError | None = None
        self._unread = 0
        self._stream: Stream = connection.open(method, message, self._came, self._end, last=False)

    def _came(self, message: bytes) -> None:
        self._messages.append(message)
        self._unread += len(message)
        if self._unread > MOST_UNREAD:
            self._stream.credit = False
        self._wake()

    def _end(self, error: RpcError | None) -> None:
        self._ended, self._error = True, error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def send(self, message: bytes) -> None:
        """Raises RpcError when the call has ended."""
        if self._ended:
            raise self._error or RpcError(UNAVAILABLE, "the call has ended", sent=False)
        self._connection.send(self._stream, message)

    async def read(self) -> bytes:
        """The next message. Raises RpcError at the end, however the call ended."""
        while not self._messages:
            if self._ended:
                raise self._error or RpcError(UNAVAILABLE, "the server ended the call", sent=True)
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        message = self._messages.popleft()
        self._unread -= len(message)
        if not self._stream.credit and self._unread <= MOST_UNREAD // 2:
            self._stream.credit = True
            self._connection.give_credit(self._stream)
        return message

    def cancel(self) -> None:
        """Give the call up; a pending `read` ends."""
        if not self._ended:
            self._connection.reset(self._stream)
            self._end(RpcError(UNAVAILABLE, "the call was cancelled", sent=True))


def _tls(pair: KeyPair) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(pair.ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(pair.cert, pair.key)
    context.set_alpn_protocols(["h2"])
    return context
