"""Preemption against a plain reading of its rules, and the finer points one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.models import core_v1
from machinery.selectors import LabelSelector
from scheduler.framework.decision import Decision, available_message
from scheduler.framework.framework import Framework
from scheduler.framework.interface import PostFilterResult
from scheduler.framework.nominations import Nominations
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.preemption import Budget
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.plugins.registry import default_framework
from tests.unit.scheduler.objects import container, node, pod
from tests.unit.scheduler.reference import Reference

START = datetime(2026, 1, 1, tzinfo=UTC)


def running(name: str, home: str, priority: int = 0, cpu: str = "1", age: int = 0, **rest: object) -> core_v1.Pod:
    status = core_v1.PodStatus(startTime=START - timedelta(seconds=age))
    return pod(name, {"cpu": cpu}, priority=priority, nodeName=home, status=status, **rest)  # type: ignore[arg-type]


def cluster(nodes: Sequence[core_v1.Node], pods: Sequence[core_v1.Pod]) -> ClusterSnapshot:
    snapshot = ClusterSnapshot()
    for each in nodes:
        snapshot.set_node(each)
    for other in pods:
        snapshot.add_pod(PodInfo(other), PodInfo(other).node_name)
    return snapshot


def attempt(
    snapshot: ClusterSnapshot,
    wanted: core_v1.Pod,
    budgets: Sequence[Budget] = (),
    nominations: Nominations | None = None,
) -> Decision:
    framework = default_framework(budgets=lambda: budgets, nominations=nominations)
    return framework.schedule(PodInfo(wanted), snapshot)


def outcome(decision: Decision) -> tuple[str | None, list[str]]:
    assert decision.error is not None
    post = decision.error.post
    return post.nominated_node, [victim.name for victim in post.victims]


# --- the reference -------------------------------------------------------------------------------------------------


def random_pod(rng: Random, name: str, priority: int, home: str = "") -> core_v1.Pod:
    made = pod(
        name,
        labels={"app": rng.choice("ab")},
        containers=[
            container(
                requests={"cpu": rng.choice(["500m", "1", "2"])},
                ports=[("TCP", "", 80)] if rng.random() < 0.2 else (),
            )
        ],
        priority=priority,
        nodeName=home or None,
        status=core_v1.PodStatus(startTime=START + timedelta(seconds=rng.randint(0, 5))),
    )
    assert made.spec is not None
    from tests.unit.scheduler.neighbours import affinity, constraint

    if rng.random() < 0.3:
        made.spec.affinity = affinity(rng)
    if rng.random() < 0.2:
        made.spec.topologySpreadConstraints = [constraint(rng)]
    return made


def priority_of(each: core_v1.Pod) -> int:
    assert each.spec is not None
    return each.spec.priority or 0


def begun(each: core_v1.Pod) -> datetime:
    assert each.status is not None and each.status.startTime is not None
    return each.status.startTime


def plain_victims(
    wanted: core_v1.Pod, target: core_v1.Node, reference: Reference, budgets: Sequence[Budget]
) -> tuple[str | None, list[core_v1.Pod], int]:
    """(why the node is no candidate, victims, broken budgets)."""
    assert target.metadata is not None
    here = [each for each in reference.pods if each.spec and each.spec.nodeName == target.metadata.name]
    lower = [each for each in here if priority_of(each) < priority_of(wanted)]
    if not lower:
        return "No preemption victims found for incoming pod", [], 0
    kept = [each for each in reference.pods if each not in lower]

    def reasons() -> tuple[str, ...]:
        return Reference(reference.nodes, kept, reference.world).refusal(wanted, target)[0]

    if why := reasons():
        assert len(why) == 1
        return why[0], [], 0
    lower.sort(key=lambda each: (-priority_of(each), begun(each)))
    left = [budget.allowed for budget in budgets]
    breaking: list[core_v1.Pod] = []
    harmless: list[core_v1.Pod] = []
    for each in lower:
        broken = False
        for index, budget in enumerate(budgets):
            assert each.metadata is not None and each.metadata.labels is not None
            if budget.selector.matches(each.metadata.labels):
                left[index] -= 1
                broken = broken or left[index] < 0
        (breaking if broken else harmless).append(each)
    victims = []
    violations = 0
    for each in (*breaking, *harmless):
        kept.append(each)
        if reasons():
            kept.remove(each)
            victims.append(each)
            violations += each in breaking
    victims.sort(key=lambda each: (-priority_of(each), begun(each)))
    return None, victims, violations


def plain_cost(victims: list[core_v1.Pod], violations: int) -> tuple[float, ...]:
    highest = priority_of(victims[0])
    return (
        violations,
        highest,
        sum(priority_of(each) + 2**31 for each in victims),
        len(victims),
        -min(begun(each) for each in victims if priority_of(each) == highest).timestamp(),
    )


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_victims_and_node_agree_with_the_reference(seed: int) -> None:
    rng = Random(seed)
    nodes = [
        node(f"n{index}", cpu=rng.choice(["1", "2", "4"]), labels={"topology.kubernetes.io/zone": rng.choice("12")})
        for index in range(rng.randint(1, 5))
    ]
    pods = [
        random_pod(rng, f"p{index}", rng.choice([0, 10, 10, 100, -5]), f"n{rng.randrange(len(nodes))}")
        for index in range(rng.randint(0, 12))
    ]
    wanted = random_pod(rng, "wanted", rng.choice([10, 100, 1000]))
    budgets = [
        Budget("default", LabelSelector.parse(f"app={app}"), rng.randint(0, 2)) for app in "ab" if rng.random() < 0.5
    ]
    snapshot = cluster(nodes, pods)
    if rng.random() < 0.5:
        snapshot.taken_below(0)  # made early, then kept up to date
        extra = random_pod(rng, "extra", 0, "n0")
        pods.append(extra)
        snapshot.add_pod(PodInfo(extra), "n0")
    reference = Reference(nodes, pods)
    decision = attempt(snapshot, wanted, budgets)
    if decision.error is None:
        return
    told: Counter[str] = Counter()
    costs: dict[str, tuple[float, ...]] = {}
    victims_on: dict[str, list[str]] = {}
    for each in nodes:
        assert each.metadata is not None and each.metadata.name is not None
        if not reference.refusal(wanted, each)[1]:
            told["Preemption is not helpful for scheduling"] += 1
            continue
        why, victims, violations = plain_victims(wanted, each, reference, budgets)
        if why is not None:
            told[why] += 1
            continue
        costs[each.metadata.name] = plain_cost(victims, violations)
        victims_on[each.metadata.name] = [str(victim.metadata.name) for victim in victims if victim.metadata]
    chosen, names = outcome(decision)
    if not costs:
        assert chosen == "" and not names
        assert decision.error.post.message == f"preemption: {available_message(len(nodes), told)}"
        return
    assert chosen in {name for name, cost in costs.items() if cost == min(costs.values())}
    assert names == victims_on[chosen or ""]
    assert not decision.error.post.message
    # The simulation left nothing behind: the same question has the same answer.
    assert attempt(snapshot, wanted, budgets).error is not None


# --- one by one ----------------------------------------------------------------------------------------------------

NODES = [node("n1", cpu="2"), node("n2", cpu="2")]


@pytest.mark.parametrize(
    ("pods", "budget", "expected"),
    [
        pytest.param(
            [running("a", "n1", 5, "2"), running("b", "n2", 1, "2")], None, ("n2", ["b"]), id="lowest priority"
        ),
        pytest.param(
            [running("a", "n1", 1), running("b", "n1", 1), running("c", "n2", 1, "2")], None, ("n2", ["c"]), id="fewest"
        ),
        pytest.param(
            [running("old", "n1", 1, "2", age=90), running("new", "n2", 1, "2", age=5)],
            None,
            ("n2", ["new"]),
            id="youngest",
        ),
        pytest.param(
            [running("a", "n1", 1, "2", labels={"app": "x"}), running("b", "n2", 5, "2")],
            Budget("default", LabelSelector.parse("app=x"), 0),
            ("n2", ["b"]),
            id="budget kept",
        ),
        pytest.param(
            [running("a", "n1", 1, "2", labels={"app": "x"}), running("b", "n2", 100, "2")],
            Budget("default", LabelSelector.parse("app=x"), 0),
            ("n1", ["a"]),
            id="budget broken at last",
        ),
    ],
)  # fmt: skip
def test_which_node_pays(pods: list[core_v1.Pod], budget: Budget | None, expected: tuple[str, list[str]]) -> None:
    wanted = pod("wanted", {"cpu": "2"}, priority=50)
    assert outcome(attempt(cluster(NODES, pods), wanted, [budget] if budget else ())) == expected


def test_a_small_preemptor_removes_no_more_than_it_needs() -> None:
    pods = [running("low", "n1", 1), running("high", "n1", 2), running("top", "n2", 100, "2")]
    assert outcome(attempt(cluster(NODES, pods), pod("wanted", {"cpu": "1"}, priority=50))) == ("n1", ["low"])


def test_policy_never() -> None:
    pods = [running("a", "n1", 0, "2"), running("b", "n2", 0, "2")]
    decision = attempt(cluster(NODES, pods), pod("wanted", {"cpu": "1"}, priority=9, preemptionPolicy="Never"))
    assert decision.error is not None
    assert decision.error.message == (
        "0/2 nodes are available: 2 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never."
    )
    assert decision.error.post == PostFilterResult(decision.error.post.message)


def promised(wanted: core_v1.Pod, home: str) -> Nominations:
    nominations = Nominations()
    nominations.set(PodInfo(wanted), home)
    return nominations


def test_the_promised_node_is_left_to_the_preemptor() -> None:
    wanted = pod("wanted", {"cpu": "2"}, priority=50)
    nominations = promised(wanted, "n1")
    snapshot = cluster(NODES, [running("b", "n2", 0, "2")])
    for priority in (0, 50, 60):
        decision = attempt(snapshot, pod("other", {"cpu": "1"}, priority=priority), nominations=nominations)
        if priority == 60:
            assert decision.node == "n1"
        elif priority == 0:
            assert decision.error is not None and decision.error.reasons == {"Insufficient cpu": 2}
        else:
            # Not on n1; the pod of lower priority on n2 makes room instead.
            assert outcome(decision) == ("n2", ["b"])
    assert attempt(snapshot, wanted, nominations=nominations).node == "n1"


def test_no_second_round_while_victims_leave() -> None:
    wanted = pod("wanted", {"cpu": "2"}, priority=50)
    nominations = promised(wanted, "n1")
    victim = running("a", "n1", 0, "2")
    snapshot = cluster(NODES, [victim, running("b", "n2", 0, "2")])
    nominations.evicting.add(PodInfo(victim).uid)
    decision = attempt(snapshot, wanted, nominations=nominations)
    assert decision.error is not None and decision.error.post == PostFilterResult(
        "preemption: not eligible due to a terminating pod on the nominated node."
    )
    nominations.evicting.clear()
    assert victim.metadata is not None and victim.status is not None
    victim.metadata.deletionTimestamp = START
    snapshot.add_pod(PodInfo(victim), "n1")
    assert outcome(attempt(snapshot, wanted, nominations=nominations))[0]  # it leaves for another reason
    victim.status.conditions = [
        core_v1.PodCondition(type="DisruptionTarget", status="True", reason="PreemptionByScheduler")
    ]
    snapshot.add_pod(PodInfo(victim), "n1")
    decision = attempt(snapshot, wanted, nominations=nominations)
    assert decision.error is not None and decision.error.post.nominated_node is None


def test_promises_to_less_important_pods_are_void() -> None:
    lesser = pod("lesser", {"cpu": "1"}, priority=10)
    decision = attempt(
        cluster(NODES[:1], [running("a", "n1", 0, "2")]),
        pod("wanted", {"cpu": "2"}, priority=50),
        nominations=promised(lesser, "n1"),
    )
    assert decision.error is not None
    assert [each.name for each in decision.error.post.displaced] == ["lesser"]


def test_frameworks_have_promises_of_their_own_by_default() -> None:
    framework = default_framework()
    assert isinstance(framework, Framework) and len(framework.nominations) == 0
