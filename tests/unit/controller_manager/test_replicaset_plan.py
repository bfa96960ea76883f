from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.models import core_v1
from controller_manager.objects import is_active
from controller_manager.replicaset.plan import deletion_rank, observe, plan_batches, plan_replicas
from machinery.clock import VirtualClock
from tests.unit.controller_manager.builders import at, pod

pods = st.lists(
    st.builds(
        lambda i, ready, phase, node, created, deleted: pod(
            f"p{i}", ready=ready, phase=phase, node=node, created=created, deleted=deleted
        ),
        st.integers(0, 10**6),
        st.booleans(),
        st.sampled_from(["Pending", "Running", "Succeeded", "Failed"]),
        st.sampled_from([None, "n1", "n2"]),
        st.integers(-1000, 0),
        st.booleans(),
    ),
    max_size=20,
)


@given(pods, st.integers(0, 20), st.randoms())
def test_the_plan_reaches_the_wanted_number(found: list[core_v1.Pod], replicas: int, random: object) -> None:
    random.shuffle(found)  # type: ignore[attr-defined]
    plan = plan_replicas(replicas, found, found, at(0))
    live = sum(map(is_active, found))
    assert live + plan.create - len(plan.delete) == replicas
    assert plan.create == 0 or not plan.delete
    assert all(is_active(victim) for victim in plan.delete)


@given(pods, st.integers(0, 20))
def test_ready_pods_go_only_when_no_unready_is_left(found: list[core_v1.Pod], replicas: int) -> None:
    running = [
        each
        for each in found
        if each.spec and each.spec.nodeName and is_active(each) and each.status and each.status.phase == "Running"
    ]
    plan = plan_replicas(replicas, running, running, at(0))

    def ready(each: core_v1.Pod) -> bool:
        assert each.status is not None
        assert each.status.conditions
        return each.status.conditions[0].status == "True"

    if any(ready(victim) for victim in plan.delete):
        assert all(each in plan.delete for each in running if not ready(each)), (
            "phase outranks readiness; it is equal here"
        )


@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param(pod("a", node=None), pod("b"), id="unassigned"),
        pytest.param(pod("a", phase="Pending"), pod("b"), id="pending"),
        pytest.param(pod("a"), pod("b", ready=True), id="not ready"),
        pytest.param(
            pod("a", ready=True, annotations={"controller.kubernetes.io/pod-deletion-cost": "-5"}),
            pod("b", ready=True),
            id="cheap",
        ),
        pytest.param(pod("a", ready=True, node="crowded"), pod("b", ready=True, node="calm"), id="crowded node"),
        pytest.param(pod("a", ready=True, ready_since=-2), pod("b", ready=True, ready_since=-900), id="ready lately"),
        pytest.param(
            pod("a", ready=True, ready_since=-9, restarts=5), pod("b", ready=True, ready_since=-9), id="restarted"
        ),
        pytest.param(
            pod("a", ready=True, ready_since=-1, created=-3),
            pod("b", ready=True, ready_since=-1, created=-900),
            id="young",
        ),
        pytest.param(pod("a", created=-100), pod("b", created=-101), id="same magnitude: by uid"),
    ],
)
def test_deletion_rank(first: core_v1.Pod, then: core_v1.Pod) -> None:
    crowds = {"crowded": 3, "calm": 1}
    assert deletion_rank(first, crowds, at(0)) < deletion_rank(then, crowds, at(0))


def test_an_unreadable_deletion_cost_counts_as_none() -> None:
    odd = pod("a", annotations={"controller.kubernetes.io/pod-deletion-cost": "cheap"})
    assert deletion_rank(odd, {}, at(0)) == deletion_rank(pod("a"), {}, at(0))


@pytest.mark.parametrize(
    ("count", "batches"),
    [
        pytest.param(0, [], id="none"),
        pytest.param(1, [1], id="one"),
        pytest.param(7, [1, 2, 4], id="doubling"),
        pytest.param(10, [1, 2, 4, 3], id="rest"),
    ],
)
def test_slow_start(count: int, batches: list[int]) -> None:
    assert list(plan_batches(count)) == batches


def test_bursts_are_bounded() -> None:
    assert plan_replicas(2000, [], [], at(0)).create == 500
    many = [pod(f"p{i}") for i in range(600)]
    assert len(plan_replicas(0, many, many, at(0)).delete) == 500


async def test_observe_waits_for_min_ready_seconds() -> None:
    clock = VirtualClock()
    found = [
        pod("a", ready=True, labels={"app": "web", "x": "1"}),
        pod("b"),
        pod("c", deleted=True),
        pod("d", phase="Failed"),
        pod("e", phase="Failed", deleted=True),
    ]
    counts = observe(found, {"app": "web", "x": "1"}, 10, clock)
    assert counts == (2, 1, 1, 0, 1, 10.0)
    await clock.advance(4)
    assert observe(found, {"app": "web"}, 10, clock) == (2, 2, 1, 0, 1, 6.0)
    await clock.advance(6)
    assert observe(found, {"app": "web"}, 10, clock) == (2, 2, 1, 1, 1, None)
