"""A client's end of exec and attach over a WebSocket: the channels of every version, binary or in base64.

Owns: what a client's messages mean and how a kubelet's messages are written for it. Never talks to a kubelet. Made by
`streams.remote`, which knows no wire format; `streams.spdy_session` is the other implementation.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Protocol

from apiserver.rest.bodies import ClientGone
from apiserver.rest.request import Request
from machinery.errors import BadRequest
from proto.kubelet.v1 import kubelet_pb2 as pb

PROTOCOLS = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
)
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
NORMAL_CLOSURE = 1000


class Session(Protocol):
    """One client, however it is connected."""

    async def accept(self) -> None:
        """Answer the upgrade. Raises ClientGone."""

    def inputs(self) -> AsyncGenerator[pb.StreamInput, None]:
        """What the client sends. Raises ClientGone when it leaves."""

    async def output(self, message: pb.StreamOutput) -> None:
        """Send to the client, at its pace. Raises ClientGone."""

    async def finish(self) -> None:
        """End the session in good order after the last output."""

    async def close(self) -> None:
        """Let go of everything, however the session went."""


def choose_protocol(offered: list[str]) -> str:
    """The newest sub-protocol that both sides speak, "" for a client that names none. Raises BadRequest."""
    if not offered:
        return ""
    for protocol in PROTOCOLS:
        if protocol in offered:
            return protocol
    raise BadRequest(f"unable to upgrade: none of the offered sub-protocols {offered} is supported")


def parse_size(payload: bytes) -> pb.StreamInput | None:
    """A terminal's size as JSON; None for what is no such thing."""
    try:
        size = json.loads(payload)
        return pb.StreamInput(resize=pb.TerminalSize(width=int(size["Width"]), height=int(size["Height"])))
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None


def to_input(data: bytes) -> pb.StreamInput | None:
    """A client's message as the kubelet's; None for what means nothing."""
    if not data:
        return None
    channel, payload = data[0], data[1:]
    if channel == STDIN:
        return pb.StreamInput(stdin=payload) if payload else None
    if channel == RESIZE:
        return parse_size(payload)
    if channel == CLOSE and payload == bytes([STDIN]):
        return pb.StreamInput(close_stdin=True)
    return None


def to_frame(output: pb.StreamOutput) -> bytes:
    """A kubelet's message as the client's."""
    match output.WhichOneof("message"):
        case "stdout":
            return bytes([STDOUT]) + output.stdout
        case "stderr":
            return bytes([STDERR]) + output.stderr
        case _:
            return bytes([ERROR]) + output.status_json


def from_text(text: str) -> bytes:
    """A message of the base64 protocols, its channel a digit, as those of the others; empty for what is neither."""
    if not text[:1].isdecimal() or not text.isascii():
        return b""
    try:
        return bytes([int(text[0])]) + base64.b64decode(text[1:], validate=True)
    except binascii.Error:
        return b""


def first_form(output: pb.StreamOutput) -> pb.StreamOutput | None:
    """How a status is told before version 4: a failure by its message, a success not at all."""
    if output.WhichOneof("message") != "status_json":
        return output
    status = json.loads(output.status_json)
    if status.get("status") == "Success":
        return None
    return pb.StreamOutput(status_json=str(status.get("message", "")).encode())


class ChannelSession:
    """Channels over one WebSocket. The constructor raises BadRequest when no sub-protocol fits."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._protocol = choose_protocol(list(request.scope.get("subprotocols") or ()))
        self._encoded = "base64" in self._protocol
        self._plain = not self._protocol.startswith("v")

    async def accept(self) -> None:
        await self._request.send({"type": "websocket.accept", "subprotocol": self._protocol or None})
        self._request.code = 101

    async def inputs(self) -> AsyncGenerator[pb.StreamInput, None]:
        while True:
            message = await self._request.receive()
            if message["type"] == "websocket.disconnect":
                raise ClientGone
            text = message.get("text") or ""
            # Some clients send what they hold as text: the channel is its first character all the same.
            found = to_input(message.get("bytes") or (from_text(text) if self._encoded else text.encode()))
            if found is not None:
                yield found

    async def output(self, message: pb.StreamOutput) -> None:
        told = first_form(message) if self._plain else message
        if told is None:
            return
        frame = to_frame(told)
        if self._encoded:
            text = f"{frame[0]}{base64.b64encode(frame[1:]).decode()}"
            await self._send({"type": "websocket.send", "text": text})
        else:
            await self._send({"type": "websocket.send", "bytes": frame})

    async def finish(self) -> None:
        with contextlib.suppress(ClientGone):  # it may have closed first
            await self._send({"type": "websocket.close", "code": NORMAL_CLOSURE})

    async def close(self) -> None:
        return

    async def _send(self, message: dict[str, object]) -> None:
        try:
            await self._request.send(message)
        except (RuntimeError, OSError) as exc:
            raise ClientGone from exc
