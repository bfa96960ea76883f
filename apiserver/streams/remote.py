"""`pods/exec` and `pods/attach`: a client's session on one side, a kubelet's gRPC stream on the other.

Owns: the checks before an upgrade is answered and the relay in both directions, each direction at the pace of its
reader. The answer waits until the kubelet's stream stands, so that a refusal reaches the client as an HTTP error.
Called by the REST door.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from apiserver.rest import query
from apiserver.rest.bodies import ClientGone
from apiserver.rest.request import Request
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


class _Feed:
    """What the kubelet's stream reads: the opening, then, once the client has its answer, what the client sends."""

    def __init__(self, opening: pb.StreamOpen, session: Session) -> None:
        self._opening = opening
        self._session = session
        self.accepted = asyncio.Event()
        self.left = asyncio.Event()

    async def messages(self) -> AsyncIterator[pb.StreamInput]:
        yield pb.StreamInput(open=self._opening)
        await self.accepted.wait()
        try:
            async for message in self._session.inputs():
                yield message
        except ClientGone:
            self.left.set()


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
        target = await self._kubelets.target(request.namespace, name, query.text(request.query, "container"))
        opening = open_message(request.query, request.namespace, name, target.container, execute=execute)
        session = session_for(request, opening)
        feed = _Feed(opening, session)
        stub = self._kubelets.stub(target.address)
        call = (stub.Exec if execute else stub.Attach)(feed.messages())
        try:
            try:
                await opened(call)
            except grpc.RpcError as error:
                raise refusal(error, target.address) from error
            await session.accept()
            feed.accepted.set()
            await self._relay(call, session, feed, target.address, name)
            await session.finish()
        finally:
            call.cancel()
            await session.close()

    @staticmethod
    async def _relay(call: Any, session: Session, feed: _Feed, address: str, name: str) -> None:
        """Carry the output until the Status that ends it. Raises ClientGone: a command is not left without its user."""
        outputs = asyncio.ensure_future(_outputs(call, session, address, name))
        left = asyncio.ensure_future(feed.left.wait())
        try:
            await asyncio.wait({outputs, left}, return_when=asyncio.FIRST_COMPLETED)
            if not outputs.done():
                raise ClientGone
            outputs.result()
        finally:
            for task in (outputs, left):
                task.cancel()
            await asyncio.gather(outputs, left, return_exceptions=True)


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
