"""The API server is away for longer than the nodes' grace period: that is no reason to give up nodes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from api import resources
from api.models import core_v1
from client.client import Client
from client.informer import EventHandler
from controller_manager.app import ControllerManager
from controller_manager.environment import Options
from machinery.clock import RealClock
from machinery.errors import AlreadyExists, StatusError
from tests.contract.etcd_server import EtcdServer
from tests.harness.apiserver import shared_pki
from tests.integration.client.test_server_killed import apiserver, free_port
from tests.integration.controller_manager.hollow import Cluster, eventually

NODES = resources.of(core_v1.Node)
SCALE = 20.0
AWAY = 3.5
"""Real seconds: 70 cluster seconds, more than the grace period of 50."""


async def test_nodes_stay_ready_over_a_long_outage(tmp_path: Path) -> None:
    etcd = EtcdServer(tmp_path)
    etcd.start()
    port, clock = free_port(), RealClock(SCALE)
    client = Client.connect(f"127.0.0.1:{port}", shared_pki().client("admin", "system:masters"))
    manager = ControllerManager(client, clock, Options())
    cluster = Cluster(client, clock, manager)
    nodes = manager.environment.informers.informer(core_v1.Node)
    unknown: list[str] = []

    def look(_: core_v1.Node, node: core_v1.Node) -> None:
        conditions = node.status.conditions if node.status and node.status.conditions else []
        if any(each.type == "Ready" and each.status == "Unknown" for each in conditions) and node.metadata:
            unknown.append(node.metadata.name or "")

    nodes.add_handler(EventHandler(on_update=look))
    task = asyncio.ensure_future(cluster.run())

    async def registered(name: str) -> bool:
        try:
            await cluster.add_node(name)
        except AlreadyExists:
            cluster.alive.add(name)
        except StatusError:
            return False
        return True

    try:
        async with apiserver(etcd, port):
            for name in ("n1", "n2"):
                await eventually(lambda name=name: registered(name), f"{name} to register")  # type: ignore[misc]

            async def seen() -> bool:
                return len(nodes.lister) == 2

            await eventually(seen, "both nodes in the cache")
            await clock.sleep(20)
        living = set(cluster.alive)
        cluster.alive.clear()
        await asyncio.sleep(AWAY)
        async with apiserver(etcd, port):

            async def again() -> bool:
                return bool((await client.list(NODES)).items)

            await eventually(again, "the server to answer")
            await clock.sleep(25)
            cluster.alive |= living  # kubelets find the server again later than we do
            await clock.sleep(60)
            assert unknown == []
            cluster.alive.discard("n2")

            async def lost() -> bool:
                return "n2" in unknown

            await eventually(lost, "a truly silent node to be noticed still")
            assert "n1" not in unknown
    finally:
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()
        etcd.kill()
