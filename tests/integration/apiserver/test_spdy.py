"""Port-forward and older clients' exec: SPDY/3.1 inside a WebSocket and after an upgrade, with a kubelet of ours."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable

import pytest

from apiserver.streams.spdy_frames import Data, Decoder, Encoder, Frame, GoAway, Ping, Reset, SynReply, SynStream
from tests.harness.apiserver import RunningApiServer
from tests.integration.apiserver.stream_site import POD, EchoKubelet, WebSocket, websocket

Site = tuple[RunningApiServer, EchoKubelet]
TUNNEL = "SPDY/3.1+portforward.k8s.io"


class SpdyClient:
    """The client's side of a connection: what it sent, and what came for each stream."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._encoder, self._decoder = Encoder(), Decoder()
        self._arrived = asyncio.Event()
        self.frames: list[Frame] = []
        self.ended = False

    def receives(self, data: bytes) -> None:
        self.frames += self._decoder.feed(data)
        self._arrived.set()

    def ends(self) -> None:
        self.ended = True
        self._arrived.set()

    def send(self, *frames: Frame) -> None:
        self._write(b"".join(self._encoder.encode(frame) for frame in frames))

    def noise(self, data: bytes) -> None:
        self._write(data)

    def text(self, stream: int) -> bytes:
        return b"".join(frame.data for frame in self.frames if isinstance(frame, Data) and frame.stream == stream)

    def finished(self, stream: int) -> bool:
        return any(isinstance(frame, Data) and frame.stream == stream and frame.fin for frame in self.frames)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                assert not self.ended, self.frames
                self._arrived.clear()
                await self._arrived.wait()

    async def until_end(self) -> None:
        async with asyncio.timeout(10):
            while not self.ended:
                self._arrived.clear()
                await self._arrived.wait()


async def _read_socket(socket: WebSocket, client: SpdyClient) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while (message := await socket.receive())[0] == 2:
            client.receives(message[1])
    client.ends()


async def _read_plain(reader: asyncio.StreamReader, client: SpdyClient) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            client.receives(data)
    client.ends()


@contextlib.asynccontextmanager
async def upgraded(server: RunningApiServer, path: str, *protocols: str) -> AsyncIterator[tuple[str, SpdyClient]]:
    """(head of the answer, client) after `POST` with `Upgrade: SPDY/3.1`."""
    rest = server.rest()
    reader, writer = await rest.connect()
    headers = {"connection": "Upgrade", "upgrade": "SPDY/3.1", "x-stream-protocol-version": ", ".join(protocols)}
    writer.write(rest.head("POST", path, b"", headers))
    client = SpdyClient(writer.write)
    async with asyncio.timeout(10):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    reading = asyncio.ensure_future(_read_plain(reader, client))
    try:
        yield head, client
    finally:
        writer.close()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


@contextlib.asynccontextmanager
async def forwarding(server: RunningApiServer, way: str) -> AsyncIterator[SpdyClient]:
    """A port-forward connection, in either way."""
    path = f"{POD}/portforward"
    if way == "upgrade":
        async with upgraded(server, path, "portforward.k8s.io") as (head, client):
            assert head.startswith("HTTP/1.1 101 ")
            assert "x-stream-protocol-version: portforward.k8s.io" in head.lower()
            yield client
        return
    async with websocket(server, path, TUNNEL) as (head, socket):
        assert head.startswith("HTTP/1.1 101 ")
        assert f"sec-websocket-protocol: {TUNNEL}" in head or f"Sec-WebSocket-Protocol: {TUNNEL}" in head
        client = SpdyClient(socket.send_raw)
        reading = asyncio.ensure_future(_read_socket(socket, client))
        try:
            yield client
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


def pair(request: str, port: int, first: int) -> list[Frame]:
    """The two streams of one connection, as kubectl opens them."""
    common = {"port": str(port), "requestid": request}
    return [
        SynStream(first, {"streamtype": "error", **common}),
        Data(first, b"", True),
        SynStream(first + 2, {"streamtype": "data", **common}),
    ]


@pytest.fixture(params=["tunnel", "upgrade"])
async def client(request: pytest.FixtureRequest, cluster: Site) -> AsyncIterator[SpdyClient]:
    async with forwarding(cluster[0], request.param) as made:
        yield made


async def test_connections_side_by_side(cluster: Site, client: SpdyClient) -> None:
    client.send(*pair("0", 80, 1), *pair("1", 80, 5))
    client.send(Data(3, b"one"), Data(7, b"two"), Data(3, b"more"))
    await client.until(lambda: client.text(3) == b"ONEMORE" and client.text(7) == b"TWO")
    assert SynReply(1, {}) in client.frames and SynReply(7, {}) in client.frames
    client.send(Data(3, b"", True))  # the pod still answers after the client's last word
    await client.until(lambda: client.finished(3) and client.finished(1))
    assert (client.text(3), client.text(1)) == (b"ONEMOREbye", b"")
    client.send(Data(7, b"still here"))
    await client.until(lambda: client.text(7) == b"TWOSTILL HERE")
    assert {(opening.pod, opening.port) for opening in cluster[1].asked} == {("web", 80)}


async def test_nothing_listens(client: SpdyClient) -> None:
    client.send(*pair("0", 81, 1))
    await client.until(lambda: client.finished(1) and client.finished(3))
    assert client.text(1) == b"connection refused by 81"
    client.send(*pair("1", 80, 5), Data(7, b"alive"))
    await client.until(lambda: client.text(7) == b"ALIVE")


async def test_streams_without_an_id_belong_together(client: SpdyClient) -> None:
    client.send(SynStream(1, {"streamtype": "error", "port": "80"}), SynStream(3, {"streamtype": "data", "port": "80"}))
    client.send(Data(3, b"old"))
    await client.until(lambda: client.text(3) == b"OLD")


async def test_bad_streams_are_reset(client: SpdyClient) -> None:
    client.send(
        SynStream(1, {"streamtype": "data", "port": "0"}),
        SynStream(3, {"streamtype": "gossip", "port": "80"}),
        SynStream(5, {}),
    )
    await client.until(lambda: {frame.stream for frame in client.frames if isinstance(frame, Reset)} == {1, 3, 5})


async def test_a_client_that_resets_frees_the_kubelet(cluster: Site, client: SpdyClient) -> None:
    client.send(*pair("0", 80, 1), Data(3, b"x"))
    await client.until(lambda: client.text(3) == b"X")
    client.send(Reset(3, 5), Ping(1))
    async with asyncio.timeout(5):
        await cluster[1].left.wait()
    await client.until(lambda: Ping(1) in client.frames)


async def test_noise_ends_the_connection_only(cluster: Site, client: SpdyClient) -> None:
    client.noise(b"\x80\x02GET / HTTP/1.1")
    await client.until_end()
    assert GoAway(0, 1) in client.frames
    assert (await cluster[0].rest().get("/livez")).status == 200


async def test_a_client_that_leaves_frees_the_kubelet(cluster: Site) -> None:
    for way in ("tunnel", "upgrade"):
        cluster[1].left.clear()
        async with forwarding(cluster[0], way) as client:
            client.send(*pair("0", 80, 1), Data(3, b"x"))
            await client.until(lambda: client.text(3) == b"X")
        async with asyncio.timeout(5):
            await cluster[1].left.wait()


@pytest.mark.parametrize("protocols", ["v4.channel.k8s.io", ""])
async def test_channels_for_clients_without_spdy(cluster: Site, protocols: str) -> None:
    async with websocket(cluster[0], f"{POD}/portforward?ports=80,81", protocols) as (head, socket):
        assert head.startswith("HTTP/1.1 101 ")
        heads = [(await socket.receive())[1] for _ in range(4)]
        assert heads == [b"\x00P\x00", b"\x01P\x00", b"\x02Q\x00", b"\x03Q\x00"]
        assert await socket.receive() == (2, b"\x03connection refused by 81")
        socket.send(0, b"hello")
        assert await socket.receive() == (2, b"\x00HELLO")


@pytest.mark.parametrize("ports", ["", "?ports=x", "?ports=0", "?ports=80,", "?ports=" + "80," * 64 + "80"])
async def test_channels_need_ports(cluster: Site, ports: str) -> None:
    async with websocket(cluster[0], f"{POD}/portforward{ports}", "v4.channel.k8s.io") as (head, _):
        assert head.startswith("HTTP/1.1 400 ")


@pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", "v3.channel.k8s.io"])
@pytest.mark.parametrize("verb", ["exec", "attach"])
async def test_a_session_of_streams(cluster: Site, verb: str, protocol: str) -> None:
    path = f"{POD}/{verb}?command=sh&stdin=1&stdout=1&tty=1"
    async with upgraded(cluster[0], path, "v5.channel.k8s.io", protocol) as (head, client):
        assert head.startswith("HTTP/1.1 101 ")
        assert f"x-stream-protocol-version: {protocol}" in head.lower()
        kinds = ("error", "stdin", "stdout", "resize")
        client.send(*(SynStream(2 * number + 1, {"streamtype": kind}) for number, kind in enumerate(kinds)))
        await client.until(lambda: client.text(5) == b"sh")
        client.send(Data(7, b'{"Width":80,"Hei'), Data(7, b'ght":24}\n'))
        await client.until(lambda: client.text(5) == b"sh80x24")
        client.send(Data(3, b"", True))
        await client.until(lambda: client.finished(1) and client.finished(5))
        if protocol.startswith("v4"):
            assert json.loads(client.text(1))["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]
        else:
            assert client.text(1) == b"seven"


@pytest.mark.parametrize(
    ("path", "protocols", "status", "message"),
    [
        pytest.param(f"{POD}/exec?command=ls&stdout=1", ("v9.x",), 403, "unable to negotiate protocol", id="protocol"),
        pytest.param(f"{POD}/exec?stdout=1", ("v4.channel.k8s.io",), 400, "at least one command", id="no-command"),
        pytest.param(f"{POD}/portforward", ("v4.channel.k8s.io",), 403, "unable to negotiate protocol", id="forward"),
        pytest.param(f"{POD}/exec?command=refuse&stdout=1", ("v4.channel.k8s.io",), 404, "", id="kubelet"),
    ],
)
async def test_refused_upgrades(
    cluster: Site, path: str, protocols: tuple[str, ...], status: int, message: str
) -> None:
    rest = cluster[0].rest()
    headers = {"connection": "Upgrade", "upgrade": "SPDY/3.1", "x-stream-protocol-version": ", ".join(protocols)}
    answer = await rest.request("POST", path, b"", headers)
    assert answer.status == status
    assert message in answer.body.decode()


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        pytest.param("GET", f"{POD}/exec?command=ls&stdout=1", b"", 400, id="streams-are-not-reads"),
        pytest.param("GET", "/api/v1/namespaces/default/pods", b"", 200, id="no-stream"),
        pytest.param("POST", "/api/v1/namespaces", b'{"metadata":{"name":"made"}}', 400, id="with-a-body"),
    ],
)
async def test_upgrades_of_what_cannot_be(cluster: Site, method: str, path: str, body: bytes, status: int) -> None:
    headers = {"connection": "Upgrade", "upgrade": "SPDY/3.1", "x-stream-protocol-version": "v4.channel.k8s.io"}
    assert (await cluster[0].rest().request(method, path, body, headers)).status == status


async def test_a_stop_ends_streams(cluster: Site) -> None:
    async with forwarding(cluster[0], "upgrade") as client:
        client.send(*pair("0", 80, 1), Data(3, b"x"))
        await client.until(lambda: client.text(3) == b"X")
        async with asyncio.timeout(4):  # less than the grace that requests under way have
            await cluster[0].server._stop_doors()
            await client.until_end()
