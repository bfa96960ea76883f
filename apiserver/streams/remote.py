"""`pods/exec` and `pods/attach` over WebSocket: a client's channels on one side, a kubelet's gRPC stream on the other.

Owns: the sub-protocols v4 and v5 of channel.k8s.io and the relay in both directions, each direction at the pace of its
reader. Called by the REST door.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from apiserver.rest import query
from apiserver.rest.bodies import ClientGone
from apiserver.rest.request import Request
from apiserver.streams.targets import Kubelets
from machinery.errors import BadRequest, StatusError
from machinery.log import kv
from proto.kubelet.v1 import kubelet_pb2 as pb

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
CHUNK = 64 * 1024
NORMAL_CLOSURE = 1000

log = logging.getLogger("apiserver.streams")


def choose_protocol(offered: list[str]) -> str:
    """The newest sub-protocol that both sides speak. Raises BadRequest."""
    for protocol in PROTOCOLS:
        if protocol in offered:
            return protocol
    raise BadRequest(f"unable to upgrade: none of the offered sub-protocols {offered} is supported")


def open_message(options: query.Query, namespace: str, pod: str, container: str, *, execute: bool) -> pb.StreamOpen:
    """The first message of a stream. Raises BadRequest."""
    stdin, stdout, stderr, tty = (query.flag(options, key) for key in ("stdin", "stdout", "stderr", "tty"))
    command = list(options.get("command", ()))
    if execute and not command:
        raise BadRequest("you must specify at least one command for the container")
    if not (stdin or stdout or stderr):
        raise BadRequest("you must specify at least one of stdin, stdout, stderr")
    if tty and stderr:
        stderr = False  # a terminal has one output
    return pb.StreamOpen(
        namespace=namespace,
        pod=pod,
        container=container,
        command=command,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        tty=tty,
    )


def to_input(data: bytes) -> pb.StreamInput | None:
    """A client's message as the kubelet's; None for what means nothing."""
    if not data:
        return None
    channel, payload = data[0], data[1:]
    if channel == STDIN:
        return pb.StreamInput(stdin=payload) if payload else None
    if channel == RESIZE:
        try:
            size = json.loads(payload)
            return pb.StreamInput(resize=pb.TerminalSize(width=int(size["Width"]), height=int(size["Height"])))
        except (ValueError, KeyError, TypeError):
            return None
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


class RemoteStreams:
    """Serves both subresources."""

    def __init__(self, kubelets: Kubelets) -> None:
        self._kubelets = kubelets

    async def execute(self, request: Request) -> None:
        await self._serve(request, execute=True)

    async def attach(self, request: Request) -> None:
        await self._serve(request, execute=False)

    async def _serve(self, request: Request, *, execute: bool) -> None:
        protocol = choose_protocol(list(request.scope.get("subprotocols") or ()))
        container = query.text(request.query, "container")
        target = await self._kubelets.target(request.namespace, request.info.name, container)
        opening = open_message(request.query, request.namespace, request.info.name, target.container, execute=execute)
        stub = self._kubelets.stub(target.address)
        await request.send({"type": "websocket.accept", "subprotocol": protocol})
        request.code = 101
        call = (stub.Exec if execute else stub.Attach)(self._inputs(request, opening))
        try:
            status = await self._relay(request, call)
        except ClientGone:
            return
        finally:
            call.cancel()
        with contextlib.suppress(RuntimeError):  # the client may have closed first
            if status is not None:
                await request.send({"type": "websocket.send", "bytes": status})
            await request.send({"type": "websocket.close", "code": NORMAL_CLOSURE})

    async def _inputs(self, request: Request, opening: pb.StreamOpen) -> AsyncIterator[pb.StreamInput]:
        """What the client sends, as the kubelet's stream reads it; ends when the client goes."""
        yield pb.StreamInput(open=opening)
        while True:
            message = await request.receive()
            if message["type"] == "websocket.disconnect":
                return
            found = to_input(message.get("bytes") or b"")
            if found is not None:
                yield found

    async def _relay(self, request: Request, call: Any) -> bytes | None:
        """Carry the output; returns the last frame when the kubelet did not send one itself."""
        import grpc

        from machinery.grpc import status_of

        told = False
        try:
            async for output in call:
                frame = to_frame(output)
                told = told or frame[0] == ERROR
                try:
                    await request.send({"type": "websocket.send", "bytes": frame})
                except RuntimeError as exc:
                    raise ClientGone from exc
        except grpc.RpcError as error:
            failure: StatusError = status_of(error)  # type: ignore[arg-type]
            log.info("Ended a stream", extra=kv(pod=request.info.name, error=failure.message))
            return bytes([ERROR]) + msgspec.json.encode(failure.to_status())
        except asyncio.CancelledError:
            call.cancel()
            raise
        return None if told else bytes([ERROR]) + b'{"metadata":{},"status":"Success"}'
