"""The driver's processes: flags, sockets, health. One with the controller service, one on every machine."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from block_storage.capabilities import FILESYSTEMS
from block_storage.cloud import Cloud
from block_storage.controller import Controller
from block_storage.identity import Identity
from block_storage.node import Node, Settings
from block_storage.registration import Registration
from machinery import component
from machinery import grpc as transport
from machinery.component import ComponentContext
from machinery.log import kv

NAME = "block-driver"
GRACE = 5.0  # real seconds for calls to end: a half-made file system is worse than a late end


def parser() -> argparse.ArgumentParser:
    made = component.parser(NAME, "The CSI driver of the cloud's block volumes.")
    made.add_argument("--endpoint", type=Path, required=True, metavar="SOCKET", help="where to speak CSI")
    made.add_argument("--cloud", default="", metavar="ADDRESS", help="serve the controller, for this cloud")
    made.add_argument("--node-id", default="", help="serve the node of this name")
    made.add_argument("--devices", type=Path, metavar="FOLDER", help="where the machine shows its attached volumes")
    made.add_argument("--zone", default="", help="the machine's zone")
    made.add_argument("--max-volumes", type=int, default=0, help="how many volumes the machine can have")
    made.add_argument("--filesystem", choices=FILESYSTEMS, default=FILESYSTEMS[0], help="when nobody asks for another")
    made.add_argument("--registration", type=Path, metavar="SOCKET", help="in the kubelet's folder plugins_registry")
    return made


@contextlib.asynccontextmanager
async def serving(socket: Path, *services: Callable[[Any], None]) -> AsyncIterator[None]:
    """A gRPC server on a Unix socket. Raises OSError."""
    server = transport.server()
    for add in services:
        add(server)
    socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    transport.add_port(server, f"unix:{socket}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(GRACE)


def identity(server: Any) -> None:
    from proto.csi.v1 import csi_pb2_grpc

    csi_pb2_grpc.add_IdentityServicer_to_server(Identity(), server)


def controller(cloud: Cloud) -> Callable[[Any], None]:
    from proto.csi.v1 import csi_pb2_grpc

    return lambda server: csi_pb2_grpc.add_ControllerServicer_to_server(Controller(cloud), server)


def node(settings: Settings) -> Callable[[Any], None]:
    from proto.csi.v1 import csi_pb2_grpc

    return lambda server: csi_pb2_grpc.add_NodeServicer_to_server(Node(settings), server)


def registration(made: Registration) -> Callable[[Any], None]:
    from proto.pluginregistration.v1 import pluginregistration_pb2_grpc

    return lambda server: pluginregistration_pb2_grpc.add_RegistrationServicer_to_server(made, server)


async def serve(context: ComponentContext, args: argparse.Namespace) -> None:
    async with contextlib.AsyncExitStack() as doors:
        services: list[Callable[[Any], None]] = [identity]
        if args.cloud:
            cloud = Cloud(args.cloud)
            doors.push_async_callback(cloud.close)
            services.append(controller(cloud))
        if args.node_id:
            settings = Settings(args.node_id, args.zone, args.max_volumes, args.devices, args.filesystem)
            services.append(node(settings))
        await doors.enter_async_context(serving(args.endpoint, *services))
        known = Registration(str(args.endpoint))
        if args.registration:  # only now: whoever sees that socket will use the other one
            await doors.enter_async_context(serving(args.registration, registration(known)))
            context.health.metric("csi_driver_registered", lambda: float(known.registered))
        context.log.info("Serving", extra=kv(endpoint=args.endpoint, node=args.node_id or "-"))
        await context.stop.wait()


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    if not (args.cloud or args.node_id):
        print(f"{NAME}: --cloud or --node-id: serve what?", file=sys.stderr)
        return 2
    if args.node_id and args.devices is None:
        print(f"{NAME}: --node-id wants --devices", file=sys.stderr)
        return 2
    return component.run(NAME, args, lambda context: serve(context, args))
