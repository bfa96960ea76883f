"""Scale-up: which group, how many, for whom, and why not."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.models import apps_v1, core_v1, meta_v1
from cluster_autoscaler import expanders
from cluster_autoscaler.expanders import Knowledge, Option
from cluster_autoscaler.options import Options
from cluster_autoscaler.scale_up import BACKOFF, MAX_SIZE
from cluster_autoscaler.similar import balanced
from scheduler.framework.pod_info import PodInfo
from tests.unit.cluster_autoscaler.scene import Scene
from tests.unit.scheduler.objects import affinity, expression, term


def raised(scene: Scene) -> dict[str, int]:
    """New sizes by group."""
    return {each.group: each.new for each in scene.decide().scale_up.raises}


@pytest.mark.parametrize(
    ("pods", "cpu", "nodes"),
    [
        pytest.param(0, "1", 0, id="nobody waits"),
        pytest.param(1, "1", 1, id="one"),
        pytest.param(2, "1", 1, id="two share a node"),
        pytest.param(3, "1", 2, id="three do not"),
        pytest.param(5, "1500m", 5, id="one each"),
        pytest.param(2, "3", 0, id="too large"),
    ],
)
def test_nodes_are_counted_by_packing(pods: int, cpu: str, nodes: int) -> None:
    scene = Scene()
    scene.group("a", 0, 10, cpu="2")
    for number in range(pods):
        scene.pod(f"p{number}", cpu)
    assert raised(scene) == ({"a": nodes} if nodes else {})


def test_a_group_is_not_raised_above_its_maximum() -> None:
    scene = Scene()
    scene.group("a", 0, 3, cpu="2")
    for number in range(20):
        scene.pod(f"p{number}", "2")
    plan = scene.decide().scale_up
    assert [each.new for each in plan.raises] == [3] and len(plan.pods) == 3


def test_pods_with_room_somewhere_do_not_count() -> None:
    scene = Scene()
    scene.group("a", 0, 10, cpu="2")
    scene.node("a")
    scene.pod("p", "1")
    assert raised(scene) == {}


def test_upcoming_nodes_answer_the_shortage() -> None:
    scene = Scene()
    group = scene.group("a", 0, 10, cpu="2")
    scene.pod("p", "2")
    assert raised(scene) == {"a": 1}
    scene.view.groups[group].target = 1
    scene.registry.raised(scene.now, group, 1)
    plan = scene.decide()
    assert plan.upcoming == {"a": 1} and not plan.scale_up.raises
    scene.pod("q", "2")
    assert raised(scene) == {"a": 2}


def test_a_node_that_is_starting_still_counts_as_upcoming() -> None:
    scene = Scene()
    scene.group("a", 0, 10, cpu="2")
    name = scene.node("a", ready=False, age=60.0)
    node = scene.nodes[name]
    assert node.spec is not None
    node.spec.taints = [core_v1.Taint(key="node.kubernetes.io/not-ready", effect="NoSchedule")]
    scene.snapshot.set_node(core_v1.Node(metadata=node.metadata, spec=node.spec, status=node.status))
    scene.pod("p", "2")
    assert raised(scene) == {}


def test_pods_that_ask_for_a_label_get_the_group_that_has_it() -> None:
    scene = Scene()
    scene.group("plain", 0, 10)
    scene.group("fast", 0, 10, labels={"disk": "ssd"})
    scene.pod("p", nodeSelector={"disk": "ssd"})
    plan = scene.decide().scale_up
    assert [each.group for each in plan.raises] == ["fast"]
    assert plan.refused["uid-p"] == {"plain": ("node(s) didn't match Pod's node affinity/selector",)}


def test_groups_with_taints_are_for_those_who_tolerate_them() -> None:
    scene = Scene()
    scene.group("gpu", 0, 10, taints=[("gpu", "", "NoSchedule")])
    scene.pod("p")
    scene.pod("q", tolerations=[core_v1.Toleration(key="gpu", operator="Exists")], owner="other")
    plan = scene.decide().scale_up
    assert [info.name for info in plan.pods] == ["q"]
    assert plan.message("uid-p") == "pod didn't trigger scale-up: 1 node(s) had untolerated taint(s)"


def test_anti_affinity_asks_for_one_node_each() -> None:
    scene = Scene()
    scene.group("a", 0, 10)
    rule = core_v1.PodAffinityTerm(
        labelSelector=meta_v1.LabelSelector(matchLabels={"app": "web"}), topologyKey="kubernetes.io/hostname"
    )
    apart = core_v1.Affinity(
        podAntiAffinity=core_v1.PodAntiAffinity(requiredDuringSchedulingIgnoredDuringExecution=[rule])
    )
    for number in range(4):
        scene.pod(f"p{number}", "10m", affinity=apart)
    assert raised(scene) == {"a": 4}


def test_daemons_take_their_share_of_a_new_node() -> None:
    scene = Scene()
    scene.group("a", 0, 10, cpu="2")
    container = core_v1.Container(name="c", image="i", resources=core_v1.ResourceRequirements(requests={"cpu": "500m"}))
    scene.daemons.append(
        apps_v1.DaemonSet(
            metadata=meta_v1.ObjectMeta(name="d", namespace="kube-system", uid="d"),
            spec=apps_v1.DaemonSetSpec(
                selector=meta_v1.LabelSelector(matchLabels={"app": "d"}),
                template=core_v1.PodTemplateSpec(
                    metadata=meta_v1.ObjectMeta(labels={"app": "d"}), spec=core_v1.PodSpec(containers=[container])
                ),
            ),
        )
    )
    scene.pod("p", "1")
    scene.pod("q", "1")
    assert raised(scene) == {"a": 2}
    scene.pod("big", "1600m", owner="big")
    assert scene.decide().scale_up.refused["uid-big"] == {"a": ("Insufficient cpu",)}


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"priority": -11}, id="expendable"),
        pytest.param({"kind": "DaemonSet"}, id="a daemon"),
        pytest.param({"node": "elsewhere"}, id="assigned"),
    ],
)
def test_some_pods_ask_for_nothing(spec: dict[str, object]) -> None:
    scene = Scene()
    scene.group("a", 0, 10)
    scene.pod("p", **spec)  # type: ignore[arg-type]
    assert raised(scene) == {}


def test_a_pod_that_waits_for_its_victims_asks_for_nothing() -> None:
    scene = Scene()
    scene.group("a", 0, 10, cpu="2")
    name = scene.node("a")
    scene.pod("low", "2", node=name)
    made = scene.pod("high", "2", priority=100)
    assert made.status is not None
    made.status = core_v1.PodStatus(conditions=made.status.conditions, nominatedNodeName=name)
    assert raised(scene) == {}


def test_reasons_of_groups_that_take_no_part() -> None:
    scene = Scene()
    scene.group("full", 0, 1)
    scene.node("full")
    scene.group("failing", 0, 5)
    scene.registry.failed(scene.now, "failing", "QUOTA", "no quota")
    scene.pod("p", "2", owner="p")
    scene.pod("q", "2", owner="q")
    plan = scene.decide().scale_up
    assert plan.skipped == {"full": (MAX_SIZE,), "failing": (BACKOFF,)}
    assert plan.message("uid-q") == (
        "pod didn't trigger scale-up: 1 in backoff after failed scale-up, 1 max node group size reached"
    )


@pytest.mark.parametrize(
    ("options", "nodes", "why"),
    [
        pytest.param(Options(max_nodes_total=2), 2, "", id="nodes"),
        pytest.param(Options(cores_total=(0, 3)), 1, "", id="cores"),
        pytest.param(Options(memory_total=(0, 7)), 1, "", id="memory"),
        pytest.param(Options(max_nodes_per_scale_up=3), 3, "", id="per pass"),
        pytest.param(Options(cores_total=(0, 1)), 0, "max cluster cpu limit reached", id="no room at all"),
    ],
)
def test_limits_of_the_cluster(options: Options, nodes: int, why: str) -> None:
    scene = Scene(options)
    scene.group("a", 0, 10, cpu="2", memory="4Gi")
    for number in range(8):
        scene.pod(f"p{number}", "2")
    plan = scene.decide().scale_up
    assert {each.group: each.new for each in plan.raises} == ({"a": nodes} if nodes else {})
    assert plan.skipped.get("a", ("",)) == (why,)


def test_a_real_node_is_believed_more_than_the_template() -> None:
    """The cloud promises 8 CPUs; its machines have 2."""
    scene = Scene()
    scene.group("a", 0, 10, cpu="8")
    scene._sizes["a"]["cpu"] = "2"
    scene.pod("x", "2", node=scene.node("a"))
    scene.pod("p", "4")
    assert raised(scene) == {}


def test_similar_groups_share_a_raise() -> None:
    scene = Scene(Options(balance_similar_node_groups=True))
    for zone in "abc":
        scene.group(zone, 0, 10, cpu="2", labels={"group": "x", "topology.kubernetes.io/zone": zone})
    scene.pod("x", "2", node=scene.node("a"))
    for number in range(5):
        scene.pod(f"p{number}", "2")
    assert raised(scene) == {"a": 2, "b": 2, "c": 2}


@given(st.integers(0, 40), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=5))
def test_balance_is_even_and_bounded(count: int, groups: list[tuple[int, int]]) -> None:
    sizes = {str(number): (min(pair), max(pair)) for number, pair in enumerate(groups)}
    shares = balanced(count, sizes, list(sizes))
    after = {name: sizes[name][0] + shares.get(name, 0) for name in sizes}
    assert all(after[name] <= sizes[name][1] for name in sizes)
    assert sum(shares.values()) == min(count, sum(most - now for now, most in sizes.values()))
    for name in shares:  # nobody was raised past a group that had room
        assert all(after[name] - 1 <= after[other] for other in sizes if after[other] < sizes[other][1])


def option(scene: Scene, group: str, nodes: int, pods: list[PodInfo]) -> Option:
    made = scene.planner.templates(scene.view, [], [])
    return Option(group, nodes, tuple(pods), made[group])


@pytest.mark.parametrize(
    ("chain", "wanted"),
    [
        pytest.param(("least-waste",), "small", id="least-waste"),
        pytest.param(("most-pods",), "large", id="most-pods"),
        pytest.param(("price",), "cheap", id="price"),
        pytest.param(("priority",), "cheap", id="priority"),
        pytest.param(("priority", "least-waste"), "cheap", id="chained"),
    ],
)
def test_expanders(chain: tuple[str, ...], wanted: str) -> None:
    scene = Scene()
    scene.group("small", 0, 10, cpu="2", memory="4Gi")
    scene.group("large", 0, 10, cpu="16", memory="64Gi")
    scene.group("cheap", 0, 10, cpu="4", memory="8Gi")
    pods = [PodInfo(scene.pod(f"p{number}", "1", "2Gi")) for number in range(3)]
    options = [
        option(scene, "small", 1, pods[:2]),
        option(scene, "large", 1, pods),
        option(scene, "cheap", 1, pods[:2]),
    ]
    known = Knowledge(
        node_prices={"small": 0.2, "large": 0.9, "cheap": 0.1},
        priorities={10: [re.compile(".*")], 50: [re.compile("^cheap$")]},
    )
    found = expanders.best(options, chain, known, random.Random(1))
    assert found is not None and found.group == wanted


@pytest.mark.parametrize(
    "text", ["", "[]", "10: x", "a: [x]", "10: ['(']", "\t"], ids=["empty", "list", "text", "key", "regex", "yaml"]
)
def test_wrong_priorities_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        expanders.parse_priorities(text)


POD = st.tuples(st.integers(100, 5000), st.integers(64, 8192), st.sampled_from(["a", "b", "c"]))


@settings(max_examples=60, deadline=None)
@given(st.lists(POD, max_size=25), st.integers(0, 4), st.integers(0, 6), st.booleans())
def test_sizes_stay_in_bounds_and_helped_pods_fit(
    pods: list[tuple[int, int, str]], least: int, more: int, balance: bool
) -> None:
    scene = Scene(Options(balance_similar_node_groups=balance))
    for name, cpu in (("one", "2"), ("two", "4"), ("three", "4")):
        scene.group(name, least, least + more, cpu=cpu)
    for number, (millis, memory, owner) in enumerate(pods):
        scene.pod(f"p{number}", f"{millis}m", f"{memory}Mi", owner=owner)
    plan = scene.decide()
    for each in plan.scale_up.raises:
        view = scene.view.groups[each.group]
        assert view.target < each.new <= view.group.max_size
    scene.waiting = [info.pod for info in plan.scale_up.pods]  # in the order of packing
    scene.act(plan)
    assert not scene.waiting


@pytest.mark.parametrize("operator", ["In", "NotIn"])
def test_required_affinity_is_honoured(operator: str) -> None:
    scene = Scene()
    scene.group("a", 0, 5)
    scene.pod("p", affinity=affinity([term(expression("group", operator, "a"))]))
    assert raised(scene) == ({"a": 1} if operator == "In" else {})
