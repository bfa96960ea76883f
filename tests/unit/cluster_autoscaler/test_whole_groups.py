"""Groups that have all their nodes or none (ZeroOrMaxNodeScaling)."""

from __future__ import annotations

import pytest

from cluster_autoscaler.options import GroupOptions, Options
from tests.unit.cluster_autoscaler.scene import Scene

NOW = Options(group=GroupOptions(unneeded_time=0.0))


def test_one_waiting_pod_raises_all() -> None:
    scene = Scene()
    scene.group("slice", 0, 4, whole=True)
    scene.pod("p", "1500m")
    (each,) = scene.decide().scale_up.raises
    assert (each.old, each.new) == (0, 4)


@pytest.mark.parametrize(
    "options", [Options(max_nodes_total=3), Options(max_nodes_per_scale_up=3), Options(cores_total=(0, 6))]
)
def test_limits_that_leave_no_room_for_all_raise_none(options: Options) -> None:
    scene = Scene(options)
    scene.group("slice", 0, 4, cpu="2", whole=True)
    scene.pod("p", "1500m")
    plan = scene.decide().scale_up
    assert not plan.raises and "slice" in plan.skipped


def test_it_shares_no_raise_with_similar_groups() -> None:
    scene = Scene(Options(balance_similar_node_groups=True))
    scene.group("slice", 0, 4, whole=True)
    scene.group("plain", 0, 4)
    for number in range(3):
        scene.pod(f"p{number}", "1500m")
    plan = scene.decide().scale_up
    assert plan.raises and not any(option.similar for option in plan.options)


def held(scene: Scene, pods: int) -> list[str]:
    """A group of three nodes, of which `pods` have one that fills them, beside room elsewhere for none."""
    scene.group("slice", 0, 3, cpu="2", whole=True)
    nodes = [scene.node("slice") for _ in range(3)]
    for number in range(pods):
        scene.pod(f"p{number}", "1900m", node=nodes[number], owner=f"o{number}")
    return nodes


def test_it_goes_as_a_whole() -> None:
    scene = Scene(NOW)
    nodes = held(scene, 0)
    assert {each.node for each in scene.decide().scale_down.removals} == set(nodes)


def test_one_node_that_is_needed_holds_all() -> None:
    scene = Scene(NOW)
    nodes = held(scene, 1)
    plan = scene.decide().scale_down
    assert not plan.removals
    assert [plan.verdicts[name].reason for name in nodes] == ["NotUnderutilized"] + ["AtomicScaleDownFailed"] * 2


def test_how_many_may_go_at_once_does_not_tear_it_apart() -> None:
    scene = Scene(Options(group=GroupOptions(unneeded_time=0.0), max_scale_down_parallelism=2, max_drain_parallelism=1))
    nodes = held(scene, 0)
    assert {each.node for each in scene.decide().scale_down.removals} == set(nodes)
