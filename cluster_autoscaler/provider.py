"""The cloud, as the autoscaler knows it: a Protocol and its only real side, cluster-autoscaler's externalgrpc contract.

Owns the translation and the bounds of calls. Never decides and never believes: `cloud_view` judges what comes back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal, Protocol, TypeVar

from api import codec
from api.models import core_v1
from cluster_autoscaler import node_facts as facts
from cluster_autoscaler.options import GroupOptions
from machinery import grpc as transport
from machinery import protobuf
from machinery.errors import StatusError
from machinery.tls import KeyPair
from proto.externalgrpc.v1 import externalgrpc_pb2 as pb

TIMEOUT: Final = 5.0  # real seconds of one call
OUT_OF_RESOURCES: Final = 1
NODE_MESSAGE: Final = "k8s.io.api.core.v1.Node"
POD_MESSAGE: Final = "k8s.io.api.core.v1.Pod"

State = Literal["", "running", "creating", "deleting"]
_STATES: Final[dict[int, State]] = {1: "running", 2: "creating", 3: "deleting"}
_TEMPLATE_STATUS: Final = ("allocatable", "capacity", "conditions", "images")
T = TypeVar("T")


class ProviderError(Exception):
    """The cloud refused or did not answer; `code` is gRPC's name of it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class NodeGroup:
    """A group and its bounds, as the cloud has them."""

    id: str
    min_size: int
    max_size: int


@dataclass(frozen=True, slots=True)
class Instance:
    """A machine of a group; `id` is what its node has as providerID."""

    id: str
    state: State = ""
    error_code: str = ""
    error_message: str = ""
    error_class: int = 0


@dataclass(frozen=True, slots=True)
class NodeRef:
    """How a node is named to the cloud."""

    provider_id: str
    name: str
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, node: core_v1.Node) -> NodeRef:
        return cls(
            facts.provider_id(node),
            facts.name(node),
            tuple(facts.labels(node).items()),
            tuple(facts.notes(node).items()),
        )


class Provider(Protocol):
    """Every call raises ProviderError."""

    async def refresh(self) -> None: ...

    async def node_groups(self) -> list[NodeGroup]: ...

    async def group_of(self, node: NodeRef) -> str:
        """The id of the node's group; "" for a node that is none of ours."""

    async def target_size(self, group: str) -> int: ...

    async def nodes(self, group: str) -> list[Instance]: ...

    async def template(self, group: str) -> core_v1.Node | None:
        """A new node of the group; None when the cloud cannot tell."""

    async def options(self, group: str, defaults: GroupOptions) -> GroupOptions: ...

    async def increase_size(self, group: str, delta: int) -> None: ...

    async def decrease_target_size(self, group: str, delta: int) -> None:
        """`delta` is positive here; machines that exist are not touched."""

    async def delete_nodes(self, group: str, nodes: Sequence[NodeRef]) -> None: ...

    async def node_price(self, node: core_v1.Node, start: datetime, hours: float) -> float | None:
        """Dollars; None when the cloud has no prices."""

    async def pod_price(self, pod: core_v1.Pod, start: datetime, hours: float) -> float | None: ...

    async def close(self) -> None: ...


class GrpcProvider:
    """By the contract, over one channel."""

    def __init__(self, target: str, pair: KeyPair | None = None, timeout: float = TIMEOUT) -> None:
        from proto.externalgrpc.v1 import externalgrpc_pb2_grpc

        self._channel = transport.channel(target, pair)
        self._stub: Any = externalgrpc_pb2_grpc.CloudProviderStub(self._channel)
        self._timeout = timeout

    async def close(self) -> None:
        await self._channel.close()

    async def _call(self, answer: Awaitable[T]) -> T:
        import grpc.aio

        try:
            return await answer
        except grpc.aio.AioRpcError as error:
            raise ProviderError(error.code().name, error.details() or error.code().name) from error

    async def refresh(self) -> None:
        await self._call(self._stub.Refresh(pb.RefreshRequest(), timeout=self._timeout))

    async def node_groups(self) -> list[NodeGroup]:
        found = await self._call(self._stub.NodeGroups(pb.NodeGroupsRequest(), timeout=self._timeout))
        return [NodeGroup(each.id, each.minSize, each.maxSize) for each in found.nodeGroups]

    async def group_of(self, node: NodeRef) -> str:
        request = pb.NodeGroupForNodeRequest(node=_node(node))
        found = await self._call(self._stub.NodeGroupForNode(request, timeout=self._timeout))
        return str(found.nodeGroup.id)

    async def target_size(self, group: str) -> int:
        request = pb.NodeGroupTargetSizeRequest(id=group)
        found = await self._call(self._stub.NodeGroupTargetSize(request, timeout=self._timeout))
        return int(found.targetSize)

    async def nodes(self, group: str) -> list[Instance]:
        found = await self._call(self._stub.NodeGroupNodes(pb.NodeGroupNodesRequest(id=group), timeout=self._timeout))
        return [_instance(each) for each in found.instances]

    async def template(self, group: str) -> core_v1.Node | None:
        request = pb.NodeGroupTemplateNodeInfoRequest(id=group)
        try:
            found = await self._call(self._stub.NodeGroupTemplateNodeInfo(request, timeout=self._timeout))
        except ProviderError as error:
            if error.code == "UNIMPLEMENTED":
                return None
            raise
        if not found.nodeBytes:
            return None
        try:
            told = protobuf.decode_message(NODE_MESSAGE, found.nodeBytes)
            # Only what a simulation needs: what a cloud leaves out of the rest is no reason to refuse the whole.
            status = {key: told.get("status", {}).get(key) for key in _TEMPLATE_STATUS}
            made = {"metadata": told.get("metadata", {}), "spec": told.get("spec", {}), "status": status}
            return codec.decode(codec.encode(made), core_v1.Node)
        except (StatusError, ValueError) as error:
            raise ProviderError("INVALID_ARGUMENT", f"the template of group {group} is no Node: {error}") from error

    async def options(self, group: str, defaults: GroupOptions) -> GroupOptions:
        request = pb.NodeGroupAutoscalingOptionsRequest(id=group, defaults=_options(defaults))
        try:
            found = await self._call(self._stub.NodeGroupGetOptions(request, timeout=self._timeout))
        except ProviderError as error:
            if error.code == "UNIMPLEMENTED":
                return defaults
            raise
        if not found.HasField("nodeGroupAutoscalingOptions"):
            return defaults
        told = found.nodeGroupAutoscalingOptions
        return replace(
            defaults,
            utilization_threshold=told.scaleDownUtilizationThreshold,
            unneeded_time=told.scaleDownUnneededDuration.ToTimedelta().total_seconds(),
            unready_time=told.scaleDownUnreadyDuration.ToTimedelta().total_seconds(),
            max_node_provision_time=told.MaxNodeProvisionDuration.ToTimedelta().total_seconds(),
            max_node_startup_time=told.maxNodeStartupDuration.ToTimedelta().total_seconds(),
            ignore_daemonsets_utilization=told.ignoreDaemonSetsUtilization,
            zero_or_max=told.zeroOrMaxNodeScaling,
        )

    async def increase_size(self, group: str, delta: int) -> None:
        request = pb.NodeGroupIncreaseSizeRequest(id=group, delta=delta)
        await self._call(self._stub.NodeGroupIncreaseSize(request, timeout=self._timeout))

    async def decrease_target_size(self, group: str, delta: int) -> None:
        request = pb.NodeGroupDecreaseTargetSizeRequest(id=group, delta=-delta)
        await self._call(self._stub.NodeGroupDecreaseTargetSize(request, timeout=self._timeout))

    async def delete_nodes(self, group: str, nodes: Sequence[NodeRef]) -> None:
        request = pb.NodeGroupDeleteNodesRequest(id=group, nodes=[_node(each) for each in nodes])
        await self._call(self._stub.NodeGroupDeleteNodes(request, timeout=self._timeout))

    async def node_price(self, node: core_v1.Node, start: datetime, hours: float) -> float | None:
        request = pb.PricingNodePriceRequest(node=_node(NodeRef.of(node)))
        request.startTimestamp.FromDatetime(start)
        request.endTimestamp.FromDatetime(start + timedelta(hours=hours))
        try:
            return float((await self._call(self._stub.PricingNodePrice(request, timeout=self._timeout))).price)
        except ProviderError as error:
            if error.code in ("UNIMPLEMENTED", "NOT_FOUND"):
                return None
            raise

    async def pod_price(self, pod: core_v1.Pod, start: datetime, hours: float) -> float | None:
        raw = protobuf.encode_message(POD_MESSAGE, codec.decode_dict(codec.encode(pod)))
        request = pb.PricingPodPriceRequest(pod_bytes=raw)
        request.startTimestamp.FromDatetime(start)
        request.endTimestamp.FromDatetime(start + timedelta(hours=hours))
        try:
            return float((await self._call(self._stub.PricingPodPrice(request, timeout=self._timeout))).price)
        except ProviderError as error:
            if error.code in ("UNIMPLEMENTED", "NOT_FOUND"):
                return None
            raise


def _node(node: NodeRef) -> pb.ExternalGrpcNode:
    return pb.ExternalGrpcNode(
        providerID=node.provider_id, name=node.name, labels=dict(node.labels), annotations=dict(node.annotations)
    )


def _instance(found: pb.Instance) -> Instance:
    if not found.HasField("status"):
        return Instance(found.id)
    error = found.status.errorInfo
    return Instance(
        found.id,
        _STATES.get(found.status.instanceState, ""),
        error.errorCode,
        error.errorMessage,
        error.instanceErrorClass,
    )


def _options(options: GroupOptions) -> pb.NodeGroupAutoscalingOptions:
    made = pb.NodeGroupAutoscalingOptions(
        scaleDownUtilizationThreshold=options.utilization_threshold,
        scaleDownGpuUtilizationThreshold=options.utilization_threshold,
        ignoreDaemonSetsUtilization=options.ignore_daemonsets_utilization,
        zeroOrMaxNodeScaling=options.zero_or_max,
    )
    for field, seconds in (
        (made.scaleDownUnneededDuration, options.unneeded_time),
        (made.scaleDownUnreadyDuration, options.unready_time),
        (made.MaxNodeProvisionDuration, options.max_node_provision_time),
        (made.maxNodeStartupDuration, options.max_node_startup_time),
    ):
        field.FromTimedelta(timedelta(seconds=seconds))
    return made
