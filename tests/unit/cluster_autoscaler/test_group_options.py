"""Options of one group hold for its nodes alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster_autoscaler.planner import Plan
from cluster_autoscaler.provider import Instance
from tests.unit.cluster_autoscaler.scene import Scene


def scene(**own: Any) -> tuple[Scene, dict[str, str]]:
    """Two groups with two nodes each, of which one has options of its own."""
    made = Scene()
    nodes = {}
    for name in ("own", "other"):
        made.group(name, 1, 5, labels={"only": name})
        nodes[name] = made.node(name)
        made.node(name)
    view = made.view.groups["own"]
    view.options = replace(view.options, **own)
    return made, nodes


def removed(plans: list[Plan]) -> set[str]:
    return {each.group for plan in plans for each in plan.scale_down.removals}


async def test_a_group_gives_its_nodes_up_sooner() -> None:
    s, _ = scene(unneeded_time=60.0)
    assert removed(await s.passes(120)) == {"own"}
    assert removed(await s.passes(600)) == {"other"}


@pytest.mark.parametrize(
    ("threshold", "reason"),
    [pytest.param(0.2, "NotUnderutilized", id="below the use"), pytest.param(0.4, "NotUnneededLongEnough", id="above")],
)
def test_a_group_has_a_threshold_of_its_own(threshold: float, reason: str) -> None:
    s, nodes = scene(utilization_threshold=threshold)
    s.pod("web", "600m", node=nodes["own"])  # 30 %
    assert s.decide().scale_down.verdicts[nodes["own"]].reason == reason
    s.view.groups["own"].options = s.options.group
    assert s.decide().scale_down.verdicts[nodes["own"]].reason == "NotUnneededLongEnough"


async def test_a_group_waits_for_its_machines_as_long_as_it_says() -> None:
    s, _ = scene(max_node_provision_time=60.0)
    for name in ("own", "other"):
        view = s.view.groups[name]
        view.target += 1
        view.instances.append(Instance(f"fake://{name}-late", "creating"))
    s.update()
    await s.clock.advance(120)
    assert set(s.update().never_came) == {"own"}
