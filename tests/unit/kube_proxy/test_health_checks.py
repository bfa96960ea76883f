"""What a load balancer hears that asks for a Service's endpoints on this machine."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.error
import urllib.request
from typing import Any

import pytest

from kube_proxy.health_checks import Answer, HealthChecks
from kube_proxy.objects import Metadata, Port, Service, ServiceSpec
from kube_proxy.services import health_check_of
from kube_proxy.topology import Place
from tests.unit.kube_proxy.test_services import BROKEN, DRAINING, READY, slice_of


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(port: int) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


async def test_a_port_answers_by_what_is_here_until_nobody_wants_it() -> None:
    port, checks = free_port(), HealthChecks("127.0.0.1")
    try:
        for local, status in ((2, 200), (0, 503)):
            await checks.set({port: Answer("default", "web", local)})
            told = {"namespace": "default", "name": "web"}
            expected = {"service": told, "localEndpoints": local, "serviceProxyHealthy": True}
            assert await asyncio.to_thread(ask, port) == (status, expected)
        await checks.set({})
        with pytest.raises(OSError):
            await asyncio.to_thread(ask, port)
    finally:
        await checks.close()


async def test_a_port_that_is_taken_harms_no_other() -> None:
    port, checks = free_port(), HealthChecks("127.0.0.1")
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        try:
            await checks.set({taken: Answer("a", "b", 1), port: Answer("default", "web", 1)})
            assert (await asyncio.to_thread(ask, port))[0] == 200
        finally:
            await checks.close()


async def test_nonsense_is_not_answered() -> None:
    port, checks = free_port(), HealthChecks("127.0.0.1")
    await checks.set({port: Answer("default", "web", 1)})
    try:
        for nonsense in (b"x" * 20_000, b"\0\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(nonsense)
            writer.write_eof()
            try:
                assert await asyncio.wait_for(reader.read(), 10) == b""
            except ConnectionResetError:
                continue  # what was sent was not even read
            finally:
                writer.close()
    finally:
        await checks.close()


@pytest.mark.parametrize(
    ("spec", "place", "expected"),
    [
        pytest.param(
            {"externalTrafficPolicy": "Local"}, Place("worker-1"), {31000: 1}, id="ready ones of this machine"
        ),
        pytest.param({"externalTrafficPolicy": "Local"}, Place("worker-2"), {31000: 0}, id="all are elsewhere"),
        pytest.param({"externalTrafficPolicy": "Cluster"}, Place("worker-1"), {}, id="any machine will do"),
        pytest.param({"externalTrafficPolicy": "Local"}, Place(), {}, id="the host is no node"),
    ],
)
def test_who_is_counted(spec: dict[str, Any], place: Place, expected: dict[int, int]) -> None:
    ports = [Port(80), Port(81)]  # an endpoint that serves both counts once
    made = ServiceSpec(type="LoadBalancer", clusterIP="10.96.0.1", ports=ports, healthCheckNodePort=31000, **spec)
    found = health_check_of(Service(Metadata("web", "default"), made), [slice_of(READY, DRAINING, BROKEN)], place)
    assert found == {port: Answer("default", "web", count) for port, count in expected.items()}
