"""How the driver of a machine makes itself known: a socket in the folder that the kubelet's plugin watcher looks at.

Owns upstream's pluginregistration contract, as node-driver-registrar does beside stock drivers.
"""

from __future__ import annotations

from typing import Any, Final

from block_storage.capabilities import DRIVER
from machinery import log
from machinery.log import kv
from proto.pluginregistration.v1 import pluginregistration_pb2 as pb
from proto.pluginregistration.v1 import pluginregistration_pb2_grpc

TYPE: Final = "CSIPlugin"
VERSIONS: Final = ("1.0.0",)
_log = log.get(__name__)


class Registration(pluginregistration_pb2_grpc.RegistrationServicer):
    """A kubelet that refuses us tries again by itself, as one does that is itself not known yet."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self.registered = False

    async def GetInfo(self, request: pb.InfoRequest, context: Any) -> pb.PluginInfo:
        return pb.PluginInfo(type=TYPE, name=DRIVER, endpoint=self._endpoint, supported_versions=VERSIONS)

    async def NotifyRegistrationStatus(
        self, request: pb.RegistrationStatus, context: Any
    ) -> pb.RegistrationStatusResponse:
        self.registered = request.plugin_registered
        if request.plugin_registered:
            _log.info("Registered")
        else:
            _log.warning("Was refused by the kubelet", extra=kv(error=request.error))
        return pb.RegistrationStatusResponse()
