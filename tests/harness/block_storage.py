"""The block driver over a cloud in the test process: real gRPC on Unix sockets, real disks, machines in memory."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from block_storage import app as driver
from block_storage.cloud import Cloud
from block_storage.node import Settings
from cloud.app import serving as cloud_serving
from cloud.core import Core
from cloud.engine import Engine
from cloud.machines import FakeMachines
from cloud.model import Health, Instance, State, standard_types
from cloud.provider import CloudProvider
from cloud.requests import Requests
from cloud.service import CloudService
from cloud.store import Store
from cloud.volumes_engine import VolumeEngine
from cloud.volumes_media import DEVICES, Media, media
from linux import loop, mount
from machinery import grpc as transport
from machinery.clock import RealClock
from proto.csi.v1 import csi_pb2_grpc

SCALE = 20.0  # attaching takes 50 ms


@dataclass
class Driver:
    """A CSI driver as a client sees it. `nodes`: the node services by node id."""

    identity: csi_pb2_grpc.IdentityAsyncStub
    controller: csi_pb2_grpc.ControllerAsyncStub
    nodes: dict[str, csi_pb2_grpc.NodeAsyncStub]
    folder: Path
    volumes: VolumeEngine
    machines: FakeMachines
    socket: Path
    """Where the controller speaks."""


def _instance(name: str, zone: str) -> Instance:
    return Instance(name, "g", "standard-2x2", zone, 0.1, created=0.0, phase="running", launched=0.0)


@contextlib.asynccontextmanager
async def running_driver(
    kind: str = "folder", *, disks: Media | None = None, filesystem: str = "ext4"
) -> AsyncIterator[Driver]:
    """`kind` as in `cloud.volumes_media.media`. Nodes node-1 and node-2 in local-a, node-3 in local-b."""
    folder = Path(tempfile.mkdtemp(prefix="nk-csi-"))  # short: Unix sockets have short names
    zones = {"node-1": "local-a", "node-2": "local-a", "node-3": "local-b"}
    state = State("c", 0.0, types=standard_types(), instances={name: _instance(name, z) for name, z in zones.items()})
    machines, clock = FakeMachines({name: Health("g") for name in zones}), RealClock(SCALE)
    engine = Engine(Core(state), machines, Store(folder / "cloud.json"), clock)
    below = disks or media(kind, folder / "volumes", folder / "machines")
    volumes = VolumeEngine(engine, below, clock)
    requests = Requests(engine.core)
    address = f"unix:{folder / 'cloud.sock'}"
    try:
        async with contextlib.AsyncExitStack() as doors, asyncio.TaskGroup() as group:
            service = CloudService(requests, engine, list, volumes)
            await doors.enter_async_context(cloud_serving(address, CloudProvider(requests, engine.wake), service))
            tasks = [group.create_task(engine.run()), group.create_task(volumes.run())]
            cloud = Cloud(address)
            doors.push_async_callback(cloud.close)
            socket = folder / "csi.sock"
            await doors.enter_async_context(driver.serving(socket, driver.identity, driver.controller(cloud)))
            channel = await doors.enter_async_context(transport.channel(f"unix:{socket}"))
            nodes = {}
            for name, zone in zones.items():
                settings = Settings(name, zone, 16, folder / "machines" / name / DEVICES, filesystem)
                own = folder / f"{name}.sock"
                await doors.enter_async_context(driver.serving(own, driver.identity, driver.node(settings)))
                stub = csi_pb2_grpc.NodeStub(await doors.enter_async_context(transport.channel(f"unix:{own}")))
                nodes[name] = stub
            yield Driver(
                csi_pb2_grpc.IdentityStub(channel),
                csi_pb2_grpc.ControllerStub(channel),
                nodes,
                folder,
                volumes,
                machines,
                socket,
            )
            for each in tasks:
                each.cancel()
    finally:
        mount.unmount_below(str(folder))
        loop.detach_below(str(folder / "volumes"))
        shutil.rmtree(folder, ignore_errors=True)
