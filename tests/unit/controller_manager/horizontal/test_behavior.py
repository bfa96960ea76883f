"""Stabilization and scaling policies, as the documentation's examples tell them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.models import autoscaling_v2
from controller_manager.horizontal import behavior
from controller_manager.horizontal.behavior import Change, Recommendation, Rules

DEFAULT_RULES = behavior.rules_of(autoscaling_v2.HorizontalPodAutoscalerBehavior(), 300)


def rules(up: dict[str, Any] | None = None, down: dict[str, Any] | None = None) -> tuple[Rules, Rules]:
    raw = {"scaleUp": up, "scaleDown": down}
    return behavior.rules_of(msgspec.convert(raw, autoscaling_v2.HorizontalPodAutoscalerBehavior), 300)


def policy(kind: str, value: int, period: int) -> dict[str, Any]:
    return {"type": kind, "value": value, "periodSeconds": period}


def test_documented_defaults() -> None:
    up, down = DEFAULT_RULES
    assert up == Rules(0, (("Pods", 4, 15), ("Percent", 100, 15)), "Max")
    assert down == Rules(300, (("Percent", 100, 15),), "Max")


@pytest.mark.parametrize(
    ("current", "desired", "low", "high", "expected", "reason"),
    [
        (1, 10, 1, 100, 4, "ScaleUpLimit"),
        (10, 100, 1, 100, 20, "ScaleUpLimit"),
        (10, 15, 1, 12, 12, "TooManyReplicas"),
        (10, 1, 3, 12, 3, "TooFewReplicas"),
        (10, 8, 1, 100, 8, "DesiredWithinRange"),
    ],
)
def test_limits_without_a_behavior(current: int, desired: int, low: int, high: int, expected: int, reason: str) -> None:
    found = behavior.plain(current, desired, [], 1000, 300, low, high)
    assert (found.replicas, found.limited[0], found.is_limited) == (expected, reason, expected != desired)
    assert found.able == behavior.STEADY


def test_the_highest_of_the_window_without_a_behavior() -> None:
    recent = [Recommendation(9, 600), Recommendation(7, 750), Recommendation(5, 990)]
    found = behavior.plain(8, 2, recent, 1000, 300, 1, 10)
    assert (found.replicas, found.able) == (7, behavior.DOWN_STABLE)


@pytest.mark.parametrize(
    ("rule", "start", "expected"),
    [
        ({"policies": [policy("Percent", 900, 60)]}, 1, 10),  # "scale up as fast as possible"
        ({"policies": [policy("Pods", 1, 600)]}, 10, 11),  # "scale up very gradually"
        ({"policies": [policy("Percent", 10, 60), policy("Pods", 5, 60)], "selectPolicy": "Min"}, 20, 22),
        ({"policies": [policy("Percent", 10, 60), policy("Pods", 5, 60)]}, 20, 25),
        ({"policies": [policy("Percent", 10, 60), policy("Pods", 5, 60)]}, 100, 110),
        ({"selectPolicy": "Disabled", "policies": [policy("Pods", 5, 60)]}, 20, 20),
        (None, 3, 7),
        (None, 8, 16),
    ],
)
def test_policies_of_scaling_up(rule: dict[str, Any] | None, start: int, expected: int) -> None:
    found = behavior.ruled(start, 1000, [], [], [], rules(up=rule), 1000, 1, 2000)
    assert (found.replicas, found.limited) == (expected, behavior.UP_LIMIT)


@pytest.mark.parametrize(
    ("rule", "start", "expected"),
    [
        ({"policies": [policy("Pods", 4, 60), policy("Percent", 10, 60)]}, 80, 72),
        ({"policies": [policy("Pods", 4, 60), policy("Percent", 10, 60)]}, 72, 64),
        ({"policies": [policy("Pods", 4, 60), policy("Percent", 10, 60)]}, 20, 16),
        ({"policies": [policy("Percent", 10, 60), policy("Pods", 5, 60)], "selectPolicy": "Min"}, 20, 18),
        ({"selectPolicy": "Disabled", "policies": [policy("Pods", 5, 60)]}, 20, 20),
    ],
)
def test_policies_of_scaling_down(rule: dict[str, Any], start: int, expected: int) -> None:
    found = behavior.ruled(start, 1, [], [], [], rules(down={**rule, "stabilizationWindowSeconds": 0}), 1000, 1, 2000)
    assert (found.replicas, found.limited) == (expected, behavior.DOWN_LIMIT)


def test_a_policy_counts_what_its_period_has_seen() -> None:
    slow = rules(up={"policies": [policy("Pods", 4, 60)]})
    ups = [Change(3, 970), Change(2, 930)]
    assert behavior.ruled(13, 50, [], ups, [], slow, 1000, 1, 100).replicas == 14
    downs = [Change(2, 980)]
    assert behavior.ruled(13, 50, [], ups, downs, slow, 1000, 1, 100).replicas == 16


def test_windows_stabilize_both_directions() -> None:
    both = rules(up={"stabilizationWindowSeconds": 60}, down={"stabilizationWindowSeconds": 120})
    recent = [Recommendation(6, 970), Recommendation(9, 900)]
    rising = behavior.ruled(5, 10, recent, [], [], both, 1000, 1, 100)
    assert (rising.replicas, rising.able) == (6, behavior.UP_STABLE)
    falling = behavior.ruled(12, 4, recent, [], [], both, 1000, 1, 100)
    assert (falling.replicas, falling.able) == (9, behavior.DOWN_STABLE)


def test_tolerance_is_read() -> None:
    up, down = rules(up={"tolerance": "0.05"})
    assert (up.tolerance, down.tolerance) == (0.05, None)


COUNTS = st.integers(0, 50)
TIMES = st.floats(0, 1000)


@given(
    COUNTS,
    COUNTS,
    st.lists(st.builds(Recommendation, COUNTS, TIMES), max_size=8),
    st.integers(1, 10),
    st.integers(10, 40),
)
def test_never_outside_minimum_and_maximum(
    current: int, desired: int, recent: list[Recommendation], low: int, high: int
) -> None:
    current = min(max(current, low), high)
    for found in (
        behavior.plain(current, desired, recent, 1000, 300, low, high),
        behavior.ruled(current, desired, recent, [], [], DEFAULT_RULES, 1000, low, high),
    ):
        assert low <= found.replicas <= high


@given(COUNTS, COUNTS, st.lists(st.builds(Recommendation, COUNTS, TIMES), max_size=8))
def test_falls_at_most_to_the_highest_of_the_window(current: int, desired: int, recent: list[Recommendation]) -> None:
    inside = [each.replicas for each in recent if each.at > 700]
    for found in (
        behavior.plain(current, desired, recent, 1000, 300, 0, 100),
        behavior.ruled(current, desired, recent, [], [], DEFAULT_RULES, 1000, 0, 100),
    ):
        if found.replicas < current:
            assert found.replicas >= max([desired, *inside]) or found.replicas == current


@given(
    COUNTS,
    COUNTS,
    st.lists(st.builds(Change, st.integers(1, 9), TIMES), max_size=5),
    st.lists(st.builds(Change, st.integers(1, 9), TIMES), max_size=5),
    st.integers(1, 9),
    st.sampled_from(["Min", "Max", "Disabled"]),
)
def test_no_faster_than_the_policy_allows(
    current: int, desired: int, ups: list[Change], downs: list[Change], amount: int, select: str
) -> None:
    both = rules(
        up={"policies": [policy("Pods", amount, 60)], "selectPolicy": select},
        down={"policies": [policy("Pods", amount, 60)], "selectPolicy": select, "stabilizationWindowSeconds": 0},
    )
    found = behavior.ruled(current, desired, [], ups, downs, both, 1000, 0, 100).replicas
    added, gone = (sum(each.delta for each in changes if each.at > 940) for changes in (ups, downs))
    if found != current and select == "Disabled":
        raise AssertionError("a disabled direction moved")
    if found > current:
        assert found <= current - added + gone + amount
    if found < current:
        assert found >= current - added + gone - amount
