"""A CSI driver for tests: a folder per volume, bind-mounted; it records what it was asked and fails when told to.

The node service and the registration only. `tests/contract/test_csi_node.py` holds it to what a real driver does.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from linux import mount
from machinery import grpc as transport
from proto.csi.v1 import csi_pb2 as pb
from proto.csi.v1 import csi_pb2_grpc
from proto.pluginregistration.v1 import pluginregistration_pb2 as reg
from proto.pluginregistration.v1 import pluginregistration_pb2_grpc

NAME = "folders.csi.example"
REGISTRATION = "d-reg.sock"  # short: Unix sockets have short names
DEFAULT = ("STAGE_UNSTAGE_VOLUME", "EXPAND_VOLUME")


class FakeDriver(csi_pb2_grpc.NodeServicer, pluginregistration_pb2_grpc.RegistrationServicer):
    """One node's driver. `store` holds the volumes, which outlive it."""

    def __init__(
        self, folder: Path, name: str = NAME, node: str = "node-1", abilities: tuple[str, ...] = DEFAULT
    ) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.name = name
        self.node = node
        self.abilities = abilities
        self.topology = {"example.com/rack": "r1"}
        self.versions = ["1.0.0"]
        self.limit = 5
        self.calls: list[tuple[str, Any]] = []
        self.failures: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        """By method: (code, message) of the next calls."""
        self.registered: list[tuple[bool, str]] = []

    def asked(self, method: str) -> list[Any]:
        """The requests to a method, in their order."""
        return [request for name, request in self.calls if name == method]

    async def _note(self, method: str, request: Any, context: Any) -> None:
        self.calls.append((method, request))
        if self.failures[method]:
            code, message = self.failures[method].pop(0)
            await context.abort(grpc.StatusCode[code], message)

    @staticmethod
    async def _need(context: Any, request: Any, *fields: str) -> None:
        for name in fields:
            value = getattr(request, name)
            empty = not request.HasField(name) if name == "volume_capability" else not value
            if empty:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{name} is missing in the request")

    @contextlib.asynccontextmanager
    async def serve(self, registry: Path | None = None) -> AsyncIterator[str]:
        """Answer at the socket that is yielded, and (with a folder to do it in) ask to be registered."""
        self.folder.mkdir(parents=True, exist_ok=True)
        endpoint = str(self.folder / "csi.sock")
        socket = registry / REGISTRATION if registry is not None else None
        server, registrar = transport.server(), transport.server()
        csi_pb2_grpc.add_NodeServicer_to_server(self, server)
        pluginregistration_pb2_grpc.add_RegistrationServicer_to_server(self, registrar)
        try:
            transport.add_port(server, f"unix:{endpoint}")
            await server.start()
            if socket is not None:
                socket.parent.mkdir(parents=True, exist_ok=True)
                transport.add_port(registrar, f"unix:{socket}")
                await registrar.start()
            yield endpoint
        finally:
            await registrar.stop(None)
            await server.stop(None)
            for path in (Path(endpoint), socket):
                if path is not None:
                    path.unlink(missing_ok=True)

    # ---- registration ----

    async def GetInfo(self, request: reg.InfoRequest, context: Any) -> reg.PluginInfo:
        return reg.PluginInfo(
            type="CSIPlugin",
            name=self.name,
            endpoint=str(self.folder / "csi.sock"),
            supported_versions=self.versions,
        )

    async def NotifyRegistrationStatus(
        self, request: reg.RegistrationStatus, context: Any
    ) -> reg.RegistrationStatusResponse:
        self.registered.append((request.plugin_registered, request.error))
        return reg.RegistrationStatusResponse()

    # ---- node ----

    async def NodeGetInfo(self, request: pb.NodeGetInfoRequest, context: Any) -> pb.NodeGetInfoResponse:
        await self._note("info", request, context)
        return pb.NodeGetInfoResponse(
            node_id=f"id-of-{self.node}",
            max_volumes_per_node=self.limit,
            accessible_topology=pb.Topology(segments=self.topology),
        )

    async def NodeGetCapabilities(
        self, request: pb.NodeGetCapabilitiesRequest, context: Any
    ) -> pb.NodeGetCapabilitiesResponse:
        kinds = pb.NodeServiceCapability.RPC
        can = [pb.NodeServiceCapability(rpc=kinds(type=kinds.Type.Value(each))) for each in self.abilities]
        return pb.NodeGetCapabilitiesResponse(capabilities=can)

    async def NodeStageVolume(self, request: pb.NodeStageVolumeRequest, context: Any) -> pb.NodeStageVolumeResponse:
        await self._need(context, request, "volume_id", "staging_target_path", "volume_capability")
        await self._note("stage", request, context)
        self._bind(self.store / request.volume_id, Path(request.staging_target_path))
        return pb.NodeStageVolumeResponse()

    async def NodeUnstageVolume(
        self, request: pb.NodeUnstageVolumeRequest, context: Any
    ) -> pb.NodeUnstageVolumeResponse:
        await self._need(context, request, "volume_id", "staging_target_path")
        await self._note("unstage", request, context)
        mount.unmount_below(request.staging_target_path)
        return pb.NodeUnstageVolumeResponse()

    async def NodePublishVolume(
        self, request: pb.NodePublishVolumeRequest, context: Any
    ) -> pb.NodePublishVolumeResponse:
        await self._need(context, request, "volume_id", "target_path", "volume_capability")
        await self._note("publish", request, context)
        stages = "STAGE_UNSTAGE_VOLUME" in self.abilities and request.staging_target_path
        if stages and not mount.is_mount_point(request.staging_target_path):
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not staged")
        source = Path(request.staging_target_path) if stages else self.store / request.volume_id
        self._bind(source, Path(request.target_path), readonly=request.readonly)
        return pb.NodePublishVolumeResponse()

    async def NodeUnpublishVolume(
        self, request: pb.NodeUnpublishVolumeRequest, context: Any
    ) -> pb.NodeUnpublishVolumeResponse:
        await self._need(context, request, "volume_id", "target_path")
        await self._note("unpublish", request, context)
        mount.unmount_below(request.target_path)
        if os.path.isdir(request.target_path):
            os.rmdir(request.target_path)
        return pb.NodeUnpublishVolumeResponse()

    async def NodeExpandVolume(self, request: pb.NodeExpandVolumeRequest, context: Any) -> pb.NodeExpandVolumeResponse:
        await self._need(context, request, "volume_id", "volume_path")
        await self._note("expand", request, context)
        return pb.NodeExpandVolumeResponse(capacity_bytes=request.capacity_range.required_bytes)

    async def NodeGetVolumeStats(
        self, request: pb.NodeGetVolumeStatsRequest, context: Any
    ) -> pb.NodeGetVolumeStatsResponse:
        await self._need(context, request, "volume_id", "volume_path")
        if not mount.is_mount_point(request.volume_path):
            await context.abort(grpc.StatusCode.NOT_FOUND, "nothing is published there")
        found = os.statvfs(request.volume_path)
        size, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
        usage = pb.VolumeUsage(total=size, available=free, used=size - free, unit=pb.VolumeUsage.BYTES)
        return pb.NodeGetVolumeStatsResponse(usage=[usage])

    @staticmethod
    def _bind(source: Path, target: Path, *, readonly: bool = False) -> None:
        if not mount.is_mount_point(str(target)):
            source.mkdir(parents=True, exist_ok=True)
            target.mkdir(parents=True, exist_ok=True)
            mount.bind(str(source), str(target), readonly=readonly)
