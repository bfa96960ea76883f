from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.models import batch_v1, core_v1, meta_v1, policy_v1
from controller_manager.disruption.plan import (
    CannotCount,
    Expectation,
    count_healthy,
    failed_status,
    plan_disruptions,
    plan_expectation,
    scaled,
    status_of,
)
from controller_manager.ttl_after_finished import time_left
from machinery.clock import VirtualClock
from tests.unit.controller_manager.builders import at, pod

CLOCK = VirtualClock(at(0))


def budget(status: dict[str, Any] | None = None, **spec: Any) -> policy_v1.PodDisruptionBudget:
    return policy_v1.PodDisruptionBudget(
        metadata=meta_v1.ObjectMeta(name="b", namespace="default", generation=2),
        spec=policy_v1.PodDisruptionBudgetSpec(**spec),
        status=policy_v1.PodDisruptionBudgetStatus(**(status or {})),
    )


def managed(count: int, owner: str = "uid-rs") -> list[core_v1.Pod]:
    return [pod(f"p{n}", ready=True, owner=owner) for n in range(count)]


def of(replicas: int) -> Any:
    return lambda _pod: ("uid-d", replicas)


@pytest.mark.parametrize(
    ("spec", "pods", "replicas", "expected", "desired"),
    [
        pytest.param({"minAvailable": 2}, 5, 9, 5, 2, id="minimum: what is there"),
        pytest.param({"minAvailable": 8}, 5, 9, 5, 8, id="minimum beyond what is there"),
        pytest.param({"minAvailable": "50%"}, 4, 5, 5, 3, id="share of what there should be"),
        pytest.param({"maxUnavailable": 1}, 4, 5, 5, 4, id="maximum"),
        pytest.param({"maxUnavailable": "30%"}, 5, 5, 5, 3, id="share rounded up"),
        pytest.param({"maxUnavailable": 9}, 5, 5, 5, 0, id="all may go"),
        pytest.param({}, 5, 5, 5, 0, id="no demand"),
    ],
)
def test_expectation(spec: dict[str, Any], pods: int, replicas: int, expected: int, desired: int) -> None:
    found = plan_expectation(budget(**spec), managed(pods), of(replicas))
    assert (found.expected, found.desired) == (expected, desired)


def test_pods_of_several_owners_add_up() -> None:
    pods = [*managed(2, "uid-a"), *managed(3, "uid-b")]

    def scale(each: core_v1.Pod) -> tuple[str, int]:
        assert each.metadata is not None
        assert each.metadata.ownerReferences is not None
        uid = each.metadata.ownerReferences[0].uid
        return uid, {"uid-a": 2, "uid-b": 4}[uid]

    assert plan_expectation(budget(maxUnavailable=1), pods, scale) == Expectation(6, 5)


def test_unmanaged_pods_are_told_and_unknown_owners_stop_everything() -> None:
    lonely = pod("lonely")
    assert plan_expectation(budget(maxUnavailable=1), [lonely], of(1)).unmanaged == (lonely,)
    with pytest.raises(CannotCount, match="found no controllers for pod"):
        plan_expectation(budget(maxUnavailable=1), managed(1), lambda _: None)
    with pytest.raises(CannotCount):
        scaled("half", 4)


def test_evictions_are_followed_up() -> None:
    noted = {"p0": at(-10), "p1": at(-200), "p2": at(-10), "vanished": at(-10)}
    pods = [*managed(2), pod("p2", ready=True, deleted=True)]
    found = plan_disruptions(budget({"disruptedPods": noted}, minAvailable=1), pods, CLOCK)
    assert list(found.pending) == ["p0"]
    assert [each.metadata.name for each in found.overdue if each.metadata] == ["p1"]
    assert found.recheck == 110
    assert count_healthy(pods, found.pending) == 1


@given(st.integers(0, 20), st.integers(0, 20), st.one_of(st.integers(0, 20), st.sampled_from(["0%", "34%", "100%"])))
def test_never_fewer_than_the_minimum(replicas: int, healthy: int, least: int | str) -> None:
    wanted = budget(minAvailable=least)
    pods = managed(replicas)
    expectation = plan_expectation(wanted, pods, of(replicas))
    status = status_of(wanted, expectation, min(healthy, replicas), {}, CLOCK)
    assert status.disruptionsAllowed is not None
    assert status.disruptionsAllowed >= 0
    if status.disruptionsAllowed:
        assert min(healthy, replicas) - status.disruptionsAllowed >= scaled(least, replicas)
    assert status.conditions is not None
    (told,) = status.conditions
    assert (told.status, told.reason) == (
        ("True", "SufficientPods") if status.disruptionsAllowed else ("False", "InsufficientPods")
    )


def test_the_condition_keeps_its_time_while_it_keeps_its_status() -> None:
    before = meta_v1.Condition(
        type="DisruptionAllowed", status="False", reason="InsufficientPods", message="", lastTransitionTime=at(-50)
    )
    wanted = budget({"conditions": [before], "currentHealthy": 3}, minAvailable=1)
    status = status_of(wanted, Expectation(1, 1), 1, {}, CLOCK)
    assert status.conditions is not None
    assert status.conditions[0].lastTransitionTime == at(-50)
    status = failed_status(wanted, "why", CLOCK)
    assert status.conditions is not None
    assert (status.conditions[0].reason, status.conditions[0].message) == ("SyncFailed", "why")
    assert (status.disruptionsAllowed, status.currentHealthy) == (0, 3)


@pytest.mark.parametrize(
    ("ttl", "ended", "left"),
    [
        pytest.param(None, -10, None, id="no ttl"),
        pytest.param(100, None, None, id="not over"),
        pytest.param(100, -10, 90, id="waits"),
        pytest.param(100, -100, 0, id="expired"),
        pytest.param(0, 0, 0, id="at once"),
    ],
)
def test_time_to_live(ttl: int | None, ended: float | None, left: float | None) -> None:
    conditions = (
        [batch_v1.JobCondition(type="Complete", status="True", lastTransitionTime=at(ended))]
        if ended is not None
        else None
    )
    job = batch_v1.Job(
        metadata=meta_v1.ObjectMeta(name="j"),
        spec=batch_v1.JobSpec(template=core_v1.PodTemplateSpec(), ttlSecondsAfterFinished=ttl),
        status=batch_v1.JobStatus(conditions=conditions),
    )
    assert time_left(job, CLOCK) == left
