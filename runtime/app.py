"""The runtime process: flags, the gRPC socket, signals.

Started as `python -m runtime` or by fork from a warm process; nothing starts at import.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from machinery import component
from machinery.component import ComponentContext

MAX_FILES = 65536


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = component.parser("runtime", "CRI v1 server over conmon and crun")
    made.add_argument("--listen", required=True, metavar="unix:PATH", help="socket of the CRI services")
    made.add_argument("--root", required=True, type=Path, help="folder for what outlives a reboot")
    made.add_argument("--state", required=True, type=Path, help="folder for what does not")
    made.add_argument("--image-store", required=True, type=Path, help="image content, shared by a cluster's nodes")
    made.add_argument("--node", required=True, help="name of the node")
    made.add_argument("--cgroup-parent", required=True, help="parent of pods that bring no cgroup parent")
    made.add_argument("--node-ip", default="", help="source address of the node towards its pods")
    made.add_argument("--host-netns", default="", metavar="PATH", help="network namespace for talking to registries")
    made.add_argument("--insecure-registry", action="append", default=[], metavar="HOST", help="use plain HTTP there")
    made.add_argument("--parallel-starts", type=int, default=0, help="container starts at a time (default 2 per CPU)")
    return made


async def serve(args: argparse.Namespace, context: ComponentContext) -> None:
    """Run until asked to stop; containers live on."""
    # crun and conmon are started by fork from a process whose threads are gRPC's; gRPC must not act on that.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from machinery.grpc import add_port, server
    from proto.cri.v1 import cri_pb2_grpc
    from proto.runtime.v1 import images_pb2_grpc
    from runtime.engine import Engine, Settings
    from runtime.faults import RuntimeFault
    from runtime.image_service import ImageService, NodeImages
    from runtime.images.puller import Puller
    from runtime.service import RuntimeService
    from runtime.streams import StreamServer

    settings = Settings(
        root=args.root.absolute(),
        state=args.state.absolute(),
        image_store=args.image_store.absolute(),
        node=args.node,
        cgroup_parent=args.cgroup_parent.strip("/"),
        node_ip=args.node_ip,
        host_netns=args.host_netns,
        insecure_registries=tuple(args.insecure_registry),
        parallel=args.parallel_starts,
    )
    _allow_many_files()
    try:
        engine = Engine(settings)
    except RuntimeFault as fault:
        raise OSError(fault.message) from fault  # a missing program: told without a traceback
    await asyncio.to_thread(engine.open)
    streams = StreamServer(engine)
    puller = Puller(engine.images, host_netns=settings.host_netns, insecure=settings.insecure_registries)
    serving = server()
    cri_pb2_grpc.add_RuntimeServiceServicer_to_server(RuntimeService(engine, streams), serving)
    cri_pb2_grpc.add_ImageServiceServicer_to_server(ImageService(engine, puller), serving)
    images_pb2_grpc.add_NodeImagesServicer_to_server(NodeImages(engine), serving)
    if args.listen.startswith("unix:"):
        path = Path(args.listen.removeprefix("unix:"))
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            path.unlink()
    add_port(serving, args.listen)
    await serving.start()
    if args.listen.startswith("unix:"):
        Path(args.listen.removeprefix("unix:")).chmod(0o600)
    context.health.ready("runtime", True)
    try:
        await engine.run(context.stop)
    finally:
        await serving.stop(1.0)
        await streams.close()
        puller.close()


def _allow_many_files() -> None:
    """Samplers keep six files a group open; containers inherit the limit, as they do from other runtimes."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    args = parser().parse_args(argv)
    return component.run("runtime", args, lambda context: serve(args, context))
