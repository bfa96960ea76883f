"""The servers under test: an API server in this process, alone or with the controllers, on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator

from client.client import Client as ComponentClient
from client.rest import RestClient
from controller_manager.aggregated import access_by
from controller_manager.app import ControllerManager
from controller_manager.environment import Options
from machinery.clock import RealClock
from tests.golden.client import Client
from tests.harness.apiserver import ADMIN_TOKEN, RunningApiServer, running_apiserver

START_SECONDS = 30.0


@contextlib.contextmanager
def serving(*, controllers: bool) -> Iterator[Client]:
    """A client of a server that answers while the context lasts."""
    ready = threading.Event()
    found: list[tuple[RunningApiServer, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        over = asyncio.Event()
        async with _running(controllers=controllers) as server:
            found.append((server, asyncio.get_running_loop(), over))
            ready.set()
            await over.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="golden-server")
    thread.start()
    assert ready.wait(START_SECONDS) and found, "the server did not start"
    server, loop, over = found[0]
    client = Client(server.url, str(server.ca), ADMIN_TOKEN)
    try:
        yield client
    finally:
        client.close()
        if thread.is_alive():
            loop.call_soon_threadsafe(over.set)
        thread.join(START_SECONDS)
        assert not thread.is_alive(), "the server did not stop"


@contextlib.asynccontextmanager
async def _running(*, controllers: bool) -> AsyncIterator[RunningApiServer]:
    async with running_apiserver() as server:
        if not controllers:
            yield server
            return
        client = ComponentClient.connect(server.grpc_target, server.admin_tls, field_manager="kube-controller-manager")
        rest = RestClient(server.url, server.admin_tls, user_agent="kube-controller-manager")
        options = Options(root_ca=server.ca.read_text())
        manager = ControllerManager(client, RealClock(), options, rest=rest, aggregated=access_by(rest))
        task = asyncio.ensure_future(manager.run())
        try:
            yield server
            assert not task.done(), task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await client.close()
            await rest.close()
