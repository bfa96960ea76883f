"""The controller manager as a process: flags, readiness, clean exit, kill -9 amidst work, two with one lease."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api.models import apps_v1, coordination_v1
from client.client import Client
from tests.contract.etcd_server import EtcdServer
from tests.harness.apiserver import RunningApiServer, running_apiserver
from tests.integration.controller_manager.hollow import eventually
from tests.integration.controller_manager.test_workloads import DEPLOYMENTS, NS, PODS, web

ROOT = Path(__file__).resolve().parents[3]


@contextlib.asynccontextmanager
async def process(server: RunningApiServer, *flags: str) -> AsyncIterator[asyncio.subprocess.Process]:
    pair = server.admin_tls
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "controller_manager",
        f"--api-server={server.grpc_target}",
        f"--ca={pair.ca}",
        f"--cert={pair.cert}",
        f"--key={pair.key}",
        *flags,
        cwd=ROOT,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def health(path: Path, what: str) -> str:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(f"GET {what} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    return answer


async def pods_of(client: Client) -> int:
    return len((await client.list(PODS, NS)).items)


@pytest.fixture
async def server() -> AsyncIterator[RunningApiServer]:
    async with running_apiserver() as running:
        yield running


@pytest.fixture
async def client(server: RunningApiServer) -> AsyncIterator[Client]:
    made = Client.connect(server.grpc_target, server.admin_tls)
    yield made
    await made.close()


async def test_it_becomes_ready_tells_metrics_and_stops_cleanly(
    server: RunningApiServer, client: Client, tmp_path: Path
) -> None:
    socket = tmp_path / "health.sock"
    async with process(server, f"--healthz=unix:{socket}") as child:

        async def ready() -> bool:
            return socket.exists() and "200 OK" in await health(socket, "/readyz")

        await eventually(ready, "readiness")
        await client.create(web(3))

        async def made() -> bool:
            return await pods_of(client) == 3

        await eventually(made, "three pods")
        metrics = await health(socket, "/metrics")
        assert 'controller_reconcile_total{controller="deployment"}' in metrics
        child.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(child.wait(), 10) == 0


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(["--controllers=nope"], id="unknown controller"),
        pytest.param(["--root-ca-file=/nowhere"], id="missing file"),
        pytest.param(["--time-scale=x"], id="not a number"),
    ],
)
async def test_bad_flags_are_refused(server: RunningApiServer, flags: list[str]) -> None:
    async with process(server, *flags) as child:
        assert await asyncio.wait_for(child.wait(), 20) == 2


async def test_another_takes_up_the_work_of_a_killed_one(server: RunningApiServer, client: Client) -> None:
    async with process(server) as child:
        await client.create(web(200))

        async def begun() -> bool:
            return await pods_of(client) > 0

        await eventually(begun, "the first pods")
        child.kill()
        await child.wait()
    async with process(server):

        async def finished() -> bool:
            live = await client.get(DEPLOYMENTS, "web", NS)
            return await pods_of(client) == 200 and bool(live["status"].get("replicas") == 200)

        await eventually(finished, "200 pods, no more and no fewer")


async def test_only_the_holder_of_the_lease_works(server: RunningApiServer, client: Client) -> None:
    scale = "--time-scale=20"

    async def holder() -> str:
        lease = await client.get(coordination_v1.Lease, "kube-controller-manager", "kube-system")
        assert lease.spec is not None
        return lease.spec.holderIdentity or ""

    async with process(server, "--leader-elect", scale) as first, process(server, "--leader-elect", scale) as second:
        leader = await eventually(holder, "a leader")
        by_pid = {str(each.pid): each for each in (first, second)}
        killed = by_pid[leader.rpartition("_")[2]]
        killed.kill()

        async def replaced() -> bool:
            return await holder() not in ("", leader)

        await eventually(replaced, "the standby to take over after the lease")
        await client.create(web(2))

        async def made() -> bool:
            return await pods_of(client) == 2

        await eventually(made, "pods made by the new leader")


async def test_it_outlives_its_api_server(tmp_path: Path) -> None:
    etcd = EtcdServer(tmp_path)
    etcd.start()
    try:
        async with running_apiserver("etcd", etcd=etcd.target) as server:
            client = Client.connect(server.grpc_target, server.admin_tls)
            async with process(server) as child:
                await client.create(web(2))

                async def made(count: int) -> bool:
                    return await pods_of(client) == count

                await eventually(lambda: made(2), "two pods")
                etcd.kill()
                await asyncio.sleep(0.5)
                await asyncio.to_thread(etcd.start)

                async def scaled() -> bool:
                    await client.patch(apps_v1.Deployment, "web", {"spec": {"replicas": 5}}, NS)
                    return True

                await eventually(scaled, "a write after the outage")
                await eventually(lambda: made(5), "five pods after the outage")
                assert child.returncode is None
            await client.close()
    finally:
        etcd.kill()
