"""Limits of connections: slow and endless heads, clients that do not read, and HTTP where TLS is spoken.

Owns: the sweep that closes what makes no progress, and the TLS context that answers plain HTTP. What is swept costs the
requests nothing. Called by `rest.server`.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any

HEAD_SECONDS = 32.0  # for the head of a request, as upstream
STUCK_SECONDS = 60.0  # for a client that reads nothing of its answer
HANDSHAKE_SECONDS = 10.0
HEAD_LIMIT = (1 << 20) + 4096  # bytes of a head, as Go's server
TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"connection: close\r\ncontent-length: 35\r\n\r\n431 Request Header Fields Too Large"
)
_PLAIN = b"Client sent an HTTP request to an HTTPS server.\n"
PLAIN_ANSWER = b"HTTP/1.0 400 Bad Request\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(_PLAIN), _PLAIN)


class PlainAnswering(ssl.SSLContext):
    """Answers a client that speaks HTTP to the TLS port in its own language, once; then its handshake fails."""

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        made = super().wrap_bio(incoming, outgoing, *args, **kwargs)
        handshake = made.do_handshake
        told = False

        def answering() -> None:
            nonlocal told
            try:
                handshake()
            except ssl.SSLError as error:
                if told or error.reason != "HTTP_REQUEST":
                    raise
                told = True
                outgoing.write(PLAIN_ANSWER)
                raise ssl.SSLWantReadError from error  # what is in `outgoing` goes out now

        made.do_handshake = answering  # type: ignore[method-assign]
        return made


class Sweep:
    """Looks at all connections now and then. What it remembers of a connection lies in the connection."""

    def __init__(self, head_seconds: float = HEAD_SECONDS, stuck_seconds: float = STUCK_SECONDS) -> None:
        self._head, self._stuck = head_seconds, stuck_seconds

    def look(self, connections: Iterable[Any], now: float) -> None:
        """Close connections whose request's head does not end, cut those whose answer is not read."""
        for connection in list(connections):
            transport = getattr(connection, "transport", None)
            if transport is None or transport.is_closing():
                continue
            if head_is_open(connection):
                if connection.head_scope is not connection.scope or not connection.head_since:
                    connection.head_scope, connection.head_since = connection.scope, now
                elif now - connection.head_since > self._head:
                    transport.close()
                continue
            connection.head_since = 0.0
            flow = getattr(connection, "flow", None)
            if flow is None or not flow.write_paused:
                connection.stuck_since = 0.0
                continue
            waiting = transport.get_write_buffer_size()
            if not connection.stuck_since or waiting != connection.stuck_size:
                connection.stuck_since, connection.stuck_size = now, waiting
            elif now - connection.stuck_since > self._stuck:
                transport.abort()


def head_is_open(connection: Any) -> bool:
    """Whether the connection has begun a request's head, or not even that since it was made, and not ended it."""
    cycle = connection.cycle
    return cycle is None or (connection.scope is not cycle.scope and connection.scope is not None)
