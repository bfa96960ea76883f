"""The proxy subresources, with a backend in the test's process on an address of this machine's own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.harness.apiserver import USER_TOKEN, RestClient, RunningApiServer
from tests.integration.apiserver.stream_site import POD, EchoKubelet, streaming_cluster

PODS = "/api/v1/namespaces/default/pods"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n1\r\n!\r\n0\r\n\r\n"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def own_address() -> str:
    """An address that is not loopback: those are refused. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])


@contextlib.asynccontextmanager
async def backend(serve: Serve) -> AsyncIterator[int]:
    """A server for whatever a test wants to answer; its port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "0.0.0.0", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.fixture
async def site() -> AsyncIterator[RunningApiServer]:
    address = own_address()
    async with streaming_cluster(address) as (server, _):
        status = {"status": {"podIP": address, "podIPs": [{"ip": address}], "phase": "Running"}}
        merge = {"content-type": "application/merge-patch+json"}
        answer = await server.rest().request("PATCH", f"{POD}/status", status, merge)
        assert answer.status == 200, answer.body
        yield server


def saying(answer: bytes, heard: list[bytes] | None = None) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if heard is not None:
            heard.append(head)
        writer.write(answer)
        await writer.drain()

    return serve


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", 200, b"hi", id="length"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n1\r\n!\r\n0\r\n\r\n",
            200,
            b"hi!",
            id="chunked",
        ),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 200, b"until the end", id="until-close"),
        pytest.param(
            b"HTTP/1.0 200 OK\r\nage: 1\nserver: x\n\nlines end bare", 200, b"lines end bare", id="bare-newlines"
        ),
        pytest.param(b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\ngone", 404, b"gone", id="backends-404"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", id="no-content"),
        pytest.param(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 1\r\n\r\nx", 201, b"x", id="interim"
        ),
        pytest.param(b"", 503, b"error trying to reach service: EOF", id="silent"),
        pytest.param(b"SSH-2.0-x\r\n", 503, b"error trying to reach service", id="not-http"),
    ],
)
async def test_answers(site: RunningApiServer, answer: bytes, status: int, body: bytes) -> None:
    async with backend(saying(answer)) as port:
        got = await site.rest().get(f"{PODS}/web:{port}/proxy/")
    assert got.status == status
    assert body in got.body


async def test_what_crosses(site: RunningApiServer) -> None:
    heard: list[bytes] = []
    answer = b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\nlocation: /next\r\nx-own: 1\r\n\r\n"
    async with backend(saying(answer, heard)) as port:
        path = f"{PODS}/http:web:{port}/proxy/a%2Fb?q=1&q=2"
        got = await site.rest().get(path, x_own="yes")
    assert (got.status, got.header("x-own")) == (302, "1")
    assert got.header("location") == f"{PODS}/http:web:{port}/proxy/next"
    head = heard[0].decode()
    assert head.startswith("GET /a%2Fb?q=1&q=2 HTTP/1.1\r\n")
    assert "x-own: yes" in head
    assert "authorization" not in head


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % length)
    while length:
        data = await reader.read(65536)
        length -= len(data)
        writer.write(data)
        await writer.drain()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_bodies_larger_than_any_object(site: RunningApiServer, method: str) -> None:
    body = bytes(range(256)) * 20_000
    async with backend(echo) as port:
        got = await site.rest().request(method, f"{PODS}/web:{port}/proxy/", body)
    assert (got.status, got.body == body) == (200, True)


async def test_parts_come_as_they_are_made(site: RunningApiServer) -> None:
    read = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\none")
        await read.wait()
        writer.write(b"two")
        await writer.drain()

    rest: RestClient = site.rest()
    async with backend(serve) as port, asyncio.timeout(10):
        reader, writer = await rest.connect()
        writer.write(rest.head("GET", f"{PODS}/web:{port}/proxy/", b"", {}))
        await reader.readuntil(b"one")
        read.set()
        await reader.readuntil(b"two")
        writer.close()


async def test_an_answer_that_breaks_off_is_not_whole(site: RunningApiServer) -> None:
    async with backend(saying(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n")) as port:
        with pytest.raises((asyncio.IncompleteReadError, ValueError, ConnectionError)):
            await site.rest().get(f"{PODS}/web:{port}/proxy/")


async def test_a_client_that_leaves_frees_the_backend(site: RunningApiServer) -> None:
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhello")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        left.set()

    rest = site.rest()
    async with backend(serve) as port, asyncio.timeout(10):
        reader, writer = await rest.connect()
        writer.write(rest.head("GET", f"{PODS}/web:{port}/proxy/", b"", {}))
        await reader.readuntil(b"hello")
        writer.close()
        await left.wait()


UPGRADE = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-key": "a2V5", "sec-websocket-version": "13"}


async def test_upgrades_pass_and_bytes_cross_both_ways(site: RunningApiServer) -> None:
    heard: list[bytes] = []
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        switching = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
        writer.write(switching + b"sec-websocket-accept: yes\r\n\r\nhello")
        while data := await reader.read(100):
            writer.write(data.upper())
        left.set()

    rest = site.rest()
    async with backend(serve) as port, asyncio.timeout(10):
        reader, writer = await rest.connect()
        writer.write(rest.head("GET", f"{PODS}/web:{port}/proxy/chat?x=1", b"", UPGRADE))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"sec-websocket-accept: yes" in head.lower()
        assert await reader.readexactly(5) == b"hello"
        writer.write(b"\x81\x02hi")
        assert await reader.readexactly(4) == b"\x81\x02HI"
        writer.close()
        await left.wait()
    assert heard[0].startswith(b"GET /chat?x=1 HTTP/1.1\r\n")
    assert b"sec-websocket-key: a2V5" in heard[0]
    assert b"authorization" not in heard[0].lower()


async def test_a_backend_may_refuse_an_upgrade(site: RunningApiServer) -> None:
    answer = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno"
    async with backend(saying(answer)) as port:
        got = await site.rest().request("GET", f"{PODS}/web:{port}/proxy/", headers=UPGRADE)
        assert (got.status, got.body) == (403, b"no")


async def test_an_upgrade_needs_the_right_to_the_proxy(site: RunningApiServer) -> None:
    got = await site.rest(USER_TOKEN).request("GET", f"{PODS}/web:80/proxy/", headers=UPGRADE)
    assert got.status == 403


async def test_a_bare_path_gets_its_slash(site: RunningApiServer) -> None:
    got = await site.rest().get(f"{POD}/proxy?x=1")
    assert (got.status, got.header("location")) == (301, f"{POD}/proxy/?x=1")


async def test_services(site: RunningApiServer) -> None:
    rest = site.rest()
    spec = {"ports": [{"name": "http", "port": 80}]}
    await rest.post("/api/v1/namespaces/default/services", {"metadata": {"name": "web"}, "spec": spec})
    services = "/api/v1/namespaces/default/services"
    unknown = await rest.get(f"{services}/web:80/proxy/")  # no controller has looked at it yet
    assert (unknown.status, unknown.json["reason"]) == (404, "NotFound")
    async with backend(saying(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")) as port:
        made = await rest.post(
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
            {
                "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [own_address()], "conditions": {"ready": True}}],
                "ports": [{"name": "http", "port": port}],
            },
        )
        assert made.status == 201, made.body
        for name in ("web:80", "web:http", "http:web:http"):
            assert (await rest.get(f"{services}/{name}/proxy/")).body == b"hi"
    assert (await rest.get(f"{services}/ghost/proxy/")).status == 404


async def test_kubelets(cluster: tuple[RunningApiServer, EchoKubelet]) -> None:
    rest = cluster[0].rest()
    assert (await rest.get("/api/v1/nodes/n1/proxy/healthz")).body == b"ok"
    told = (await rest.get("/api/v1/nodes/n1/proxy/stats/summary")).json
    assert told["node"]["nodeName"] == "n1"
    assert told["node"]["cpu"] == {"time": "2023-11-14T22:13:20Z", "usageNanoCores": 5, "usageCoreNanoSeconds": 0}
    assert told["pods"][0]["podRef"] == {"name": "web", "namespace": "default", "uid": ""}
    assert (await rest.get("/api/v1/nodes/n1/proxy/other")).status == 404


async def test_other_ports_of_nodes(site: RunningApiServer) -> None:
    rest = site.rest()
    async with backend(saying(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")) as port:
        assert (await rest.get(f"/api/v1/nodes/n1:{port}/proxy/")).body == b"hi"


async def test_who_may(site: RunningApiServer) -> None:
    answer = await site.rest("user-token").get(f"{POD}/proxy/")
    assert answer.status == 403
    assert 'cannot get resource "pods/proxy"' in answer.json["message"]
