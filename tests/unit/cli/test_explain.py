"""What `explain pod` prints."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from cli import explain
from cli.app import main
from cli.errors import CommandError
from cli.layout import ClusterPaths
from cli.processes import explain_socket
from machinery import grpc as transport
from machinery.decisions import DecisionServer, table
from proto.explain.v1 import explain_pb2 as pb
from proto.explain.v1 import explain_pb2_grpc

WHEN = "2026-01-01T00:00:00Z"


def nodes() -> list[pb.NodeVerdict]:
    return [
        pb.NodeVerdict(node="b", refused_by="NodeResourcesFit", reasons=["Insufficient cpu", "Too many pods"]),
        pb.NodeVerdict(node="a", scores=[pb.PluginScore(plugin="ImageLocality", score=3)]),
        pb.NodeVerdict(
            node="c",
            scores=[
                pb.PluginScore(plugin="ImageLocality", score=1),
                pb.PluginScore(plugin="NodeResourcesFit", score=90),
            ],
        ),
    ]


@pytest.mark.parametrize(
    ("found", "lines"),
    [
        pytest.param(
            pb.PodExplanation(
                last=pb.Attempt(time=WHEN, number=2, node_count=3, node="c", ties=1, score=91), nodes=nodes()
            ),
            [
                f"Pod ns/web was given to c (attempt 2 at {WHEN}, 3 nodes; score 91).",
                "",
                "NODE   SCORE   ImageLocality   NodeResourcesFit   VERDICT",
                "c      91      1               90                 fits",
                "a      3       3               -                  fits",
                "b      -       -               -                  NodeResourcesFit: Insufficient cpu, Too many pods",
            ],
            id="given to a node",
        ),
        pytest.param(
            pb.PodExplanation(
                last=pb.Attempt(time=WHEN, number=1, node_count=1, message="0/1 nodes …", nominated_node="b"),
                queue="unschedulable",
                recomputed=True,
            ),
            [
                f"Pod ns/web found no node (attempt 1 at {WHEN}, 1 nodes):",
                "  0/1 nodes …",
                "It was promised b once its victims are gone.",
                "Now in the queue: unschedulable.",
                "Verdicts are of now: those of the attempt were not kept.",
            ],
            id="found none",
        ),
        pytest.param(
            pb.PodExplanation(gate="waiting for scheduling gates: [x]", queue="gated"),
            ["Pod ns/web is not tried yet: waiting for scheduling gates: [x]."],
            id="gated",
        ),
        pytest.param(
            pb.PodExplanation(scheduler="other"),
            ["Pod ns/web is not scheduled by this scheduler but by 'other'."],
            id="foreign",
        ),
    ],
)
def test_rendering(found: pb.PodExplanation, lines: list[str]) -> None:
    assert explain.render("ns/web", found).splitlines() == lines


class Scheduler:
    """Answers about one pod."""

    def __init__(self, found: pb.PodExplanation) -> None:
        self.found = found

    async def ExplainPod(self, request: pb.ExplainPodRequest, context: Any) -> pb.PodExplanation:
        return self.found


WAITING = pb.PodExplanation(last=pb.Attempt(time=WHEN, number=1, node_count=1, message="0/1 nodes …"))
PLACED = pb.PodExplanation(last=pb.Attempt(time=WHEN, number=1, node_count=1, node="b", ties=1))


def of_pod(found: pb.PodExplanation, told: pb.Decision | None, paths: ClusterPaths) -> str:
    """What is printed when the scheduler and (unless `told` is None) the autoscaler answer."""
    kinds = {"scale-up": lambda namespace, name: told if name == "web" else None}
    up, ends = Event(), Event()

    async def serve() -> None:
        server = transport.server()
        explain_pb2_grpc.add_ExplainServiceServicer_to_server(Scheduler(found), server)  # type: ignore[arg-type]
        transport.add_port(server, f"unix:{explain_socket(paths)}")
        await server.start()
        async with AsyncExitStack() as doors:
            doors.push_async_callback(server.stop, 0)
            if told is not None:
                address = f"unix:{explain_socket(paths, 'cluster-autoscaler')}"
                await doors.enter_async_context(DecisionServer(address, kinds))
            up.set()
            await asyncio.to_thread(ends.wait, 20)

    thread = Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert up.wait(10)
        return explain.pod(paths, "default", "web")
    finally:
        ends.set()
        thread.join(10)


@pytest.fixture
def paths(tmp_path: Path) -> ClusterPaths:
    made = ClusterPaths(tmp_path)
    Path(explain_socket(made)).parent.mkdir(parents=True, exist_ok=True)
    return made


def test_a_pod_without_node_is_explained_by_the_autoscaler_too(paths: ClusterPaths) -> None:
    told = pb.Decision(headline="Pod default/web: pod didn't trigger scale-up: 1 max node group size reached.")
    told.tables.append(table("", ("GROUP", "WHY"), [["workers", "max node group size reached"]]))
    found = of_pod(WAITING, told, paths)
    assert "Pod default/web found no node" in found
    assert "Cluster autoscaler: Pod default/web: pod didn't trigger scale-up: 1 max node group size reached." in found
    assert found.splitlines()[-1].split(maxsplit=1) == ["workers", "max node group size reached"]


@pytest.mark.parametrize(
    ("found", "told"),
    [
        pytest.param(WAITING, None, id="no autoscaler"),
        pytest.param(PLACED, pb.Decision(headline="old"), id="a pod that has its node"),
    ],
)
def test_otherwise_the_autoscaler_is_not_spoken_of(
    found: pb.PodExplanation, told: pb.Decision | None, paths: ClusterPaths
) -> None:
    assert "autoscaler" not in of_pod(found, told, paths)


def test_a_scheduler_that_is_down_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "TIMEOUT", 1.0)
    with pytest.raises(CommandError):
        explain.pod(ClusterPaths(tmp_path), "default", "web")


def test_only_pods_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["explain", "deployment", "web"])
    assert "invalid choice" in capsys.readouterr().err
