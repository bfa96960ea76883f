"""uvicorn under the REST door: sockets, TLS with optional client certificates, shutdown.

Owns: listening, the protocol subclass that tells the application who is at the other end, and the order of a graceful
stop. Never reads a request. Called by `apiserver.app`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from apiserver.auth.authentication import user_from_peer_cert
from apiserver.auth.user import UserInfo
from apiserver.rest.connections import HANDSHAKE_SECONDS, HEAD_LIMIT, TOO_LARGE, PlainAnswering, Sweep, head_is_open
from apiserver.rest.responses import Header
from apiserver.rest.upgrade import Tunnel

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 180
WEBSOCKET_LIMIT = 1 << 20
UPGRADES = frozenset({b"spdy/3.1"})


class Peer:
    """Who is at the other end of a connection, worked out once per connection."""

    __slots__ = ("user",)

    def __init__(self, user: UserInfo | None) -> None:
        self.user = user


class PeerProtocol(HttpToolsProtocol):
    """Puts the verified client certificate's user into the request scope, and lets streams take connections over."""

    tunnel: Tunnel | None = None
    head_bytes = 0  # of a head that has not ended yet
    # What the sweep remembers.
    head_scope: Any = None
    head_since = 0.0
    stuck_since = 0.0
    stuck_size = 0
    passes_on: Callable[[bytes], bool] = staticmethod(lambda url: False)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        tls = transport.get_extra_info("ssl_object")
        cert, der = (tls.getpeercert(), tls.getpeercert(binary_form=True)) if tls is not None else (None, None)
        self.app_state = {"peer": Peer(user_from_peer_cert(cert, der))}

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if head_is_open(self):
            self.head_bytes += len(data)
            if self.head_bytes > HEAD_LIMIT and not self.transport.is_closing():
                self.transport.write(TOO_LARGE)
                self.transport.close()
        elif self.head_bytes:
            self.head_bytes = 0

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        state = cycle.scope["state"]
        state["whole"] = partial(write_whole, cycle)
        state["chunk"] = partial(write_chunk, cycle)
        super()._start_asgi_task(cycle, app)

    def _should_upgrade_to_ws(self) -> bool:
        """WebSockets of other servers are theirs."""
        return not self.passes_on(self.url)

    def _unsupported_upgrade_warning(self) -> None:
        """What is left of uvicorn's hook: the request's task has been made but has not begun."""
        upgrade = self._get_upgrade()
        if upgrade is not None and (upgrade in UPGRADES or self.passes_on(self.url)) and not self.pipeline:
            if self.cycle.response_complete:  # refused before its body was read
                self.transport.close()
                return
            self.tunnel = Tunnel(self, upgrade.upper())
            self.scope["state"]["tunnel"] = self.tunnel
            self.transport.set_protocol(self.tunnel)

    def shutdown(self) -> None:
        super().shutdown()
        if self.tunnel is not None:
            self.tunnel.end()


def write_whole(cycle: RequestResponseCycle, code: int, headers: Iterable[Header], body: bytes) -> bool:
    """Write a whole answer at once: one TLS record and no checks of headers that are our own.

    Half the cost of two ASGI messages. False when the ordinary way is needed: the client reads slowly or has gone, or
    the answer has no body by its nature. Knows uvicorn's cycle from inside; uvicorn is pinned for that reason.
    """
    bodiless = code in (204, 304) or cycle.scope["method"] == "HEAD"
    if bodiless or cycle.response_started or cycle.disconnected or cycle.flow.write_paused:
        return False
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    parts, told = [STATUS_LINE[code]], False
    for name, value in (*cycle.default_headers, *headers):
        parts += (name, b": ", value, b"\r\n")
        if name == b"connection":  # the only value we send is "close"
            told, cycle.keep_alive = True, False
    if not cycle.keep_alive and not told:
        parts.append(b"connection: close\r\n")
    parts += (b"\r\n", body)
    cycle.transport.write(b"".join(parts))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True


def write_chunk(cycle: RequestResponseCycle, framed: bytes) -> bool:
    """Write a part of a chunked answer at once, its frame included. False when the ordinary way is needed."""
    if cycle.flow.write_paused or cycle.disconnected or cycle.response_complete or not cycle.chunked_encoding:
        return False
    cycle.transport.write(framed)
    return True


def tls_context(cert: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    """TLS 1.2 and newer; a client certificate is asked for and, if given, must verify."""
    context = PlainAnswering(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert, key)
    # Strong suites only; the level lets clients in that name no signature algorithms, such as busybox's wget in a pod:
    # they are answered with SHA-1 in the key exchange. Others cannot be brought there, what they name is authenticated.
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=0")
    context.set_alpn_protocols(["http/1.1"])
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def listen(address: str, *, reuse_port: bool = False) -> socket.socket:
    """A listening socket for `host:port`. Raises OSError."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]") or "0.0.0.0"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, int(port)))
        sock.setblocking(False)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


class RestServer:
    """Serves one application on any number of sockets."""

    def __init__(
        self,
        app: Any,
        sockets: Sequence[socket.socket],
        tls: ssl.SSLContext | None,
        passes_on: Callable[[bytes], bool] | None = None,
    ) -> None:
        """`passes_on`: which targets of request lines are another server's, upgrades included."""
        self._passes_on = passes_on
        self._sockets = list(sockets)
        self._tls = tls
        self._config = uvicorn.Config(
            app,
            http=PeerProtocol,
            ws="wsproto",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nobody may claim to be somebody else's proxy
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            ws_max_size=WEBSOCKET_LIMIT,
            backlog=BACKLOG,
        )
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # the door logs its own failures
        self._state = ServerState()
        self._sweep = Sweep()
        self._servers: list[asyncio.Server] = []
        self._ticker: asyncio.Task[None] | None = None

    @property
    def addresses(self) -> list[tuple[str, int]]:
        return [sock.getsockname()[:2] for sock in self._sockets]

    async def start(self) -> None:
        """Begin to accept connections."""
        self._config.load()
        self._tick()
        self._ticker = asyncio.create_task(self._keep_date())
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            self._servers.append(await self._listen(loop, sock))

    async def _listen(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> asyncio.Server:
        if self._tls is None:
            return await loop.create_server(self._protocol, sock=sock)
        return await loop.create_server(
            self._protocol, sock=sock, ssl=self._tls, ssl_handshake_timeout=HANDSHAKE_SECONDS
        )

    def _protocol(self) -> asyncio.Protocol:
        protocol = PeerProtocol(config=self._config, server_state=self._state, app_state={})
        if self._passes_on is not None:
            protocol.passes_on = self._passes_on
        return protocol

    def _tick(self) -> None:
        self._state.default_headers = [(b"date", formatdate(time.time(), usegmt=True).encode())]

    async def _keep_date(self) -> None:
        while True:
            await asyncio.sleep(1)
            self._tick()
            self._sweep.look(self._state.connections, time.monotonic())

    async def stop(self, grace: float) -> None:
        """Accept nothing more, let requests under way finish for `grace` real seconds, then cut."""
        for server in self._servers:
            server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                while self._state.tasks:
                    await asyncio.wait(set(self._state.tasks), return_when=asyncio.FIRST_COMPLETED)
        for task in list(self._state.tasks):
            task.cancel()
        if self._state.tasks:
            await asyncio.wait(set(self._state.tasks), timeout=1)
        for connection in list(self._state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.close()
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
