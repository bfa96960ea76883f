"""kill -9 of the API server's process: the same channel, cache and controllers go on when it is back at its address."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from api.models import core_v1, meta_v1
from client.client import Client
from client.informer import Informer
from machinery.clock import RealClock
from machinery.errors import StatusError
from tests.contract.etcd_server import EtcdServer
from tests.harness.apiserver import shared_pki
from tests.integration.controller_manager.hollow import eventually

ROOT = Path(__file__).resolve().parents[3]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def apiserver(etcd: EtcdServer, port: int) -> AsyncIterator[None]:
    pki = shared_pki()
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "apiserver",
        f"--etcd={etcd.target}",
        f"--bind=127.0.0.1:{free_port()}",
        f"--grpc-bind=127.0.0.1:{port}",
        f"--tls-cert={pki.serving.cert}",
        f"--tls-key={pki.serving.key}",
        f"--client-ca={pki.ca}",
        f"--service-account-key={pki.service_account_key}",
        cwd=ROOT,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        child.kill()
        await child.wait()


async def test_a_killed_server_is_found_again(tmp_path: Path) -> None:
    etcd = EtcdServer(tmp_path)
    etcd.start()
    port = free_port()
    client = Client.connect(f"127.0.0.1:{port}", shared_pki().client("admin", "system:masters"))
    informer: Informer[core_v1.Namespace] = Informer(client, core_v1.Namespace, clock=RealClock())
    task = asyncio.ensure_future(informer.run())

    async def reachable() -> bool:
        try:
            await client.list(core_v1.Namespace)
        except StatusError:
            return False
        return True

    try:
        for round_ in range(3):
            async with apiserver(etcd, port):
                await eventually(reachable, "the server to answer")
                name = f"round-{round_}"
                await client.create(core_v1.Namespace(metadata=meta_v1.ObjectMeta(name=name)))

                async def seen(name: str = name) -> bool:
                    return any(each.metadata and each.metadata.name == name for each in informer.lister.list())

                await eventually(seen, "the cache to follow")
            assert not await reachable()
        assert informer.relists == 0
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()
        etcd.kill()
