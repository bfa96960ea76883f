"""CloudProvider of cluster-autoscaler's externalgrpc contract, over the cloud's requests.

Owns the translation between that contract and `cloud.requests`; every refusal is a gRPC status with its reason. Source
of the behaviour: the contract's own documentation and what cluster-autoscaler expects of a node group.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, NoReturn

from cloud.cost import HOUR
from cloud.model import CPU_PRICE, GIB_PRICE, Autoscaling, Group, Instance
from cloud.requests import Requests
from cloud.template import template_node
from machinery import grpc as transport
from machinery import protobuf, quantity
from machinery.errors import BadRequest, NotFound, StatusError
from proto.externalgrpc.v1 import externalgrpc_pb2 as pb

NODE_MESSAGE, POD_MESSAGE = "k8s.io.api.core.v1.Node", "k8s.io.api.core.v1.Pod"
GPU_LABEL = "nanokube.io/gpu"
_STATES = {
    "pending": pb.InstanceStatus.instanceCreating,
    "launching": pb.InstanceStatus.instanceCreating,
    "running": pb.InstanceStatus.instanceRunning,
    "deleting": pb.InstanceStatus.instanceDeleting,
}
OUT_OF_RESOURCES, OTHER = 1, 99


class CloudProvider:
    """The service. `changed` is called after every change of plan; `disk`: bytes that machines share with the host."""

    def __init__(self, requests: Requests, changed: Callable[[], None], scale: float = 1.0, disk: int = 0) -> None:
        self._requests = requests
        self._changed = changed
        self._scale = scale
        self._disk = disk

    # ---- the cloud ----

    async def NodeGroups(self, request: pb.NodeGroupsRequest, context: Any) -> pb.NodeGroupsResponse:
        groups = self._requests.core.state.groups.values()
        return pb.NodeGroupsResponse(nodeGroups=[_group(each) for each in groups])

    async def NodeGroupForNode(self, request: pb.NodeGroupForNodeRequest, context: Any) -> pb.NodeGroupForNodeResponse:
        found = self._requests.find(request.node.providerID, request.node.name)
        group = self._requests.core.state.groups.get(found.group) if found is not None else None
        if found is None or group is None or found.phase == "gone":
            return pb.NodeGroupForNodeResponse(nodeGroup=pb.NodeGroup())
        return pb.NodeGroupForNodeResponse(nodeGroup=_group(group))

    async def Refresh(self, request: pb.RefreshRequest, context: Any) -> pb.RefreshResponse:
        return pb.RefreshResponse()

    async def Cleanup(self, request: pb.CleanupRequest, context: Any) -> pb.CleanupResponse:
        return pb.CleanupResponse()

    async def GPULabel(self, request: pb.GPULabelRequest, context: Any) -> pb.GPULabelResponse:
        return pb.GPULabelResponse(label=GPU_LABEL)

    async def GetAvailableGPUTypes(
        self, request: pb.GetAvailableGPUTypesRequest, context: Any
    ) -> pb.GetAvailableGPUTypesResponse:
        return pb.GetAvailableGPUTypesResponse()

    # ---- prices ----

    async def PricingNodePrice(self, request: pb.PricingNodePriceRequest, context: Any) -> pb.PricingNodePriceResponse:
        """Of a real node, or of one that only looks like those of a group."""
        hours = self._hours(request)
        found = self._requests.find(request.node.providerID, request.node.name)
        if found is not None:
            return pb.PricingNodePriceResponse(price=found.price * hours)
        price = self._requests.price_by_labels(request.node.labels)
        if price is None:
            await _abort(context, NotFound(f'node "{request.node.name}" is of no instance type of this cloud'))
        return pb.PricingNodePriceResponse(price=price * hours)

    async def PricingPodPrice(self, request: pb.PricingPodPriceRequest, context: Any) -> pb.PricingPodPriceResponse:
        """What its requests would cost by the core and by the GiB."""
        try:
            pod = protobuf.decode_message(POD_MESSAGE, request.pod_bytes)
            cpu, memory = pod_requests(pod)
        except StatusError as error:
            await _abort(context, error)
        return pb.PricingPodPriceResponse(price=(cpu * CPU_PRICE + memory * GIB_PRICE) * self._hours(request))

    def _hours(self, request: pb.PricingNodePriceRequest | pb.PricingPodPriceRequest) -> float:
        """Wall instants, of which an hour is more in a cluster whose time runs faster."""
        start, end = request.startTimestamp, request.endTimestamp
        seconds = end.seconds - start.seconds + (end.nanos - start.nanos) / 1e9
        return max(0.0, seconds) * self._scale / HOUR

    # ---- a group ----

    async def NodeGroupTargetSize(
        self, request: pb.NodeGroupTargetSizeRequest, context: Any
    ) -> pb.NodeGroupTargetSizeResponse:
        group = await self._group(request.id, context)
        return pb.NodeGroupTargetSizeResponse(targetSize=group.desired)

    async def NodeGroupIncreaseSize(
        self, request: pb.NodeGroupIncreaseSizeRequest, context: Any
    ) -> pb.NodeGroupIncreaseSizeResponse:
        group = await self._group(request.id, context)
        await self._change(context, lambda: self._requests.increase(group, request.delta))
        return pb.NodeGroupIncreaseSizeResponse()

    async def NodeGroupDecreaseTargetSize(
        self, request: pb.NodeGroupDecreaseTargetSizeRequest, context: Any
    ) -> pb.NodeGroupDecreaseTargetSizeResponse:
        group = await self._group(request.id, context)
        await self._change(context, lambda: self._requests.decrease_target(group, request.delta))
        return pb.NodeGroupDecreaseTargetSizeResponse()

    async def NodeGroupDeleteNodes(
        self, request: pb.NodeGroupDeleteNodesRequest, context: Any
    ) -> pb.NodeGroupDeleteNodesResponse:
        group = await self._group(request.id, context)
        found = []
        for node in request.nodes:
            instance = self._requests.find(node.providerID, node.name)
            if instance is None:
                await _abort(context, NotFound(f'instance of node "{node.name}" ({node.providerID}) not found'))
            found.append(instance)
        await self._change(context, lambda: self._requests.delete(group, found))
        return pb.NodeGroupDeleteNodesResponse()

    async def NodeGroupNodes(self, request: pb.NodeGroupNodesRequest, context: Any) -> pb.NodeGroupNodesResponse:
        group = await self._group(request.id, context)
        instances = (each for each in self._requests.core.state.of(group.name) if each.phase != "gone")
        return pb.NodeGroupNodesResponse(instances=[self._instance(each) for each in instances])

    async def NodeGroupTemplateNodeInfo(
        self, request: pb.NodeGroupTemplateNodeInfoRequest, context: Any
    ) -> pb.NodeGroupTemplateNodeInfoResponse:
        group = await self._group(request.id, context)
        node = template_node(group, self._requests.core.state.types[group.type], self._disk)
        return pb.NodeGroupTemplateNodeInfoResponse(nodeBytes=protobuf.encode_message(NODE_MESSAGE, node))

    async def NodeGroupGetOptions(
        self, request: pb.NodeGroupAutoscalingOptionsRequest, context: Any
    ) -> pb.NodeGroupAutoscalingOptionsResponse:
        """The autoscaler's own, but for what the group has of its own; its durations are cluster seconds."""
        group = await self._group(request.id, context)
        if group.autoscaling == Autoscaling():
            return pb.NodeGroupAutoscalingOptionsResponse()
        return pb.NodeGroupAutoscalingOptionsResponse(
            nodeGroupAutoscalingOptions=_with_own(request.defaults, group.autoscaling)
        )

    def _instance(self, instance: Instance) -> pb.Instance:
        status = pb.InstanceStatus(instanceState=_STATES[instance.phase])
        problem = instance.problem
        if problem is not None:
            status.errorInfo.errorCode, status.errorInfo.errorMessage = problem.code, problem.message
            status.errorInfo.instanceErrorClass = OUT_OF_RESOURCES if problem.out_of_resources else OTHER
        return pb.Instance(id=self._requests.provider_id(instance), status=status)

    async def _group(self, name: str, context: Any) -> Group:
        try:
            return self._requests.group(name)
        except StatusError as error:
            await _abort(context, error)

    async def _change(self, context: Any, act: Callable[[], None]) -> None:
        try:
            act()
        except StatusError as error:
            await _abort(context, error)
        self._changed()


async def _abort(context: Any, error: StatusError) -> NoReturn:
    await transport.abort(context, error)


def _group(group: Group) -> pb.NodeGroup:
    debug = f"{group.name} ({group.min}:{group.max}, {group.type}{', hollow' if group.hollow else ''})"
    return pb.NodeGroup(id=group.name, minSize=group.min, maxSize=group.max, debug=debug)


def _with_own(defaults: pb.NodeGroupAutoscalingOptions, own: Autoscaling) -> pb.NodeGroupAutoscalingOptions:
    made = pb.NodeGroupAutoscalingOptions()
    made.CopyFrom(defaults)
    if own.scaleDownUtilizationThreshold is not None:
        made.scaleDownUtilizationThreshold = own.scaleDownUtilizationThreshold
        made.scaleDownGpuUtilizationThreshold = own.scaleDownUtilizationThreshold
    if own.ignoreDaemonSetsUtilization is not None:
        made.ignoreDaemonSetsUtilization = own.ignoreDaemonSetsUtilization
    for field, seconds in (
        (made.scaleDownUnneededDuration, own.scaleDownUnneededTime),
        (made.scaleDownUnreadyDuration, own.scaleDownUnreadyTime),
        (made.MaxNodeProvisionDuration, own.maxNodeProvisionTime),
        (made.maxNodeStartupDuration, own.maxNodeStartupTime),
    ):
        if seconds is not None:
            field.FromTimedelta(timedelta(seconds=seconds))
    return made


def pod_requests(pod: dict[str, Any]) -> tuple[float, float]:
    """(cores, GiB) that the containers of a pod request. Raises BadRequest for quantities that are none."""
    cpu = memory = 0.0
    for container in (pod.get("spec") or {}).get("containers") or ():
        wanted = (container.get("resources") or {}).get("requests") or {}
        try:
            cpu += quantity.milli(wanted.get("cpu", "0")) / 1000
            memory += quantity.value(wanted.get("memory", "0")) / (1 << 30)
        except ValueError as error:
            raise BadRequest(str(error)) from error
    return cpu, memory
