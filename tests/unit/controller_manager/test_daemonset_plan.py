from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.models import apps_v1, core_v1, meta_v1
from controller_manager.daemonset.eligibility import HASH, Eligibility, judge, matches_node, node_of, pod_for
from controller_manager.daemonset.plan import limits, observe, place, plan
from controller_manager.failure_memory import MAX_BACKOFF, FailureMemory
from controller_manager.objects import is_finished, is_terminating
from machinery.clock import VirtualClock
from tests.unit.controller_manager.builders import at

CLOCK = VirtualClock(at(0))
NEW, OLD = "new", "old"


def agent(update: dict[str, Any] | None = None, strategy: str = "RollingUpdate", **pod_spec: Any) -> apps_v1.DaemonSet:
    return apps_v1.DaemonSet(
        metadata=meta_v1.ObjectMeta(name="agent", namespace="default", uid="uid-ds", generation=1),
        spec=apps_v1.DaemonSetSpec(
            selector=meta_v1.LabelSelector(matchLabels={"app": "agent"}),
            template=core_v1.PodTemplateSpec(
                metadata=meta_v1.ObjectMeta(labels={"app": "agent"}),
                spec=core_v1.PodSpec(containers=[core_v1.Container(name="main")], **pod_spec),
            ),
            updateStrategy=apps_v1.DaemonSetUpdateStrategy(
                type=strategy, rollingUpdate=apps_v1.RollingUpdateDaemonSet(**(update or {"maxUnavailable": 1}))
            ),
        ),
    )


def node(name: str, labels: dict[str, str] | None = None, **taints: str) -> core_v1.Node:
    return core_v1.Node(
        metadata=meta_v1.ObjectMeta(name=name, labels=labels),
        spec=core_v1.NodeSpec(
            taints=[core_v1.Taint(key=key.replace("__", "/").replace("_", "-"), effect=e) for key, e in taints.items()]
        ),
    )


def pod(name: str, on: str, state: str = "ready", revision: str = NEW, bound: bool = True) -> core_v1.Pod:
    made = pod_for(agent(), on, revision)
    assert made.metadata
    assert made.spec
    made.metadata.name, made.metadata.uid = name, f"uid-{name}"
    made.metadata.creationTimestamp = at(0)
    made.metadata.deletionTimestamp = at(0) if state == "terminating" else None
    made.spec.nodeName = on if bound else None
    ready = "True" if state == "ready" else "False"
    made.status = core_v1.PodStatus(
        phase="Failed" if state == "failed" else "Running",
        conditions=[core_v1.PodCondition(type="Ready", status=ready, lastTransitionTime=at(-100))],
    )
    return made


def expression(key: str, operator: str, *values: str) -> core_v1.Affinity:
    term = core_v1.NodeSelectorTerm(
        matchExpressions=[core_v1.NodeSelectorRequirement(key=key, operator=operator, values=list(values) or None)]
    )
    required = core_v1.NodeSelector(nodeSelectorTerms=[term])
    return core_v1.Affinity(nodeAffinity=core_v1.NodeAffinity(requiredDuringSchedulingIgnoredDuringExecution=required))


@pytest.mark.parametrize(
    ("spec", "where", "verdict"),
    [
        pytest.param({}, node("a"), (True, True), id="plain"),
        pytest.param({"nodeName": "b"}, node("a"), (False, False), id="another node's name"),
        pytest.param({"nodeName": "a"}, node("a"), (True, True), id="its name"),
        pytest.param({"nodeSelector": {"x": "1"}}, node("a", {"x": "2"}), (False, False), id="selector"),
        pytest.param({}, node("a", other="NoSchedule"), (False, True), id="NoSchedule"),
        pytest.param({}, node("a", other="NoExecute"), (False, False), id="NoExecute"),
        pytest.param({}, node("a", other="PreferNoSchedule"), (True, True), id="PreferNoSchedule"),
        pytest.param({}, node("a", node_kubernetes_io="NoExecute"), (False, False), id="not a known taint"),
        pytest.param(
            {"tolerations": [core_v1.Toleration(operator="Exists")]}, node("a", x="NoExecute"), (True, True), id="all"
        ),
    ],
)
def test_eligibility(spec: dict[str, Any], where: core_v1.Node, verdict: tuple[bool, bool]) -> None:
    assert judge(agent(**spec).spec.template, where) == Eligibility(*verdict)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("key", "effect", "spec", "run"),
    [
        pytest.param("node.kubernetes.io/not-ready", "NoExecute", {}, True, id="not ready"),
        pytest.param("node.kubernetes.io/unreachable", "NoExecute", {}, True, id="unreachable"),
        pytest.param("node.kubernetes.io/unschedulable", "NoSchedule", {}, True, id="cordoned"),
        pytest.param("node.kubernetes.io/memory-pressure", "NoSchedule", {}, True, id="memory pressure"),
        pytest.param("node.kubernetes.io/network-unavailable", "NoSchedule", {}, False, id="no network"),
        pytest.param("node.kubernetes.io/network-unavailable", "NoSchedule", {"hostNetwork": True}, True, id="host"),
    ],
)
def test_a_nodes_troubles(key: str, effect: str, spec: dict[str, Any], run: bool) -> None:
    where = node("a")
    assert where.spec
    where.spec.taints = [core_v1.Taint(key=key, effect=effect)]
    assert judge(agent(**spec).spec.template, where).run is run  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("affinity", "labels", "matches"),
    [
        pytest.param(expression("x", "In", "1", "2"), {"x": "2"}, True, id="In"),
        pytest.param(expression("x", "In", "1"), {}, False, id="In without label"),
        pytest.param(expression("x", "NotIn", "1"), {}, True, id="NotIn without label"),
        pytest.param(expression("x", "Exists"), {"x": ""}, True, id="Exists"),
        pytest.param(expression("x", "DoesNotExist"), {"x": ""}, False, id="DoesNotExist"),
        pytest.param(expression("x", "Gt", "4"), {"x": "5"}, True, id="Gt"),
        pytest.param(expression("x", "Lt", "4"), {"x": "5"}, False, id="Lt"),
        pytest.param(expression("x", "Gt", "4"), {"x": "a"}, False, id="Gt of no number"),
        pytest.param(expression("x", "Near", "4"), {"x": "4"}, False, id="unknown operator"),
    ],
)
def test_affinity(affinity: core_v1.Affinity, labels: dict[str, str], matches: bool) -> None:
    assert matches_node(core_v1.PodSpec(containers=[], affinity=affinity), node("a", labels)) is matches


def test_a_pod_knows_its_node_before_it_is_bound() -> None:
    assert node_of(pod("p", "n7", bound=False)) == "n7"


pods = st.lists(
    st.tuples(
        st.sampled_from(["n0", "n1", "n2", "n3", "gone"]),
        st.sampled_from(["ready", "unready", "failed", "terminating"]),
        st.sampled_from([NEW, OLD]),
        st.booleans(),
    ),
    max_size=12,
).map(lambda rows: [pod(f"p{number}", *row) for number, row in enumerate(rows)])
updates = st.sampled_from(
    [{"maxUnavailable": 1}, {"maxUnavailable": "50%"}, {"maxSurge": 1, "maxUnavailable": 0}, {"maxSurge": "100%"}]
)


def _serves(each: core_v1.Pod) -> bool:
    ready = bool(each.status and each.status.conditions and each.status.conditions[0].status == "True")
    return ready and not is_terminating(each) and not is_finished(each)


@given(pods, updates, st.sets(st.integers(0, 3)))
def test_exactly_one_pod_per_eligible_node(found: list[core_v1.Pod], update: dict[str, Any], hostile: set[int]) -> None:
    """Carry the plan out until it is empty: every eligible node has one pod of the new revision, no other has any."""
    ds = agent(update)
    nodes = [node(f"n{number}", None, **({"bad": "NoExecute"} if number in hostile else {})) for number in range(4)]
    number = 100
    for _ in range(60):
        placement = place(ds, nodes, found)
        step = plan(ds, placement, NEW, CLOCK)
        surge, unavailable = limits(ds, placement.desired)
        assert len({each.metadata.uid for each in step.delete if each.metadata}) == len(step.delete)
        assert not any(map(is_terminating, step.delete))
        served = {node_of(each) for each in found if _serves(each)}
        left = {node_of(each) for each in found if _serves(each) and each not in step.delete}
        lost = {name for name in served - left if name in placement.eligible and placement.eligible[name].run}
        if surge:
            assert not lost, "a surge never takes a serving pod before its successor serves"
            assert len(set(step.create) & served) <= surge
        else:
            assert not set(step.create) & {node_of(each) for each in found}
            down = placement.desired - len(served & {n for n, each in placement.eligible.items() if each.run})
            assert len(lost) <= max(0, unavailable - down)
        settled = all(map(_serves, found))
        for name in step.create:
            found.append(pod(f"p{number}", name))
            number += 1
        going = {each.metadata.uid for each in step.delete if each.metadata}
        found = [
            each for each in found if each.metadata and each.metadata.uid not in going and not is_terminating(each)
        ]
        for each in found:
            if each.status and each.status.conditions and not is_finished(each):
                each.status.conditions[0].status = "True"
        if not step.create and not step.delete and settled:
            break
    wanted = [f"n{n}" for n in range(4) if n not in hostile]
    assert sorted(node_of(each) for each in found if node_of(each) != "gone") == wanted
    assert all((each.metadata.labels or {})[HASH] == NEW for each in found if each.metadata and node_of(each) != "gone")
    status, _ = observe(ds, place(ds, nodes, found), NEW, None, CLOCK)
    assert status.desiredNumberScheduled == status.currentNumberScheduled == status.numberReady == len(wanted)
    assert status.numberUnavailable is None


def test_percentages_are_rounded_up() -> None:
    assert limits(agent({"maxUnavailable": "30%"}), 4) == (0, 2)
    assert limits(agent({"maxUnavailable": 0}), 4) == (0, 1)


def test_failed_pods_wait_longer_and_longer() -> None:
    clock = VirtualClock(at(0))
    memory = FailureMemory(clock)
    assert memory.wait("ds", "n1") == 0
    assert memory.wait("ds", "n1") == 1
    assert memory.wait("ds", "n2") == 0
    clock._elapsed += 1
    assert memory.wait("ds", "n1") == 0
    assert memory.wait("ds", "n1") == 2
    for _ in range(20):
        clock._elapsed += memory.wait("ds", "n1")
        memory.wait("ds", "n1")
    assert memory.wait("ds", "n1") == MAX_BACKOFF
