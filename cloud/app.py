"""The cloud process: flags, assembly, health."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from cloud.core import Core
from cloud.engine import Engine
from cloud.machines import FakeMachines, Machines
from cloud.model import State, standard_types
from cloud.provider import CloudProvider
from cloud.requests import Requests
from cloud.store import DamagedState, Store
from machinery import component
from machinery import grpc as transport
from machinery.component import ComponentContext
from machinery.log import kv

NAME = "cloud"
GRACE = 1.0


def parser() -> argparse.ArgumentParser:
    made = component.parser(NAME, "An emulated cloud: node groups, machines, load balancers and what they cost.")
    made.add_argument("--cluster", required=True, help="name of the cluster: the host part of provider ids")
    made.add_argument("--state", type=Path, required=True, metavar="FILE", help="what the cloud remembers (JSON)")
    made.add_argument(
        "--listen", required=True, metavar="unix:PATH", help="externalgrpc CloudProvider and CloudService"
    )
    made.add_argument("--fake-machines", action="store_true", help="no machines at all: to try an autoscaler")
    return made


@contextlib.asynccontextmanager
async def serving(address: str, provider: CloudProvider) -> AsyncIterator[None]:
    """Both services on one address. Raises OSError when it is taken."""
    from proto.externalgrpc.v1 import externalgrpc_pb2_grpc

    server = transport.server()
    servicer: Any = provider
    externalgrpc_pb2_grpc.add_CloudProviderServicer_to_server(servicer, server)
    transport.add_port(server, address)
    await server.start()
    try:
        yield
    finally:
        await server.stop(GRACE)


async def serve(context: ComponentContext, args: argparse.Namespace, state: State, store: Store) -> None:
    machines: Machines = FakeMachines()
    engine = Engine(Core(state), machines, store, context.clock)
    requests = Requests(engine.core)
    async with serving(args.listen, CloudProvider(requests, engine.wake, context.clock.scale)):
        context.log.info("Serving", extra=kv(address=args.listen, groups=len(state.groups)))

        async def work() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(engine.run())

        await context.until_stopped(work())


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    store = Store(args.state)
    try:
        state = store.load() or State(cluster=args.cluster, since=0.0)
    except (DamagedState, OSError) as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 1
    state.types = {**standard_types(), **state.types}
    return component.run(NAME, args, lambda context: serve(context, args, state, store))
