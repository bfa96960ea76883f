"""Scale-down: who may go, when, and why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.models import core_v1
from cluster_autoscaler.drainability import drain
from cluster_autoscaler.options import GroupOptions, Options
from machinery.selectors import LabelSelector
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.preemption import Budget
from tests.unit.cluster_autoscaler.scene import Scene
from tests.unit.scheduler.objects import pod as pod_object


def pair(options: Options | None = None) -> tuple[Scene, str, str]:
    """A busy node with some room and an idle one."""
    scene = Scene(options)
    scene.group("a", 0, 5, cpu="2")
    busy, idle = scene.node("a"), scene.node("a")
    scene.pod("busy", "1500m", node=busy, owner="busy")
    scene.pod("idle", "100m", node=idle)
    return scene, busy, idle


async def test_a_node_goes_once_it_was_unneeded_for_ten_minutes() -> None:
    scene, busy, idle = pair()
    plan = scene.decide()
    assert list(plan.scale_down.unneeded) == [idle]
    assert plan.scale_down.verdicts[busy].reason == "NotUnderutilized"
    assert plan.scale_down.verdicts[idle].reason == "NotUnneededLongEnough"
    await scene.clock.advance(599, settle=1)
    assert not scene.decide().scale_down.removals
    await scene.clock.advance(1, settle=1)
    (removal,) = scene.decide().scale_down.removals
    assert removal.node == idle and [pod.name for pod in removal.moving] == ["idle"]


async def test_the_time_starts_anew_when_it_was_needed_meanwhile() -> None:
    scene, _, idle = pair()
    scene.decide()
    await scene.clock.advance(300, settle=1)
    scene.pod("guest", "1500m", node=idle, owner="guest")
    assert not scene.decide().scale_down.unneeded
    scene.snapshot.remove_pod("uid-guest")
    await scene.clock.advance(400, settle=1)
    assert not scene.decide().scale_down.removals


def test_nothing_goes_soon_after_something_came() -> None:
    scene, _, idle = pair(Options(group=GroupOptions(unneeded_time=0.0)))
    scene.cooldown.added = scene.now
    plan = scene.decide().scale_down
    assert not plan.removals and "a node was added" in plan.verdicts[idle].message
    scene.cooldown.added = scene.now - 600
    assert scene.decide().scale_down.removals


def test_nothing_goes_while_something_is_added() -> None:
    scene, _, idle = pair(Options(group=GroupOptions(unneeded_time=0.0)))
    scene.group("big", 0, 5, cpu="16")
    scene.pod("huge", "10", owner="huge")
    plan = scene.decide()
    assert plan.scale_up.raises and not plan.scale_down.removals and idle in plan.scale_down.unneeded


NOW = Options(group=GroupOptions(unneeded_time=0.0))


def _annotate(scene: Scene, idle: str) -> None:
    metadata = scene.nodes[idle].metadata
    assert metadata is not None
    metadata.annotations = {"cluster-autoscaler.kubernetes.io/scale-down-disabled": "true"}


def _minimum(scene: Scene, idle: str) -> None:
    view = scene.view.groups["a"]
    view.group = type(view.group)("a", 2, 5)


def _foreign(scene: Scene, idle: str) -> None:
    del scene.view.group_of[idle]


def _no_place(scene: Scene, idle: str) -> None:
    scene.pod("wide", "600m", node=idle, owner="wide")


def _bare(scene: Scene, idle: str) -> None:
    scene.pod("bare", "10m", node=idle, owner="")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_annotate, "ScaleDownDisabledAnnotation"),
        (_minimum, "NodeGroupMinSizeReached"),
        (_foreign, "NotAutoscaled"),
        (_no_place, "NoPlaceToMovePods"),
        (_bare, "BlockedByPod"),
    ],
)
def test_why_nodes_stay(change: Callable[[Scene, str], None], reason: str) -> None:
    scene, _, idle = pair(NOW)
    change(scene, idle)
    plan = scene.decide().scale_down
    assert plan.verdicts[idle].reason == reason and not plan.removals


async def test_what_was_found_unremovable_is_not_asked_again_for_a_while() -> None:
    scene, _, idle = pair(NOW)
    _bare(scene, idle)
    scene.decide()
    scene.snapshot.remove_pod("uid-bare")
    await scene.clock.advance(299, settle=1)
    assert scene.decide().scale_down.verdicts[idle].reason == "RecentlyUnremovable"
    await scene.clock.advance(1, settle=1)
    assert scene.decide().scale_down.removals


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (Options(group=GroupOptions(unneeded_time=0.0), cores_total=(4, 100)), "MinimalResourceLimitExceeded"),
        (Options(group=GroupOptions(unneeded_time=0.0), memory_total=(8, 100)), "MinimalResourceLimitExceeded"),
    ],
)
def test_the_cluster_keeps_its_least(options: Options, reason: str) -> None:
    scene, _, idle = pair(options)
    assert scene.decide().scale_down.verdicts[idle].reason == reason


def test_nodes_do_not_lean_on_nodes_that_go_too() -> None:
    """Three nearly idle nodes: two may go, the third takes their pods."""
    scene = Scene(NOW)
    scene.group("a", 0, 5, cpu="2")
    for number in range(3):
        scene.pod(f"p{number}", "600m", node=scene.node("a"), owner=f"o{number}")
    plan = scene.decide().scale_down
    assert len(plan.unneeded) == 2 and len(plan.removals) == 1  # one drain at a time
    (stays,) = set(scene.nodes) - set(plan.unneeded)
    assert plan.verdicts[stays].reason in ("NotUnneededOtherReason", "NoPlaceToMovePods")


def test_empty_nodes_go_ten_at_a_time() -> None:
    scene = Scene(NOW)
    scene.group("a", 0, 50)
    for _ in range(30):
        scene.node("a")
    plan = scene.decide().scale_down
    assert len(plan.unneeded) == 30 and len(plan.removals) == 10


async def test_unready_nodes_go_after_twenty_minutes() -> None:
    scene = Scene()
    scene.group("a", 0, 5, cpu="4")
    scene.pod("busy", "2100m", node=scene.node("a"), owner="busy")
    sick = scene.node("a", ready=False)
    scene.pod("p", "1900m", node=sick)
    assert scene.decide().scale_down.verdicts[sick].reason == "NotUnreadyLongEnough"
    await scene.clock.advance(1199, settle=1)
    assert not scene.decide().scale_down.removals
    await scene.clock.advance(1, settle=1)
    assert [each.node for each in scene.decide().scale_down.removals if not each.empty] == [sick]


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        pytest.param({}, "", id="replicated"),
        pytest.param({"owner": ""}, "NotReplicated", id="bare"),
        pytest.param({"kind": "Widget"}, "NotReplicated", id="custom controller"),
        pytest.param({"owner": "gone"}, "ControllerNotFound", id="controller gone"),
        pytest.param({"note": "false"}, "NotSafeToEvictAnnotation", id="not safe"),
        pytest.param({"owner": "", "note": "true"}, "", id="bare but safe"),
        pytest.param({"namespace": "kube-system"}, "UnmovableKubeSystemPod", id="system"),
        pytest.param({"namespace": "kube-system", "app": "guarded"}, "", id="system with a budget"),
        pytest.param({"volume": "emptyDir"}, "LocalStorageRequested", id="emptyDir"),
        pytest.param({"volume": "hostPath"}, "LocalStorageRequested", id="hostPath"),
        pytest.param({"volume": "memory"}, "", id="emptyDir in memory"),
        pytest.param({"volume": "emptyDir", "spared": "v"}, "", id="spared emptyDir"),
        pytest.param({"volume": "emptyDir", "spared": "w"}, "LocalStorageRequested", id="another is spared"),
        pytest.param({"kind": "DaemonSet"}, "", id="daemon"),
        pytest.param({"app": "tight"}, "NotEnoughPdb", id="budget is used up"),
    ],
)
def test_which_pods_hold_a_node(spec: dict[str, Any], reason: str) -> None:
    scene = Scene()
    spec = {"owner": "web", "kind": "ReplicaSet", "namespace": "default", "app": "web", **spec}
    prefix = "cluster-autoscaler.kubernetes.io/safe-to-evict"
    notes = {key: spec[name] for key, name in ((prefix, "note"), (f"{prefix}-local-volumes", "spared")) if name in spec}
    volumes = {
        "emptyDir": core_v1.Volume(name="v", emptyDir=core_v1.EmptyDirVolumeSource()),
        "memory": core_v1.Volume(name="v", emptyDir=core_v1.EmptyDirVolumeSource(medium="Memory")),
        "hostPath": core_v1.Volume(name="v", hostPath=core_v1.HostPathVolumeSource(path="/x")),
    }
    more: dict[str, Any] = {"volumes": [volumes[spec["volume"]]]} if "volume" in spec else {}
    made = scene.pod(
        "p",
        owner=spec["owner"],
        kind=spec["kind"],
        namespace=spec["namespace"],
        labels={"app": spec["app"]},
        annotations=notes,
        **more,
    )
    budgets = [
        Budget("kube-system", LabelSelector.from_labels({"app": "guarded"}), 1),
        Budget("default", LabelSelector.from_labels({"app": "tight"}), 0),
    ]
    found = drain([PodInfo(made)], Options(), lambda kind, namespace, name: name != "gone", budgets)
    assert (found.blocking.reason if found.blocking is not None else "") == reason


def test_budgets_are_counted_over_all_pods_of_a_node() -> None:
    pods = [PodInfo(pod_object(f"p{number}", {"cpu": "1m"}, labels={"app": "web"})) for number in range(2)]
    for info in pods:
        info.owner = ("ReplicaSet", "web")
    budgets = [Budget("default", LabelSelector.from_labels({"app": "web"}), 1)]
    found = drain(pods, Options(), lambda *_: True, budgets)
    assert found.blocking is not None and found.blocking.reason == "NotEnoughPdb"


LOAD = st.lists(st.integers(50, 1900), max_size=14)


@settings(max_examples=50, deadline=None)
@given(LOAD, st.integers(0, 3), st.integers(0, 4))
async def test_whatever_is_moved_fits_and_minimums_hold(load: list[int], least: int, empty: int) -> None:
    scene = Scene(NOW)
    scene.group("a", least, 30, cpu="2")
    for _ in range(least + empty):
        scene.node("a")
    for number, cpu in enumerate(load):
        scene.pod(f"p{number}", f"{cpu}m", node=scene.node("a"), owner=f"o{number}")
    for _ in range(40):
        plan = scene.decide()
        assert not plan.scale_up.raises
        if not plan.scale_down.removals:
            break
        scene.act(plan)
        assert not scene.waiting
        assert len(scene.nodes) >= least
        await scene.clock.advance(10, settle=1)
    assert not plan.scale_down.removals


@settings(max_examples=25, deadline=None)
@given(LOAD, st.integers(0, 3))
async def test_a_steady_load_comes_to_rest(load: list[int], least: int) -> None:
    """After it has settled, no machine comes or goes any more."""
    scene = Scene(Options(scan_interval=60.0))
    scene.group("a", least, 30, cpu="2")
    scene.group("b", 0, 30, cpu="4")
    for _ in range(least):
        scene.node("a")
    for number, cpu in enumerate(load):
        scene.pod(f"p{number}", f"{cpu}m", owner=f"o{number}")
    await scene.passes(4 * 3600)
    assert not scene.waiting
    for plan in await scene.passes(2 * 3600):
        assert not plan.scale_up.raises and not plan.scale_down.removals
