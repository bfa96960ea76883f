"""Logs, exec and attach: through the API server to a kubelet that says what the test wants."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import ssl
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from machinery import grpc as transport
from machinery.errors import BadRequest, NotFound
from machinery.tls import KeyPair
from proto.kubelet.v1 import kubelet_pb2 as pb
from proto.kubelet.v1 import kubelet_pb2_grpc
from tests.harness.apiserver import ADMIN_TOKEN, RunningApiServer, running_apiserver

POD = "/api/v1/namespaces/default/pods/web"


class EchoKubelet:
    """A kubelet whose logs count and whose exec echoes."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.left = asyncio.Event()

    async def GetLogs(self, request: pb.LogsRequest, context: Any) -> AsyncIterator[pb.LogsChunk]:
        self.asked.append(request)
        if request.previous:
            await transport.abort(context, BadRequest('previous terminated container "c" in pod "web" not found'))
        for number in range(3):
            yield pb.LogsChunk(data=f"line {number}\n".encode())
        if request.follow:
            try:
                await asyncio.Event().wait()
            finally:
                self.left.set()

    async def Exec(self, inputs: AsyncIterator[pb.StreamInput], context: Any) -> AsyncIterator[pb.StreamOutput]:
        opening = (await anext(inputs)).open
        self.asked.append(opening)
        if list(opening.command) == ["refuse"]:
            await transport.abort(context, NotFound("container c not found in pod web_default"))
        await context.send_initial_metadata(())
        if list(opening.command) == ["forever"]:
            try:
                await asyncio.Event().wait()
            finally:
                self.left.set()
        yield pb.StreamOutput(stdout=" ".join(opening.command).encode())
        async for message in inputs:
            match message.WhichOneof("message"):
                case "stdin":
                    yield pb.StreamOutput(stderr=message.stdin.upper())
                case "resize":
                    yield pb.StreamOutput(stdout=f"{message.resize.width}x{message.resize.height}".encode())
                case "close_stdin":
                    break
        causes = [{"reason": "ExitCode", "message": "7"}]
        failed = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}, "metadata": {}}
        yield pb.StreamOutput(status_json=json.dumps(failed).encode())

    Attach = Exec
    PortForward = GetStats = None


@pytest.fixture
async def cluster() -> AsyncIterator[tuple[RunningApiServer, EchoKubelet]]:
    async with running_apiserver(kubelet=True) as server:
        kubelet = EchoKubelet()
        serving = transport.server()
        kubelet_pb2_grpc.add_KubeletServiceServicer_to_server(cast(Any, kubelet), serving)
        pair = KeyPair(server.ca, server.pki.serving.cert, server.pki.serving.key)
        port = transport.add_port(serving, "127.0.0.1:0", pair)
        await serving.start()
        rest = server.rest()
        await rest.post("/api/v1/nodes", {"metadata": {"name": "n1"}})
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }
        merge = {"content-type": "application/merge-patch+json"}
        patched = await rest.request("PATCH", "/api/v1/nodes/n1/status", {"status": status}, merge)
        assert patched.status == 200, patched.body
        await rest.post("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
        spec = {"nodeName": "n1", "containers": [{"name": "c", "image": "busybox"}]}
        made = await rest.post("/api/v1/namespaces/default/pods", {"metadata": {"name": "web"}, "spec": spec})
        assert made.status == 201, made.body
        yield server, kubelet
        await serving.stop(0)


async def test_logs_come_whole_and_with_options(cluster: tuple[RunningApiServer, EchoKubelet]) -> None:
    server, kubelet = cluster
    answer = await server.rest().get(f"{POD}/log?tailLines=5&timestamps=true")
    assert (answer.status, answer.body) == (200, b"line 0\nline 1\nline 2\n")
    assert answer.header("content-type") == "text/plain"
    asked = kubelet.asked[0]
    assert (asked.container, asked.tail_lines, asked.timestamps, asked.follow) == ("c", 5, True, False)


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        pytest.param(f"{POD}/log?previous=true", 400, "previous terminated container", id="kubelets-error"),
        pytest.param(f"{POD}/log?container=x", 400, "container x is not valid for pod web", id="no-container"),
        pytest.param(f"{POD}/log?tailLines=-1", 422, "tailLines: Invalid value: -1", id="bad-number"),
        pytest.param(f"{POD}/log?sinceTime=x", 422, "sinceTime", id="bad-time"),
        pytest.param(f"{POD.replace('web', 'ghost')}/log", 404, 'pods "ghost" not found', id="no-pod"),
        pytest.param(f"{POD}/exec?command=ls&stdout=1", 400, "Upgrade request required", id="exec-without-upgrade"),
        pytest.param(f"{POD}/exec?container=x&command=ls", 400, "container x is not valid for pod web", id="exec"),
        pytest.param(f"{POD}/attach?container=x", 400, "container x is not valid for pod web", id="attach-where"),
        pytest.param(f"{POD.replace('web', 'ghost')}/exec?command=ls", 404, 'pods "ghost" not found', id="gone"),
        pytest.param(f"{POD}/portforward", 400, "Upgrade request required", id="port-forward-without-upgrade"),
        pytest.param(f"{POD}/proxy", 400, "address not allowed", id="proxy-without-address"),
    ],
)
async def test_refusals(cluster: tuple[RunningApiServer, EchoKubelet], path: str, status: int, message: str) -> None:
    answer = await cluster[0].rest().get(path)
    assert answer.status == status
    assert message in answer.json["message"]


async def test_a_follower_that_leaves_frees_the_kubelet(cluster: tuple[RunningApiServer, EchoKubelet]) -> None:
    server, kubelet = cluster
    rest = server.rest()
    reader, writer = await rest.connect()
    writer.write(rest.head("GET", f"{POD}/log?follow=true", b"", {}))
    async with asyncio.timeout(5):
        await reader.readuntil(b"line 2\n")
        writer.close()
        await kubelet.left.wait()


class WebSocket:
    """The client's side of RFC 6455, as far as these streams need it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, channel: int, data: bytes) -> None:
        payload = bytes([channel]) + data
        assert len(payload) < 126
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self._writer.write(bytes([0x82, 0x80 | len(payload)]) + mask + masked)

    async def rest(self) -> bytes:
        """The body of a refusal, up to the end of the connection."""
        return await self._reader.read()

    async def receive(self) -> tuple[int, bytes]:
        """(opcode, payload)."""
        first, size = await self._reader.readexactly(2)
        if size == 126:
            size = int.from_bytes(await self._reader.readexactly(2), "big")
        return first & 15, await self._reader.readexactly(size)


@contextlib.asynccontextmanager
async def websocket(
    server: RunningApiServer, path: str, protocols: str, token: str = ADMIN_TOKEN
) -> AsyncIterator[tuple[str, WebSocket]]:
    """(head of the answer, socket)."""
    tls = ssl.create_default_context(cafile=str(server.ca))
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=tls, server_hostname="localhost")
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        f"GET {path} HTTP/1.1",
        "host: localhost",
        "connection: Upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        f"sec-websocket-key: {key}",
        f"sec-websocket-protocol: {protocols}",
        f"authorization: Bearer {token}",
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        async with asyncio.timeout(10):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            yield head, WebSocket(reader, writer)
    finally:
        writer.close()


@pytest.mark.parametrize("protocol", ["v5.channel.k8s.io", "v4.channel.k8s.io"])
@pytest.mark.parametrize("verb", ["exec", "attach"])
async def test_a_session_of_channels(cluster: tuple[RunningApiServer, EchoKubelet], protocol: str, verb: str) -> None:
    server, kubelet = cluster
    path = f"{POD}/{verb}?command=sh&command=-c&stdin=true&stdout=true&stderr=true"
    async with websocket(server, path, f"{protocol}, v3.channel.k8s.io") as (head, socket):
        assert head.startswith("HTTP/1.1 101 ")
        assert f"sec-websocket-protocol: {protocol}" in head.lower()
        assert await socket.receive() == (2, b"\x01sh -c")
        socket.send(0, b"hello")
        assert await socket.receive() == (2, b"\x02HELLO")
        socket.send(4, b'{"Width":80,"Height":24}')
        assert await socket.receive() == (2, b"\x0180x24")
        socket.send(255, b"\x00")
        _, last = await socket.receive()
        assert last[0] == 3
        assert json.loads(last[1:])["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]
        opcode, code = await socket.receive()
        assert (opcode, int.from_bytes(code[:2], "big")) == (8, 1000)
    assert kubelet.asked[0].container == "c"


@pytest.mark.parametrize(
    ("path", "protocols", "token", "status"),
    [
        pytest.param(f"{POD}/exec?command=ls&stdout=1", "v9.channel.k8s.io", ADMIN_TOKEN, 400, id="unknown-protocol"),
        pytest.param(f"{POD}/exec?stdout=1", "v5.channel.k8s.io", ADMIN_TOKEN, 400, id="no-command"),
        pytest.param(f"{POD}/exec?command=ls&stdout=1", "v5.channel.k8s.io", "wrong", 401, id="wrong-token"),
        pytest.param(f"{POD}/portforward", "v5.channel.k8s.io", ADMIN_TOKEN, 400, id="port-forward"),
        pytest.param(f"{POD}/gizmo", "v5.channel.k8s.io", ADMIN_TOKEN, 404, id="no-such-stream"),
    ],
)
async def test_refused_handshakes(
    cluster: tuple[RunningApiServer, EchoKubelet], path: str, protocols: str, token: str, status: int
) -> None:
    async with websocket(cluster[0], path, protocols, token) as (head, _):
        assert head.startswith(f"HTTP/1.1 {status} ")


@pytest.mark.parametrize("verb", ["exec", "attach"])
async def test_a_kubelets_refusal_comes_as_bare_text(cluster: tuple[RunningApiServer, EchoKubelet], verb: str) -> None:
    path = f"{POD}/{verb}?command=refuse&stdin=1&stdout=1"
    async with websocket(cluster[0], path, "v5.channel.k8s.io") as (head, socket):
        assert head.startswith("HTTP/1.1 404 ")
        assert "text/plain" in head
        assert await socket.rest() == b"container c not found in pod web_default\n"


async def test_a_command_ends_with_its_user(cluster: tuple[RunningApiServer, EchoKubelet]) -> None:
    server, kubelet = cluster
    async with websocket(server, f"{POD}/exec?command=forever&stdout=1", "v5.channel.k8s.io") as (head, _):
        assert head.startswith("HTTP/1.1 101 ")
    async with asyncio.timeout(5):
        await kubelet.left.wait()
