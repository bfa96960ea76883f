"""Clients that are slow, large or speak the wrong language, and requests that take too long."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from apiserver.rest import connections
from tests.harness.apiserver import DEADLINE, RunningApiServer, eventually, running_apiserver

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


async def test_http_on_the_tls_port_is_answered(apiserver: RunningApiServer) -> None:
    async with asyncio.timeout(DEADLINE):
        reader, writer = await asyncio.open_connection("127.0.0.1", apiserver.port)
        writer.write(b"GET /api HTTP/1.1\r\nhost: localhost\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.0 400 Bad Request\r\n")
        assert await reader.readline() == b"Client sent an HTTP request to an HTTPS server.\n"
        writer.close()
    assert (await apiserver.rest().get("/version")).status == 200


async def test_endless_heads_are_refused(apiserver: RunningApiServer) -> None:
    async with asyncio.timeout(DEADLINE):
        reader, writer = await apiserver.rest().connect()
        writer.write(b"GET /version HTTP/1.1\r\nhost: localhost\r\n")
        for number in range(300):
            writer.write(b"x-%d: %b\r\n" % (number, b"y" * 8000))
        assert (await reader.readline()).startswith(b"HTTP/1.1 431 ")
        writer.close()


async def test_a_silent_client_is_closed(apiserver: RunningApiServer) -> None:
    rest_server = apiserver.server._rest
    assert rest_server is not None
    rest_server._sweep = connections.Sweep(head_seconds=0.5)
    async with asyncio.timeout(DEADLINE):
        reader, writer = await apiserver.rest().connect()
        writer.write(b"GET /version HTTP/1.1\r\nhost: loc")
        assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize(
    ("query", "status", "reason"),
    [
        ("timeout=1ns", 504, "Timeout"),
        ("timeout=x", 400, "BadRequest"),
        ("timeout=30s", 200, ""),
        ("timeout=0", 200, ""),
    ],
)
async def test_the_timeout_parameter(apiserver: RunningApiServer, query: str, status: int, reason: str) -> None:
    answer = await apiserver.rest().get(f"{CONFIG_MAPS}?{query}")
    assert answer.status == status
    assert answer.json.get("reason", "") == reason


async def test_a_request_that_takes_too_long(apiserver: RunningApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    store = apiserver.server.registry.resource("", "v1", "configmaps")
    began = asyncio.Event()

    async def slow(*_: Any, **__: Any) -> bytes:
        began.set()
        await asyncio.sleep(60)
        raise AssertionError

    monkeypatch.setattr(type(store), "get", slow)
    monkeypatch.setattr(apiserver.server.deadlines, "_limit", 0.0)
    answer = await apiserver.rest().get(f"{CONFIG_MAPS}/x")
    assert began.is_set()
    assert answer.status == 504
    assert answer.json["reason"] == "Timeout"
    assert answer.json["message"] == "Timeout: request did not complete within the allotted timeout"
    assert apiserver.server.in_flight.counts == [0, 0]


async def test_a_stop_waits_with_readyz_failing() -> None:
    async with running_apiserver(shutdown_delay=1.5) as server:
        rest = server.rest()
        stopped = asyncio.ensure_future(server.server._stop_doors())
        async with asyncio.timeout(DEADLINE):
            while (await rest.get("/readyz")).status != 500:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert (await rest.get("/livez")).status == 200
            assert (await rest.get(CONFIG_MAPS)).status == 200
            await stopped
        with pytest.raises(OSError):
            await rest.get("/readyz")


async def test_requests_under_way_finish_at_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_apiserver() as server:
        rest = server.rest()
        assert (await rest.post(CONFIG_MAPS, {"metadata": {"name": "x"}})).status == 201
        store = server.server.registry.resource("", "v1", "configmaps")
        original, release, began = type(store).get, asyncio.Event(), asyncio.Event()

        async def held(self: Any, *args: Any, **kwargs: Any) -> bytes:
            if kwargs.get("subresource") is not None and args[2] == "x":
                began.set()
                await release.wait()
            return await original(self, *args, **kwargs)

        monkeypatch.setattr(type(store), "get", held)
        answer = asyncio.ensure_future(rest.get(f"{CONFIG_MAPS}/x"))
        await asyncio.wait_for(began.wait(), DEADLINE)
        stopped = asyncio.ensure_future(server.server._stop_doors())
        await eventually(lambda: server.server._stopping)
        release.set()
        assert (await asyncio.wait_for(answer, DEADLINE)).status == 200
        await stopped
