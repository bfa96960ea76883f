"""A CSI driver over its socket: what it is called, what it can, and its controller's calls.

Owns timeouts and how failures read: `rpc error: code = NotFound desc = …`, as every stock sidecar writes them into
events and objects. Secrets are never logged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from machinery import grpc as transport
from proto.csi.v1 import csi_pb2 as pb

Can = pb.ControllerServiceCapability.RPC
Service = pb.PluginCapability.Service
PROBE_TIMEOUT: Final = 5.0  # real seconds
_BACKGROUND: Final = frozenset(("CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE", "ABORTED"))
_INFEASIBLE: Final = frozenset(("INVALID_ARGUMENT", "OUT_OF_RANGE", "NOT_FOUND", "UNIMPLEMENTED"))


class DriverError(Exception):
    """A call that failed. `code` is gRPC's name of its code, `name` as Go writes it."""

    def __init__(self, code: str, number: int, details: str) -> None:
        self.name = "Canceled" if code == "CANCELLED" else "".join(part.capitalize() for part in code.split("_"))
        super().__init__(f"rpc error: code = {self.name} desc = {details}")
        self.code = code
        self.number = number
        self.details = details

    @property
    def is_final(self) -> bool:
        """Whether nothing was done and nothing is under way; else the same call must be made again."""
        return self.code not in _BACKGROUND

    @property
    def is_infeasible(self) -> bool:
        """Whether it cannot work until somebody asks for something else."""
        return self.code in _INFEASIBLE


@dataclass(frozen=True)
class About:
    """What a driver tells of itself. `can`: its controller's capabilities; empty when it has no controller."""

    name: str
    services: frozenset[int]
    can: frozenset[int]

    @property
    def has_topology(self) -> bool:
        return Service.VOLUME_ACCESSIBILITY_CONSTRAINTS in self.services


class Driver:
    """Calls. Every one raises DriverError; `timeout` is in real seconds: drivers know no other time."""

    def __init__(self, address: str, timeout: float) -> None:
        self._channel = transport.channel(address)
        self._timeout = timeout
        self.observe: Callable[[str, str, float], None] = lambda method, code, seconds: None
        """Told of every call of the controller service: method, gRPC's name of its code, real seconds."""

    async def close(self) -> None:
        await self._channel.close()

    async def about(self) -> About:
        """Who it is, once it is ready."""
        probe = await self._identity("Probe", pb.ProbeRequest())
        if probe.HasField("ready") and not probe.ready.value:
            raise DriverError("UNAVAILABLE", 14, "the driver is not ready")
        info = await self._identity("GetPluginInfo", pb.GetPluginInfoRequest())
        if not info.name:
            raise DriverError("INTERNAL", 13, "driver name is empty")
        plugin = await self._identity("GetPluginCapabilities", pb.GetPluginCapabilitiesRequest())
        services = frozenset(each.service.type for each in plugin.capabilities if each.HasField("service"))
        can: frozenset[int] = frozenset()
        if Service.CONTROLLER_SERVICE in services:
            request = pb.ControllerGetCapabilitiesRequest()
            answer = await self.call("ControllerGetCapabilities", request)
            can = frozenset(each.rpc.type for each in answer.capabilities if each.HasField("rpc"))
        return About(info.name, services, can)

    async def _identity(self, method: str, request: Any) -> Any:
        from proto.csi.v1 import csi_pb2_grpc

        return await self._ask(csi_pb2_grpc.IdentityStub(self._channel), method, request, PROBE_TIMEOUT)

    async def call(self, method: str, request: Any) -> Any:
        """A call of the controller service."""
        from proto.csi.v1 import csi_pb2_grpc

        started, code = time.monotonic(), "OK"
        try:
            return await self._ask(csi_pb2_grpc.ControllerStub(self._channel), method, request, self._timeout)
        except DriverError as error:
            code = error.name
            raise
        finally:
            self.observe(method, code, time.monotonic() - started)

    @staticmethod
    async def _ask(stub: Any, method: str, request: Any, timeout: float) -> Any:
        import grpc.aio

        try:
            return await getattr(stub, method)(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            code = error.code()
            raise DriverError(code.name, int(code.value[0]), error.details() or "") from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise DriverError("CANCELLED", 1, "the connection was closed") from None
