"""The cloud process: flags, assembly, health."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from client.client import add_client_flags, client_from_args
from client.events import EventRecorder
from client.informer import Informers
from cloud import cost
from cloud.balancers import BalancerController
from cloud.core import Core
from cloud.engine import Engine
from cloud.hollow import BothKinds, HollowMachines
from cloud.machines import FakeMachines, Machines
from cloud.machines_service import MachineService
from cloud.model import State, standard_types
from cloud.node import NODES
from cloud.nodes import NodeController
from cloud.orders import Orders
from cloud.provider import CloudProvider
from cloud.requests import Requests
from cloud.service import CloudService
from cloud.store import DamagedState, Store
from cloud.supervised import SupervisedMachines
from cloud.termination import Drain
from cloud.volumes_engine import VolumeEngine
from cloud.volumes_media import media
from machinery import component
from machinery import grpc as transport
from machinery.component import ComponentContext
from machinery.log import kv

NAME = "cloud"
MANAGER = "cloud-controller-manager"
ROSTER = "hollow.json"  # beside the state: the nodes that the process of hollow nodes plays
GRACE = 1.0


def parser() -> argparse.ArgumentParser:
    made = component.parser(NAME, "An emulated cloud: node groups, machines, load balancers and what they cost.")
    made.add_argument("--cluster", required=True, help="name of the cluster: the host part of provider ids")
    made.add_argument("--state", type=Path, required=True, metavar="FILE", help="what the cloud remembers (JSON)")
    made.add_argument(
        "--listen", required=True, metavar="unix:PATH", help="externalgrpc CloudProvider and CloudService"
    )
    source = made.add_mutually_exclusive_group(required=True)
    source.add_argument("--machines", type=Path, metavar="SOCKET", help="the supervisor's control socket")
    source.add_argument("--fake-machines", action="store_true", help="no machines at all: to try an autoscaler")
    made.add_argument(
        "--load-balancer-cidr", type=ipaddress.IPv4Network, required=True, help="addresses of load balancers"
    )
    made.add_argument(
        "--volumes", choices=("loop", "folder"), help="have block volumes: files behind loop devices, or folders"
    )
    made.add_argument("--volume-folder", type=Path, metavar="FOLDER", help="where volumes are kept")
    made.add_argument("--machine-folder", type=Path, metavar="FOLDER", help="where each machine has a folder")
    add_client_flags(made)
    return made


@contextlib.asynccontextmanager
async def serving(
    address: str, provider: CloudProvider, service: CloudService | None = None, machines: MachineService | None = None
) -> AsyncIterator[None]:
    """All services on one address. Raises OSError when it is taken."""
    from proto.cloud.v1 import cloud_pb2_grpc, machines_pb2_grpc
    from proto.externalgrpc.v1 import externalgrpc_pb2_grpc

    server = transport.server()
    own: Any = service
    servicer: Any = provider
    externalgrpc_pb2_grpc.add_CloudProviderServicer_to_server(servicer, server)
    if own is not None:
        cloud_pb2_grpc.add_CloudServiceServicer_to_server(own, server)
    single: Any = machines
    if single is not None:
        machines_pb2_grpc.add_MachineServiceServicer_to_server(single, server)
    transport.add_port(server, address)
    await server.start()
    try:
        yield
    finally:
        await server.stop(GRACE)


async def serve(context: ComponentContext, args: argparse.Namespace, state: State, store: Store) -> None:
    clock = context.clock
    client = client_from_args(args, clock, field_manager=MANAGER)
    informers = Informers(client, clock)
    machines: Machines = FakeMachines()
    if not args.fake_machines:
        real = SupervisedMachines(args.machines)
        roster = args.state.with_name(ROSTER)
        machines = BothKinds(real, HollowMachines(roster, client, informers.informer(NODES), real.play_hollow))
    engine = Engine(Core(state), machines, store, clock)
    requests = Requests(engine.core)
    events = EventRecorder(client, clock, MANAGER)
    nodes = NodeController(client, informers, clock, engine, events, Drain(client))
    engine.on_change = nodes.passed
    volumes: VolumeEngine | None = None
    if args.volumes:
        disks = media(args.volumes, args.volume_folder, args.machine_folder)
        volumes = VolumeEngine(engine, disks, clock)
    balancers = BalancerController(client, informers, clock, events, args.load_balancer_cidr)

    context.health.ready("informers-synced", False)
    context.health.metric("cloud_machines", lambda: float(len(engine.seen)))
    context.health.metric("cloud_dollars_per_hour", lambda: cost.total(state, engine.now()).hourly)

    async def readiness() -> None:
        await informers.wait_synced()
        context.health.ready("informers-synced")

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(informers.run())
            group.create_task(readiness())
            group.create_task(events.run())
            group.create_task(engine.run())
            group.create_task(nodes.controller.run())
            group.create_task(balancers.controller.run())
            if volumes is not None:
                group.create_task(volumes.run())

    try:
        service = CloudService(requests, engine, balancers.listing, volumes)
        disk = shutil.disk_usage(args.state.parent).total
        single = MachineService(Orders(engine.core), engine, disk)
        async with serving(args.listen, CloudProvider(requests, engine.wake, clock.scale, disk), service, single):
            context.log.info("Serving", extra=kv(address=args.listen, groups=len(state.groups)))
            await context.until_stopped(work())
    finally:
        await client.close()


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    if args.volumes and not (args.volume_folder and args.machine_folder):
        print(f"{NAME}: --volumes wants --volume-folder and --machine-folder", file=sys.stderr)
        return 2
    store = Store(args.state)
    try:
        state = store.load() or State(cluster=args.cluster, since=0.0)
    except (DamagedState, OSError) as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 1
    state.types = {**standard_types(), **state.types}
    return component.run(NAME, args, lambda context: serve(context, args, state, store))
