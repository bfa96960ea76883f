"""Expanders elsewhere: cluster-autoscaler's gRPC expander contract."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from cluster_autoscaler.choosing import NODE_MESSAGE, POD_MESSAGE, GrpcExpander, choose
from cluster_autoscaler.expanders import Knowledge, Option
from machinery import protobuf
from proto.expander.v1 import expander_pb2 as pb
from scheduler.framework.pod_info import PodInfo
from tests.unit.cluster_autoscaler.scene import Scene

Answer = Callable[[pb.BestOptionsRequest], pb.BestOptionsResponse]


def three() -> list[Option]:
    scene = Scene()
    for name in ("a", "b", "c"):
        scene.group(name, 0, 10, cpu="4")
    made = scene.planner.templates(scene.view, [], [])
    pods = tuple(PodInfo(scene.pod(f"p{number}")) for number in range(2))
    return [Option(name, 1, pods, made[name]) for name in ("a", "b", "c")]


@contextlib.asynccontextmanager
async def served(folder: Path, answer: Answer) -> AsyncIterator[GrpcExpander]:
    from machinery import grpc as transport
    from proto.expander.v1 import expander_pb2_grpc

    class Service(expander_pb2_grpc.ExpanderServicer):
        async def BestOptions(self, request: Any, context: Any) -> Any:
            return answer(request)

    server = transport.server()
    expander_pb2_grpc.add_ExpanderServicer_to_server(Service(), server)
    transport.add_port(server, f"unix:{folder / 'expander'}")
    await server.start()
    expander = GrpcExpander(f"unix:{folder / 'expander'}", timeout=2.0)
    try:
        yield expander
    finally:
        await expander.close()
        await server.stop(0)


def preferring(*groups: str) -> Answer:
    return lambda request: pb.BestOptionsResponse(options=[pb.Option(nodeGroupId=group) for group in groups])


def failing(request: pb.BestOptionsRequest) -> pb.BestOptionsResponse:
    raise RuntimeError("out of ideas")


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        pytest.param(preferring("b"), ["b"], id="one"),
        pytest.param(preferring("c", "a"), ["a", "c"], id="two"),
        pytest.param(preferring(), ["a", "b", "c"], id="no-opinion"),
        pytest.param(preferring("nobody"), ["a", "b", "c"], id="unknown"),
        pytest.param(preferring("nobody", "b"), ["b"], id="partly-unknown"),
        pytest.param(failing, ["a", "b", "c"], id="fails"),
    ],
)
async def test_what_is_believed(tmp_path: Path, answer: Answer, left: list[str]) -> None:
    async with served(tmp_path, answer) as expander:
        assert [option.group for option in await expander(three())] == left


async def test_a_server_that_is_away_narrows_nothing(tmp_path: Path) -> None:
    expander = GrpcExpander(f"unix:{tmp_path / 'nobody'}", timeout=1.0)
    assert len(await expander(three())) == 3
    await expander.close()


async def test_what_the_server_is_told(tmp_path: Path) -> None:
    asked: list[pb.BestOptionsRequest] = []

    def note(request: pb.BestOptionsRequest) -> pb.BestOptionsResponse:
        asked.append(request)
        return pb.BestOptionsResponse()

    async with served(tmp_path, note) as expander:
        await expander(three())
    (request,) = asked
    assert [(each.nodeGroupId, each.nodeCount) for each in request.options] == [("a", 1), ("b", 1), ("c", 1)]
    for raw in (request.nodeMap["a"], request.nodeBytesMap["a"]):
        assert protobuf.decode_message(NODE_MESSAGE, raw)["status"]["allocatable"]["cpu"] == "4"
    for raws in (request.options[0].pod, request.options[0].podBytes):
        assert [protobuf.decode_message(POD_MESSAGE, raw)["metadata"]["name"] for raw in raws] == ["p0", "p1"]


async def test_it_takes_its_turn_in_the_chain() -> None:
    seen: list[list[str]] = []

    async def remote(options: Any) -> list[Option]:
        seen.append([option.group for option in options])
        return [option for option in options if option.group == "b"]

    prices = Knowledge(node_prices={"a": 0.1, "b": 0.1, "c": 0.5})
    best = await choose(three(), ("price", "grpc", "random"), prices, random.Random(1), remote)
    assert best is not None and best.group == "b" and seen == [["a", "b"]]
    assert await choose([], ("grpc",), prices, random.Random(1), remote) is None
