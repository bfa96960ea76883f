"""The streaming server: exec, attach and port-forward over WebSocket, as `v4`/`v5.channel.k8s.io`.

Owns a listener on the machine's loopback, opened with the first offer, and one-time tokens. The kubelet is the client;
whoever holds a token is let in once within a minute. Called by the RuntimeService, which offers URLs.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from machinery.log import get, kv
from proto.cri.v1 import cri_pb2 as cri
from runtime.engine import Engine
from runtime.faults import RuntimeFault

if TYPE_CHECKING:
    from websockets.asyncio.server import Server, ServerConnection

log = get("runtime.streams")
PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
TOKEN_LIFE = 60.0  # real seconds
MAX_OFFERS = 1000
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
Offer = cri.ExecRequest | cri.AttachRequest | cri.PortForwardRequest


def plan_status(code: int) -> bytes:
    """The Status that ends an exec. Pure."""
    if code == 0:
        return json.dumps({"metadata": {}, "status": "Success"}).encode()
    return json.dumps(
        {
            "metadata": {},
            "status": "Failure",
            "message": f"command terminated with non-zero exit code: exit status {code}",
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
        }
    ).encode()


def plan_failure(message: str) -> bytes:
    """The Status that tells why a stream could not be. Pure."""
    status = {"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500}
    return json.dumps(status).encode()


def parse_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a resize message, None if it is no such thing. Pure."""
    try:
        document = json.loads(data)
        width, height = int(document["Width"]), int(document["Height"])
    except (ValueError, TypeError, KeyError):
        return None
    return (width, height) if 0 < width < 65536 and 0 < height < 65536 else None


class Channels:
    """One WebSocket seen as numbered channels."""

    def __init__(self, socket: ServerConnection) -> None:
        self._socket = socket

    async def send(self, channel: int, data: bytes) -> None:
        """Send on a channel; waits while the client is slow."""
        await self._socket.send(bytes([channel]) + data)

    async def receive(self) -> tuple[int, bytes] | None:
        """The next message, None when the client is gone."""
        from websockets.exceptions import ConnectionClosed

        while True:
            try:
                message = await self._socket.recv()
            except ConnectionClosed:
                return None
            raw = message.encode() if isinstance(message, str) else message
            if raw:
                return raw[0], raw[1:]


Serve = Callable[[Channels, Offer], Awaitable[None]]


class StreamServer:
    """Offers URLs and serves them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._server: Server | None = None
        self._opening = asyncio.Lock()
        self._offers: dict[str, tuple[float, Offer]] = {}

    async def offer(self, request: Offer) -> str:
        """A URL that serves the request once."""
        await self._open()
        now = time.monotonic()
        self._offers = {token: each for token, each in self._offers.items() if each[0] > now}
        if len(self._offers) >= MAX_OFFERS:
            raise RuntimeFault("too many streams are waiting for their clients", "RESOURCE_EXHAUSTED")
        token = secrets.token_urlsafe(16)
        self._offers[token] = (now + TOKEN_LIFE, request)
        kind = {cri.ExecRequest: "exec", cri.AttachRequest: "attach"}.get(type(request), "portforward")
        if self._server is None:
            raise RuntimeFault("stream server is closed", "UNAVAILABLE")
        port = next(iter(self._server.sockets)).getsockname()[1]
        return f"http://127.0.0.1:{port}/{kind}/{token}"

    async def _open(self) -> None:
        async with self._opening:
            if self._server is None:
                from websockets.asyncio.server import serve
                from websockets.typing import Subprotocol

                self._server = await serve(
                    self._accept,
                    "127.0.0.1",
                    0,
                    subprotocols=[Subprotocol(name) for name in PROTOCOLS],
                    compression=None,
                    max_size=1 << 20,
                    ping_interval=20,
                    ping_timeout=60,
                    server_header=None,
                )

    async def _accept(self, socket: ServerConnection) -> None:
        path = socket.request.path if socket.request else ""
        deadline, request = self._offers.pop(path.rpartition("/")[2].partition("?")[0], (0.0, None))
        if request is None or deadline < time.monotonic():
            await socket.close(1008, "unknown or used token")
            return
        channels = Channels(socket)
        try:
            await self._serve(channels, request)
        except RuntimeFault as fault:
            await channels.send(ERROR, plan_failure(fault.message))
        except OSError as error:
            log.warning("Stream failed", extra=kv(stream=path.split("/")[1], error=error))
            await channels.send(ERROR, plan_failure(error.strerror or str(error)))
        await socket.close()

    async def _serve(self, channels: Channels, request: Offer) -> None:
        from runtime import stream_verbs as verbs

        if isinstance(request, cri.ExecRequest):
            container = self._engine.containers.get(request.container_id)
            await verbs.serve_exec(channels, request, self._engine.crun, container)
        elif isinstance(request, cri.AttachRequest):
            container = self._engine.containers.get(request.container_id)
            await verbs.serve_attach(channels, request, container, self._engine.containers.bundle(container))
        else:
            sandbox = self._engine.sandboxes.get(request.pod_sandbox_id)
            namespace = self._engine.sandboxes.pins(sandbox).get("net", "")
            await verbs.serve_port_forward(channels, list(request.port), namespace)

    async def close(self) -> None:
        """Stop listening and end all streams."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
