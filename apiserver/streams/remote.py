"""`pods/exec` and `pods/attach`: a client's session on one side, a kubelet's gRPC stream on the other.

Owns: the checks before an upgrade is answered and the relay in both directions, each direction at the pace of its
reader. The answer waits until the kubelet's stream stands, so that a refusal reaches the client as an HTTP error.
Called by the REST door.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from apiserver.rest import query
from apiserver.rest.request import Request
from apiserver.streams.duplex import duplex
from apiserver.streams.sessions import ChannelSession, Session
from apiserver.streams.spdy_session import SpdySession
from apiserver.streams.targets import Kubelets, failure, opened, refusal
from machinery.errors import BadRequest
from machinery.log import kv
from proto.kubelet.v1 import kubelet_pb2 as pb

SUCCESS = b'{"metadata":{},"status":"Success"}'

log = logging.getLogger("apiserver.streams")


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


def session_for(request: Request, opening: pb.StreamOpen) -> Session:
    """The session that the client asks for. Raises BadRequest when it asks for no upgrade, Forbidden for an unknown."""
    if request.scope["type"] == "websocket":
        return ChannelSession(request)
    return SpdySession(request, opening)


class RemoteStreams:
    """Serves both subresources, by whatever upgrade."""

    def __init__(self, kubelets: Kubelets) -> None:
        self._kubelets = kubelets

    async def execute(self, request: Request) -> None:
        await self._serve(request, execute=True)

    async def attach(self, request: Request) -> None:
        await self._serve(request, execute=False)

    async def _serve(self, request: Request, *, execute: bool) -> None:
        import grpc

        name = request.info.name
        await self._kubelets.admit(request)
        target = await self._kubelets.target(request.namespace, name, query.text(request.query, "container"))
        opening = open_message(request.query, request.namespace, name, target.container, execute=execute)
        session = session_for(request, opening)
        stub = self._kubelets.stub(target.address)
        call = (stub.Exec if execute else stub.Attach)()
        try:
            try:
                await opened(call, pb.StreamInput(open=opening))
            except grpc.RpcError as error:
                raise refusal(error, target.address) from error
            await session.accept()
            # A client that leaves ends the call: a command is not left without its user.
            await duplex(call, session.inputs(), _outputs(call, session, target.address, name))
            await session.finish()
        finally:
            call.cancel()
            await session.close()


async def _outputs(call: Any, session: Session, address: str, name: str) -> None:
    import grpc

    try:
        async for message in call:
            await session.output(message)
            if message.WhichOneof("message") == "status_json":
                return
        last = SUCCESS
    except grpc.RpcError as error:
        found = failure(error, address)  # type: ignore[arg-type]
        log.info("Lost a stream", extra=kv(pod=name, error=found.message))
        last = msgspec.json.encode(found.to_status())
    await session.output(pb.StreamOutput(status_json=last))
