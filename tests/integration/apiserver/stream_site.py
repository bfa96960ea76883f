"""What tests of streams share: a kubelet that answers as the test wants, and a small WebSocket client."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import ssl
from collections.abc import AsyncIterator
from typing import Any, cast

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
        failed = {
            "status": "Failure",
            "reason": "NonZeroExitCode",
            "message": "seven",
            "details": {"causes": causes},
            "metadata": {},
        }
        yield pb.StreamOutput(status_json=json.dumps(failed).encode())

    async def PortForward(
        self, inputs: AsyncIterator[pb.PortForwardData], context: Any
    ) -> AsyncIterator[pb.PortForwardData]:
        """Port 80 shouts what it hears, and says "bye" to a half close; nothing listens on others."""
        opening = (await anext(inputs)).open
        self.asked.append(opening)
        if opening.port != 80:
            yield pb.PortForwardData(error=f"connection refused by {opening.port}")
            return
        try:
            async for message in inputs:
                if message.WhichOneof("message") == "half_close":
                    yield pb.PortForwardData(data=b"bye")
                    return
                yield pb.PortForwardData(data=message.data.upper())
        finally:
            self.left.set()

    async def GetStats(self, request: pb.StatsRequest, context: Any) -> pb.StatsSummary:
        usage = pb.Usage(time_unix_nanos=1_700_000_000_000_000_000, cpu_usage_nanocores=5, memory_working_set_bytes=7)
        pod = pb.PodUsage(namespace="default", name="web", usage=usage)
        return pb.StatsSummary(node="n1", usage=usage, pods=[pod])

    Attach = Exec


@contextlib.asynccontextmanager
async def streaming_cluster(node_address: str = "127.0.0.1") -> AsyncIterator[tuple[RunningApiServer, EchoKubelet]]:
    """A server with one pod, on a node whose kubelet is the test's."""
    async with running_apiserver(kubelet=True) as server:
        kubelet = EchoKubelet()
        serving = transport.server()
        kubelet_pb2_grpc.add_KubeletServiceServicer_to_server(cast(Any, kubelet), serving)
        pair = KeyPair(server.ca, server.pki.serving.cert, server.pki.serving.key)
        port = transport.add_port(serving, "0.0.0.0:0", pair)
        await serving.start()
        rest = server.rest()
        await rest.post("/api/v1/nodes", {"metadata": {"name": "n1"}})
        status = {
            "addresses": [{"type": "InternalIP", "address": node_address}],
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


class WebSocket:
    """The client's side of RFC 6455, as far as these streams need it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, channel: int, data: bytes) -> None:
        payload = bytes([channel]) + data
        assert len(payload) < 126
        self.send_raw(payload)

    def send_raw(self, payload: bytes, opcode: int = 2) -> None:
        """One message, binary unless told."""
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
        self._writer.write(bytes([0x80 | opcode]) + size + mask + masked)

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
    server: RunningApiServer, path: str, protocols: str, token: str = ADMIN_TOKEN, as_user: str = ""
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
        *([f"sec-websocket-protocol: {protocols}"] if protocols else ()),
        f"authorization: Bearer {token}",
        *([f"impersonate-user: {as_user}"] if as_user else ()),
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        async with asyncio.timeout(10):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            yield head, WebSocket(reader, writer)
    finally:
        writer.close()
