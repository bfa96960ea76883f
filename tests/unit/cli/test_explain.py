"""What `explain pod` prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import explain
from cli.app import main
from cli.errors import CommandError
from cli.layout import ClusterPaths
from proto.explain.v1 import explain_pb2 as pb

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


def test_a_scheduler_that_is_down_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "TIMEOUT", 1.0)
    with pytest.raises(CommandError):
        explain.pod(ClusterPaths(tmp_path), "default", "web")


def test_only_pods_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["explain", "deployment", "web"])
    assert "invalid choice" in capsys.readouterr().err
