"""The externalgrpc CloudProvider over a Unix socket as an autoscaler sees it; the loop below on the virtual clock."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from cloud.app import serving
from cloud.core import Core
from cloud.engine import Engine
from cloud.machines import FakeMachines
from cloud.model import Autoscaling, Fault, Group, Health, State, Taint, standard_types
from cloud.provider import NODE_MESSAGE, POD_MESSAGE, CloudProvider
from cloud.requests import Requests
from cloud.store import DamagedState, Store
from cluster_autoscaler.options import GroupOptions
from cluster_autoscaler.provider import GrpcProvider
from machinery import grpc as transport
from machinery import protobuf
from machinery.clock import VirtualClock
from machinery.errors import BadRequest
from proto.externalgrpc.v1 import externalgrpc_pb2 as pb
from proto.externalgrpc.v1.externalgrpc_pb2_grpc import CloudProviderStub


class Cloud:
    """An engine on the virtual clock with fake machines, and a stub to its provider."""

    def __init__(self, folder: Path, stub: Any) -> None:
        self.clock = VirtualClock()
        self.machines = FakeMachines()
        self.store = Store(folder / "cloud.json")
        self.engine = Engine(Core(State("c", 0.0, types=standard_types())), self.machines, self.store, self.clock)
        self.requests = Requests(self.engine.core)
        self.stub = stub

    def group(self, **settings: Any) -> Group:
        chosen = {"name": "g", "type": "standard-2x4", "min": 0, "max": 4, "desired": 1, "prefix": "g", **settings}
        made = Group(**chosen)
        self.requests.create_group(made)
        return made

    async def states(self) -> dict[str, pb.InstanceStatus]:
        answer = await self.stub.NodeGroupNodes(pb.NodeGroupNodesRequest(id="g"))
        return {each.id.rpartition("/")[2]: each.status for each in answer.instances}


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    address = f"unix:{tmp_path / 'cloud.sock'}"
    channel = transport.channel(address)
    made = Cloud(tmp_path, CloudProviderStub(channel))
    async with serving(address, CloudProvider(made.requests, made.engine.wake)):
        task = asyncio.create_task(made.engine.run())
        try:
            yield made
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await channel.close()


async def test_a_group_grows_and_shrinks_as_an_autoscaler_asks(cloud: Cloud) -> None:
    cloud.group(bootDelay=30.0)
    groups = (await cloud.stub.NodeGroups(pb.NodeGroupsRequest())).nodeGroups
    assert [(each.id, each.minSize, each.maxSize) for each in groups] == [("g", 0, 4)]
    await cloud.stub.NodeGroupIncreaseSize(pb.NodeGroupIncreaseSizeRequest(id="g", delta=1))
    assert (await cloud.stub.NodeGroupTargetSize(pb.NodeGroupTargetSizeRequest(id="g"))).targetSize == 2
    await cloud.clock.advance(5)
    states = await cloud.states()
    assert {each.instanceState for each in states.values()} == {pb.InstanceStatus.instanceCreating}
    await cloud.clock.advance(40)
    assert {each.instanceState for each in (await cloud.states()).values()} == {pb.InstanceStatus.instanceRunning}
    assert cloud.machines.there.keys() == {"g-1", "g-2"}

    node = pb.ExternalGrpcNode(providerID="nanokube://c/g-1", name="g-1")
    assert (await cloud.stub.NodeGroupForNode(pb.NodeGroupForNodeRequest(node=node))).nodeGroup.id == "g"
    await cloud.stub.NodeGroupDeleteNodes(pb.NodeGroupDeleteNodesRequest(id="g", nodes=[node]))
    assert (await cloud.stub.NodeGroupTargetSize(pb.NodeGroupTargetSizeRequest(id="g"))).targetSize == 1
    await cloud.clock.advance(5)
    assert cloud.machines.there.keys() == {"g-2"}
    assert (await cloud.states()).keys() == {"g-2"}
    assert (await cloud.stub.NodeGroupForNode(pb.NodeGroupForNodeRequest(node=node))).nodeGroup.id == ""


async def test_lack_of_capacity_has_class_1_and_a_failed_launch_99(cloud: Cloud) -> None:
    group = cloud.group(desired=0)
    cloud.requests.fail(group, Fault("out-of-capacity", count=1))
    await cloud.stub.NodeGroupIncreaseSize(pb.NodeGroupIncreaseSizeRequest(id="g", delta=1))
    await cloud.clock.advance(5)
    error = (await cloud.states())["g-1"].errorInfo
    assert (error.errorCode, error.instanceErrorClass) == ("OUT_OF_CAPACITY", 1)
    cloud.machines.refuse = "the rack is on fire"
    await cloud.stub.NodeGroupIncreaseSize(pb.NodeGroupIncreaseSizeRequest(id="g", delta=1))
    await cloud.clock.advance(5)
    error = (await cloud.states())["g-2"].errorInfo
    assert (error.errorMessage, error.instanceErrorClass) == ("the rack is on fire", 99)
    await cloud.stub.NodeGroupDecreaseTargetSize(pb.NodeGroupDecreaseTargetSizeRequest(id="g", delta=-2))
    await cloud.clock.advance(5)
    assert await cloud.states() == {}


@pytest.mark.parametrize(
    ("call", "request_", "code"),
    [
        pytest.param("NodeGroupTargetSize", pb.NodeGroupTargetSizeRequest(id="no"), "NOT_FOUND", id="no group"),
        pytest.param(
            "NodeGroupIncreaseSize", pb.NodeGroupIncreaseSizeRequest(id="g", delta=9), "INVALID_ARGUMENT", id="max"
        ),
        pytest.param(
            "NodeGroupDeleteNodes",
            pb.NodeGroupDeleteNodesRequest(id="g", nodes=[pb.ExternalGrpcNode(providerID="aws:///x", name="x")]),
            "NOT_FOUND",
            id="a stranger",
        ),
        pytest.param(
            "PricingPodPrice", pb.PricingPodPriceRequest(pod_bytes=b"\xff\xff"), "INVALID_ARGUMENT", id="no pod"
        ),
        pytest.param(
            "PricingNodePrice",
            pb.PricingNodePriceRequest(node=pb.ExternalGrpcNode(name="x")),
            "NOT_FOUND",
            id="no price",
        ),
    ],
)
async def test_refusals_are_statuses(cloud: Cloud, call: str, request_: Any, code: str) -> None:
    cloud.group()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await getattr(cloud.stub, call)(request_)
    assert refused.value.code().name == code


async def test_the_template_is_a_node_as_it_would_join(cloud: Cloud) -> None:
    cloud.group(
        zones=["a", "b"], labels={"team": "x"}, taints=[Taint("dedicated", "NoSchedule", "x")], hollow=True, spot=True
    )
    answer = await cloud.stub.NodeGroupTemplateNodeInfo(pb.NodeGroupTemplateNodeInfoRequest(id="g"))
    node = protobuf.decode_message(NODE_MESSAGE, answer.nodeBytes)
    labels = node["metadata"]["labels"]
    assert labels["node.kubernetes.io/instance-type"] == "standard-2x4"
    assert (labels["topology.kubernetes.io/zone"], labels["nanokube.io/node-group"], labels["team"]) == ("a", "g", "x")
    assert node["spec"]["taints"] == [{"key": "dedicated", "value": "x", "effect": "NoSchedule"}]
    assert node["status"]["allocatable"]["cpu"] == "2"
    assert node["status"]["allocatable"]["memory"] == f"{4 * 1024 * 1024 - 100 * 1024}Ki"
    assert node["status"]["capacity"]["pods"] == "110"


async def test_prices_are_of_the_asked_time(cloud: Cloud) -> None:
    group = cloud.group(spot=True)
    await cloud.clock.advance(5)
    hourly = standard_types()[group.type].pricePerHour * 0.3
    asked = pb.PricingNodePriceRequest(node=pb.ExternalGrpcNode(providerID="nanokube://c/g-1"))
    asked.startTimestamp.seconds, asked.endTimestamp.seconds = 1000, 1000 + 7200
    assert (await cloud.stub.PricingNodePrice(asked)).price == pytest.approx(2 * hourly)
    asked.node.CopyFrom(pb.ExternalGrpcNode(name="t", labels={"node.kubernetes.io/instance-type": "standard-2x4"}))
    assert (await cloud.stub.PricingNodePrice(asked)).price == pytest.approx(2 * hourly / 0.3)
    pod = {"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}}]}}
    price = pb.PricingPodPriceRequest(pod_bytes=protobuf.encode_message(POD_MESSAGE, pod))
    price.endTimestamp.seconds = 3600
    assert (await cloud.stub.PricingPodPrice(price)).price == pytest.approx(0.0316 / 2 + 0.0042)


async def test_a_group_tells_options_of_its_own_and_leaves_the_others_to_the_autoscaler(
    cloud: Cloud, tmp_path: Path
) -> None:
    defaults = GroupOptions(utilization_threshold=0.6, unneeded_time=700.0)
    provider = GrpcProvider(f"unix:{tmp_path / 'cloud.sock'}")
    group = cloud.group()
    assert await provider.options("g", defaults) == defaults
    cloud.requests.set_autoscaling(group, Autoscaling(scaleDownUnneededTime=60.0, ignoreDaemonSetsUtilization=True))
    cloud.requests.set_autoscaling(group, Autoscaling(scaleDownUtilizationThreshold=0.3))
    wanted = replace(defaults, utilization_threshold=0.3, unneeded_time=60.0, ignore_daemonsets_utilization=True)
    assert await provider.options("g", defaults) == wanted
    with pytest.raises(BadRequest, match="between 0 and 1"):
        cloud.requests.set_autoscaling(group, Autoscaling(scaleDownUtilizationThreshold=2.0))
    with pytest.raises(BadRequest, match="times of autoscaling"):
        cloud.requests.set_autoscaling(group, Autoscaling(maxNodeProvisionTime=-1.0))
    assert await provider.options("g", defaults) == wanted
    await provider.close()


async def test_what_was_planned_survives_the_process(cloud: Cloud, tmp_path: Path) -> None:
    cloud.group()
    await cloud.clock.advance(5)
    await cloud.stub.NodeGroupIncreaseSize(pb.NodeGroupIncreaseSizeRequest(id="g", delta=2))
    assert cloud.store.load() is not None
    again = Store(tmp_path / "cloud.json").load()
    assert again == cloud.engine.core.state
    assert again.groups["g"].desired == 3
    (tmp_path / "cloud.json").write_text("{")
    with pytest.raises(DamagedState):
        Store(tmp_path / "cloud.json").load()


async def test_a_stranger_of_the_same_name_is_left_alone(cloud: Cloud) -> None:
    cloud.machines.there["g-1"] = Health()
    cloud.group()
    await cloud.clock.advance(5)
    assert (await cloud.states()).keys() == {"g-2"}
