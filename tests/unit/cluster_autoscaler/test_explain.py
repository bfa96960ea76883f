"""What people read about a waiting pod: groups that were tried, what fits, what was chosen, and why not others."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from cluster_autoscaler.explain import Explainer, LastPass
from proto.explain.v1 import explain_pb2 as pb
from tests.unit.cluster_autoscaler.scene import Scene


def explainer(scene: Scene) -> Explainer:
    removals: Any = SimpleNamespace(active={})
    made = Explainer(scene.registry, removals)
    made.last = LastPass(now=scene.now, view=scene.view, plan=scene.decide(), names=tuple(scene.nodes))
    return made


def explained(scene: Scene, name: str) -> pb.Decision | None:
    return explainer(scene).scale_up("default", name)


def scene() -> Scene:
    made = Scene()
    made.group("small", 0, 5, cpu="1")
    made.group("large", 0, 5, cpu="8")
    made.group("full", 0, 0)
    return made


def rows(found: pb.Decision) -> dict[str, str]:
    return {row.cells[0]: row.cells[1] for row in found.tables[0].rows}


def test_a_pod_that_triggered_a_raise_shows_every_group() -> None:
    s = scene()
    s.pod("web", "2")
    found = explained(s, "web")
    assert found is not None
    assert found.headline == "Pod default/web triggered scale-up: {large 0->1 (max: 5)}."
    told = rows(found)
    assert told["small"] == "Insufficient cpu"
    assert told["full"] == "max node group size reached"
    assert told["large"].startswith("fits: 1 nodes for 1 pods, waste 1.") and told["large"].endswith(", chosen")


def test_a_pod_that_fits_nowhere_shows_why() -> None:
    s = scene()
    s.pod("web", "16")
    found = explained(s, "web")
    assert found is not None
    assert "1 max node group size reached, 2 Insufficient cpu" in found.headline
    assert rows(found) == {
        "small": "Insufficient cpu",
        "large": "Insufficient cpu",
        "full": "max node group size reached",
    }


def test_nothing_is_said_of_others() -> None:
    assert explained(scene(), "web") is None


def test_a_pod_that_waits_for_a_machine_on_its_way_is_told_so() -> None:
    s = scene()
    s.view.groups["large"].target = 1
    s.pod("web", "2")
    found = explained(s, "web")
    assert found is not None
    wanted = "a machine that is on its way will have room (upcoming: 1 of large)"
    assert found.headline == f"Pod default/web needs no other machine: {wanted}."
    name = s.node("small")
    s.pod("tiny", "100m")
    found = explained(s, "tiny")
    assert found is not None
    assert found.headline == f"Pod default/tiny needs no other machine: node {name} has room."


def test_a_node_shows_what_is_requested_and_when_it_may_go() -> None:
    s = scene()
    name = s.node("large")
    s.view.groups["large"].options = replace(s.options.group, utilization_threshold=0.3, unneeded_time=60.0)
    s.pod("web", "2", node=name)
    made = explainer(s)
    found = made.node("", name)
    assert found is not None
    told = {fact.what: fact.value for fact in found.facts}
    terms = "below 30% requested, after 60 s unneeded, or 1200 s unready"
    assert (told["group"], told["requested"], told["may go"]) == ("large", "25.0%", terms)
    group = made.nodegroup("", "large")
    assert group is not None
    assert {fact.what: fact.value for fact in group.facts}["nodes may go"] == terms
