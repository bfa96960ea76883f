"""CSI's Identity service: name, version and what the driver can."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.wrappers_pb2 import BoolValue

from block_storage.capabilities import DRIVER
from proto.csi.v1 import csi_pb2 as pb
from proto.csi.v1 import csi_pb2_grpc

VERSION: Final = "1.0.0"
_Service = pb.PluginCapability.Service
_Growth = pb.PluginCapability.VolumeExpansion


class Identity(csi_pb2_grpc.IdentityServicer):
    """The same for controller and node."""

    async def GetPluginInfo(self, request: pb.GetPluginInfoRequest, context: Any) -> pb.GetPluginInfoResponse:
        return pb.GetPluginInfoResponse(name=DRIVER, vendor_version=VERSION)

    async def GetPluginCapabilities(
        self, request: pb.GetPluginCapabilitiesRequest, context: Any
    ) -> pb.GetPluginCapabilitiesResponse:
        services = (_Service.CONTROLLER_SERVICE, _Service.VOLUME_ACCESSIBILITY_CONSTRAINTS)
        return pb.GetPluginCapabilitiesResponse(
            capabilities=[
                *(pb.PluginCapability(service=_Service(type=each)) for each in services),
                pb.PluginCapability(volume_expansion=_Growth(type=_Growth.ONLINE)),
            ]
        )

    async def Probe(self, request: pb.ProbeRequest, context: Any) -> pb.ProbeResponse:
        return pb.ProbeResponse(ready=BoolValue(value=True))
