"""`image load` and `image list`: archives into the nodes of a cluster, through the runtimes' own sockets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cli import processes
from cli.errors import CommandError
from cli.layout import ClusterConfig, ClusterPaths
from cli.output import table

if TYPE_CHECKING:
    import grpc

Say = Callable[[str], None]
TIMEOUT = 300.0  # real seconds; a large archive is unpacked once per cluster


def _channels(paths: ClusterPaths, config: ClusterConfig) -> dict[str, grpc.Channel]:
    import grpc

    if not config.nodes:
        raise CommandError(f"cluster {config.name} has no nodes")
    return {node.name: grpc.insecure_channel(f"unix:{processes.cri_socket(paths, node)}") for node in config.nodes}


def load(paths: ClusterPaths, config: ClusterConfig, file: str, say: Say) -> None:
    """Import an archive into every node. Raises CommandError naming the node that refused it."""
    import grpc

    from proto.runtime.v1 import images_pb2 as pb
    from proto.runtime.v1.images_pb2_grpc import NodeImagesStub

    path = Path(file).resolve()
    if not path.is_file():
        raise CommandError(f"{file}: no such file")
    for node, channel in _channels(paths, config).items():
        with channel:
            try:
                request = pb.ImportRequest(path=str(path), default_name=path.name.partition(".")[0])
                answer = NodeImagesStub(channel).Import(iter([request]), timeout=TIMEOUT, wait_for_ready=False)
            except grpc.RpcError as error:
                raise CommandError(f"{node}: {_why(error)}") from error
        names = [name for image in answer.images for name in (image.names or [image.id])]
        say(f"{node}: loaded {', '.join(names)}")


def listing(paths: ClusterPaths, config: ClusterConfig) -> str:
    """A table of the images of every node."""
    import grpc

    from proto.cri.v1 import cri_pb2 as cri
    from proto.cri.v1.cri_pb2_grpc import ImageServiceStub

    rows = []
    for node, channel in _channels(paths, config).items():
        with channel:
            try:
                answer = ImageServiceStub(channel).ListImages(cri.ListImagesRequest(), timeout=TIMEOUT)
            except grpc.RpcError as error:
                rows.append((node, f"<{_why(error)}>", "", ""))
                continue
        for image in answer.images:
            for name in image.repo_tags or ["<none>"]:
                rows.append((node, name, image.id.removeprefix("sha256:")[:12], f"{image.size / 1e6:.1f}MB"))
    return table(("NODE", "IMAGE", "ID", "SIZE"), rows)


def _why(error: grpc.RpcError) -> str:
    details = getattr(error, "details", None)
    text = details() if callable(details) else None
    return str(text or error)
