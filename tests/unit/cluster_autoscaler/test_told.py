"""What is told: the status document, the flags, templates made clean."""

from __future__ import annotations

import pytest
import yaml

from api.models import core_v1
from cluster_autoscaler import app
from cluster_autoscaler.options import Options
from cluster_autoscaler.status import StatusWriter, config_map
from cluster_autoscaler.templates import sanitized
from tests.unit.cluster_autoscaler.scene import Scene
from tests.unit.scheduler.objects import node


async def test_the_status_document() -> None:
    scene = Scene()
    scene.group("a", 0, 5)
    scene.node("a")
    scene.update()
    writer = StatusWriter(scene.clock)
    first = writer.document(scene.now, scene.view, scene.registry, {})
    await scene.clock.advance(100, settle=1)
    scene.registry.failed(scene.now, "a", "QUOTA", "no quota")
    second = writer.document(scene.now, scene.view, scene.registry, {"a-1": "a"})
    assert list(first) == ["time", "autoscalerStatus", "clusterWide", "nodeGroups"]
    (before,), (after,) = first["nodeGroups"], second["nodeGroups"]
    assert before["scaleUp"]["status"] == "NoActivity" and before["scaleDown"]["status"] == "NoCandidates"
    assert after["scaleUp"]["backoffInfo"] == {"errorCode": "QUOTA", "errorMessage": "no quota"}
    assert after["scaleDown"] == {
        "status": "CandidatesPresent",
        "candidates": 1,
        "lastProbeTime": "2026-01-01T00:01:40Z",
        "lastTransitionTime": "2026-01-01T00:01:40Z",
    }
    assert after["health"]["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    assert after["health"]["nodeCounts"]["registered"]["ready"] == 1
    made = config_map("kube-system", "s", second, scene.clock.now())
    assert yaml.safe_load(made["data"]["status"]) == second
    assert made["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/last-updated"].endswith("+0000 UTC")


def test_flags_default_to_the_options() -> None:
    args = app.parser().parse_args(["--api-server=x", "--cloud-address=unix:/x"])
    assert app.options_from(args) == Options()


def test_flags_are_taken_over() -> None:
    args = app.parser().parse_args(
        [
            *("--api-server=x", "--cloud-address=unix:/x", "--expander=priority,price", "--cores-total=2:10"),
            *("--scale-down-unneeded-time=60", "--scale-down-enabled=false", "--max-nodes-total=7"),
        ]
    )
    options = app.options_from(args)
    assert options.expanders == ("priority", "price") and options.cores_total == (2, 10)
    assert options.group.unneeded_time == 60 and not options.scale_down_enabled and options.max_nodes_total == 7


@pytest.mark.parametrize("flag", ["--expander=best", "--cores-total=5", "--cores-total=5:1", "--scale-down-enabled=x"])
def test_wrong_flags_end_the_process(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        app.parser().parse_args(["--api-server=x", "--cloud-address=unix:/x", flag])
    assert flag.partition("=")[0] in capsys.readouterr().err


def test_a_template_keeps_only_what_will_be() -> None:
    taints = [
        ("ToBeDeletedByClusterAutoscaler", "1", "NoSchedule"),
        ("node.kubernetes.io/not-ready", "", "NoExecute"),
        ("startup-taint.cluster-autoscaler.kubernetes.io/x", "", "NoSchedule"),
        ("dedicated", "web", "NoSchedule"),
    ]
    made = sanitized(node("n", taints=taints, unschedulable=True, labels={"disk": "ssd"}), "t")
    assert made.metadata is not None and made.spec is not None
    assert made.metadata.labels == {"kubernetes.io/hostname": "t", "disk": "ssd"}
    assert made.spec.taints == [core_v1.Taint(key="dedicated", value="web", effect="NoSchedule")]
    assert not made.spec.unschedulable
