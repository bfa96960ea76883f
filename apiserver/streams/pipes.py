"""The two ways in which SPDY reaches this server: inside a WebSocket, or on the connection itself after an upgrade.

Owns: the pipe over a WebSocket's binary messages and the choice of a protocol for an upgraded connection
(`rest.upgrade` has the connection itself). Called by port-forward and by sessions of older clients.
"""

from __future__ import annotations

import contextlib
from typing import Protocol

from apiserver.rest.bodies import ClientGone
from apiserver.rest.request import Request
from apiserver.rest.responses import Header
from apiserver.streams.spdy import Pipe
from machinery.errors import BadRequest, Forbidden

VERSION_HEADER = b"x-stream-protocol-version"


class Upgradable(Pipe, Protocol):
    """A connection that can leave HTTP."""

    def accept(self, extra: list[Header]) -> None: ...


class WebSocketPipe:
    """Messages of an accepted WebSocket, one after the other; text counts as its bytes."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._ended = False

    async def read(self) -> bytes:
        while not self._ended:
            message = await self._request.receive()
            if message["type"] == "websocket.disconnect":
                self._ended = True
            elif data := message.get("bytes") or (message.get("text") or "").encode():
                return bytes(data)
        return b""

    async def write(self, data: bytes) -> None:
        if self._ended:
            raise ClientGone
        try:
            await self._request.send({"type": "websocket.send", "bytes": data})
        except (RuntimeError, OSError) as exc:
            raise ClientGone from exc

    async def close(self) -> None:
        with contextlib.suppress(RuntimeError, OSError):  # it may have closed first
            await self._request.send({"type": "websocket.close", "code": 1000})


def offered_protocols(request: Request) -> list[str]:
    """The stream protocols that the client speaks, best first."""
    found: list[str] = []
    for name, value in request.scope["headers"]:
        if name == VERSION_HEADER:
            found += [part.strip() for part in value.decode("latin-1").split(",") if part.strip()]
    return found


def upgraded(request: Request, known: tuple[str, ...]) -> tuple[Upgradable, str]:
    """The connection and the protocol for it. Raises BadRequest without an upgrade, Forbidden when none is shared."""
    tunnel: Upgradable | None = request.scope["state"].get("tunnel")
    # What an upgrade does is a change, so it takes the right to `create`; a GET was only authorized to read.
    if tunnel is None or request.method != "POST":
        raise BadRequest("Upgrade request required")
    offered = offered_protocols(request)
    for protocol in offered:
        if protocol in known:
            return tunnel, protocol
    shared = f"client supports [{' '.join(offered)}], server accepts [{' '.join(known)}]"
    raise Forbidden(f"unable to upgrade: unable to negotiate protocol: {shared}")


def accept(request: Request, tunnel: Upgradable, protocol: str) -> None:
    """Answer the upgrade."""
    tunnel.accept([(VERSION_HEADER, protocol.encode()), (b"audit-id", request.audit)])
    request.code = 101
