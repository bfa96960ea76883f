"""A scripted cloud behind cluster-autoscaler's externalgrpc contract: it does what it is told to, lies included.

    cloud = FakeCloud([FakeGroup("a", 0, 3)])
    async with cloud.serving(f"unix:{folder}/cloud") as target: …

`errors["NodeGroupIncreaseSize"] = "out of luck"` makes a call fail; `delivers` False: nothing is ever made.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from machinery import protobuf
from proto.externalgrpc.v1 import externalgrpc_pb2 as pb

STATES = {
    "running": pb.InstanceStatus.instanceRunning,
    "creating": pb.InstanceStatus.instanceCreating,
    "deleting": pb.InstanceStatus.instanceDeleting,
}


@dataclass
class FakeInstance:
    """A machine."""

    id: str
    name: str
    state: str = "running"
    error: tuple[str, str, int] | None = None


@dataclass
class FakeGroup:
    """A node group; `target` follows `instances` unless a test sets it."""

    id: str
    min: int = 0
    max: int = 10
    target: int = 0
    cpu: str = "2"
    memory: str = "2Gi"
    labels: dict[str, str] = field(default_factory=dict)
    taints: list[dict[str, str]] = field(default_factory=list)
    price: float = 0.1
    instances: list[FakeInstance] = field(default_factory=list)
    made: int = 0

    def template(self) -> dict[str, Any]:
        amounts = {"cpu": self.cpu, "memory": self.memory, "pods": "110"}
        name = f"template-{self.id}"
        return {
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "group": self.id, **self.labels}},
            "spec": {"taints": self.taints} if self.taints else {},
            "status": {
                "capacity": amounts,
                "allocatable": amounts,
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }


class FakeCloud:
    """The service and its state; `calls` are names of RPCs that changed something, with what they asked for."""

    def __init__(self, groups: list[FakeGroup]) -> None:
        self.groups = {each.id: each for each in groups}
        self.errors: dict[str, str] = {}
        self.delivers = True
        self.moves_target = True
        self.calls: list[tuple[str, str, Any]] = []
        self.on_created: Callable[[FakeGroup, FakeInstance], None] = lambda group, instance: None
        self.on_deleted: Callable[[FakeGroup, FakeInstance], None] = lambda group, instance: None

    @contextlib.asynccontextmanager
    async def serving(self, address: str) -> AsyncIterator[str]:
        from machinery import grpc as transport
        from proto.externalgrpc.v1 import externalgrpc_pb2_grpc

        server = transport.server()
        externalgrpc_pb2_grpc.add_CloudProviderServicer_to_server(self, server)  # type: ignore[arg-type]
        transport.add_port(server, address)
        await server.start()
        try:
            yield address
        finally:
            await server.stop(0)

    def add(self, group: str, count: int = 1) -> list[FakeInstance]:
        """More machines, as if they had always been there."""
        found = self.groups[group]
        made = []
        for _ in range(count):
            found.made += 1
            name = f"{group}-{found.made}"
            instance = FakeInstance(f"fake://{name}", name)
            found.instances.append(instance)
            made.append(instance)
        found.target += count
        return made

    def find(self, provider_id: str, name: str) -> tuple[FakeGroup, FakeInstance] | None:
        for group in self.groups.values():
            for instance in group.instances:
                if instance.id in (provider_id, name) or (not provider_id and instance.name == name):
                    return group, instance
        return None

    # --- the service -----------------------------------------------------------------------------------------------

    async def _check(self, verb: str, context: Any, group: str = "") -> FakeGroup:
        import grpc

        if verb in self.errors:
            await context.abort(grpc.StatusCode.INTERNAL, self.errors[verb])
        if group and group not in self.groups:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"node group {group} not found")
        return self.groups.get(group, FakeGroup(""))

    async def _refuse(self, context: Any, message: str) -> None:
        import grpc

        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)

    async def Refresh(self, request: Any, context: Any) -> pb.RefreshResponse:
        await self._check("Refresh", context)
        return pb.RefreshResponse()

    async def NodeGroups(self, request: Any, context: Any) -> pb.NodeGroupsResponse:
        await self._check("NodeGroups", context)
        return pb.NodeGroupsResponse(
            nodeGroups=[pb.NodeGroup(id=each.id, minSize=each.min, maxSize=each.max) for each in self.groups.values()]
        )

    async def NodeGroupForNode(self, request: Any, context: Any) -> pb.NodeGroupForNodeResponse:
        await self._check("NodeGroupForNode", context)
        found = self.find(request.node.providerID, request.node.name)
        group = pb.NodeGroup(id=found[0].id, minSize=found[0].min, maxSize=found[0].max) if found else pb.NodeGroup()
        return pb.NodeGroupForNodeResponse(nodeGroup=group)

    async def NodeGroupTargetSize(self, request: Any, context: Any) -> pb.NodeGroupTargetSizeResponse:
        group = await self._check("NodeGroupTargetSize", context, request.id)
        return pb.NodeGroupTargetSizeResponse(targetSize=group.target)

    async def NodeGroupIncreaseSize(self, request: Any, context: Any) -> pb.NodeGroupIncreaseSizeResponse:
        self.calls.append(("increase", request.id, request.delta))
        group = await self._check("NodeGroupIncreaseSize", context, request.id)
        if request.delta <= 0 or group.target + request.delta > group.max:
            await self._refuse(context, f"cannot raise {group.id} by {request.delta}")
        if self.delivers:
            for instance in self.add(group.id, request.delta):
                self.on_created(group, instance)
        elif self.moves_target:
            group.target += request.delta
        return pb.NodeGroupIncreaseSizeResponse()

    async def NodeGroupDecreaseTargetSize(self, request: Any, context: Any) -> pb.NodeGroupDecreaseTargetSizeResponse:
        self.calls.append(("decrease", request.id, request.delta))
        group = await self._check("NodeGroupDecreaseTargetSize", context, request.id)
        if request.delta >= 0 or group.target + request.delta < len(group.instances):
            await self._refuse(context, "attempt to delete existing nodes")
        group.target += request.delta
        return pb.NodeGroupDecreaseTargetSizeResponse()

    async def NodeGroupDeleteNodes(self, request: Any, context: Any) -> pb.NodeGroupDeleteNodesResponse:
        self.calls.append(("delete", request.id, [each.name for each in request.nodes]))
        group = await self._check("NodeGroupDeleteNodes", context, request.id)
        for node in request.nodes:
            found = self.find(node.providerID, node.name)
            if found is None or found[0] is not group:
                await self._refuse(context, f"{node.name} is not in {group.id}")
            elif group.target <= group.min:
                await self._refuse(context, "min size reached, nodes will not be deleted")
            else:
                group.instances.remove(found[1])
                group.target -= 1
                self.on_deleted(group, found[1])
        return pb.NodeGroupDeleteNodesResponse()

    async def NodeGroupNodes(self, request: Any, context: Any) -> pb.NodeGroupNodesResponse:
        group = await self._check("NodeGroupNodes", context, request.id)
        return pb.NodeGroupNodesResponse(instances=[_instance(each) for each in group.instances])

    async def NodeGroupTemplateNodeInfo(self, request: Any, context: Any) -> pb.NodeGroupTemplateNodeInfoResponse:
        group = await self._check("NodeGroupTemplateNodeInfo", context, request.id)
        raw = protobuf.encode_message("k8s.io.api.core.v1.Node", group.template())
        return pb.NodeGroupTemplateNodeInfoResponse(nodeBytes=raw)

    async def NodeGroupGetOptions(self, request: Any, context: Any) -> pb.NodeGroupAutoscalingOptionsResponse:
        import grpc

        await self._check("NodeGroupGetOptions", context, request.id)
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no options")
        raise AssertionError

    async def GPULabel(self, request: Any, context: Any) -> pb.GPULabelResponse:
        return pb.GPULabelResponse(label="gpu")

    async def GetAvailableGPUTypes(self, request: Any, context: Any) -> pb.GetAvailableGPUTypesResponse:
        return pb.GetAvailableGPUTypesResponse()

    async def Cleanup(self, request: Any, context: Any) -> pb.CleanupResponse:
        return pb.CleanupResponse()

    async def PricingNodePrice(self, request: Any, context: Any) -> pb.PricingNodePriceResponse:
        group = await self._check("PricingNodePrice", context, request.node.labels.get("group", ""))
        return pb.PricingNodePriceResponse(price=group.price)

    async def PricingPodPrice(self, request: Any, context: Any) -> pb.PricingPodPriceResponse:
        import grpc

        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no prices of pods")
        raise AssertionError


def _instance(instance: FakeInstance) -> pb.Instance:
    status = pb.InstanceStatus(instanceState=STATES[instance.state])
    if instance.error is not None:
        status.errorInfo.errorCode, status.errorInfo.errorMessage, status.errorInfo.instanceErrorClass = instance.error
    return pb.Instance(id=instance.id, status=status)
