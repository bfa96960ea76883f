"""Answers that last, over a WebSocket: a log in frames of bytes, a watch in frames of one event each.

Owns: the sub-protocols of readers and the translation between the HTTP messages that handlers write and a socket's. An
answer that is no stream refuses the handshake, with its own code and body. Called by the REST handlers.
"""

from __future__ import annotations

import base64
from collections.abc import MutableMapping
from typing import Any

from apiserver.rest.bodies import ClientGone
from apiserver.rest.request import Request
from apiserver.rest.responses import Receive, Send
from machinery.errors import Forbidden

BINARY, BASE64 = "binary.k8s.io", "base64.binary.k8s.io"
NORMAL_CLOSURE = 1000
Message = MutableMapping[str, Any]


def frame_log(request: Request) -> None:
    """From now on the request's answer goes out in frames of bytes, or of base64. Raises Forbidden."""
    offered: list[str] = list(request.scope.get("subprotocols") or ())
    chosen = next((each for each in offered if each in (BINARY, BASE64)), "")
    if offered and not chosen:
        raise Forbidden(f"requested protocol(s) are not supported: {offered}; supports {[BASE64, BINARY]}")
    _translate(request, _Frames(request.send, chosen, lines=False))


def frame_watch(request: Request) -> None:
    """From now on every line of the request's answer goes out as a frame of text."""
    _translate(request, _Frames(request.send, "", lines=True))


def _translate(request: Request, frames: _Frames) -> None:
    request.send, request.receive = frames.send, _until_disconnect(request.receive)


def _until_disconnect(receive: Receive) -> Receive:
    async def received() -> Message:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": b"", "more_body": True}  # what readers say means nothing

    return received


class _Frames:
    def __init__(self, send: Send, protocol: str, *, lines: bool) -> None:
        self._send = send
        self._protocol = protocol
        self._lines = lines
        self._accepted = False

    async def send(self, message: Message) -> None:
        """Raises ClientGone."""
        try:
            await self._translated(message)
        except (RuntimeError, OSError) as error:
            raise ClientGone from error

    async def _translated(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if message["status"] == 200:
                self._accepted = True
                await self._send({"type": "websocket.accept", "subprotocol": self._protocol or None})
                return
        elif self._accepted:
            await self._frames(bytes(message.get("body", b"")))
            if not message.get("more_body"):
                await self._send({"type": "websocket.close", "code": NORMAL_CLOSURE})
            return
        await self._send({**message, "type": f"websocket.{message['type']}"})

    async def _frames(self, body: bytes) -> None:
        if self._lines:
            for line in body.splitlines(keepends=True):
                await self._send({"type": "websocket.send", "text": line.decode()})
        elif body and self._protocol == BASE64:
            await self._send({"type": "websocket.send", "text": base64.b64encode(body).decode()})
        elif body:
            await self._send({"type": "websocket.send", "bytes": body})
