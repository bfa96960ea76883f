"""The documented algorithm as tables: ratios, tolerance, pods that are not ready, without a sample, or going away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.models import core_v1
from controller_manager.horizontal import replicas
from controller_manager.horizontal.errors import MetricError
from controller_manager.horizontal.replicas import Groups, Patience, Sample, Tolerance

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
EVEN = Tolerance()


def ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod(name: str, **over: Any) -> core_v1.Pod:
    """A pod that has been Ready for long. `over`: phase, started, ready, since, deleted, request."""
    raw: dict[str, Any] = {
        "metadata": {"name": name, "namespace": "n"},
        "spec": {
            "containers": [
                {"name": "c", "image": "i", "resources": {"requests": {"cpu": over.get("request", "1")}}},
            ]
        },
        "status": {
            "phase": over.get("phase", "Running"),
            "startTime": ago(over.get("started", 3600)),
            "conditions": [
                {
                    "type": "Ready",
                    "status": over.get("ready", "True"),
                    "lastTransitionTime": ago(over.get("since", 3500)),
                }
            ],
        },
    }
    if over.get("deleted"):
        raw["metadata"]["deletionTimestamp"] = ago(1)
    return msgspec.convert(raw, core_v1.Pod)


def sample(value: int, seconds: float = 10) -> Sample:
    return Sample(value, NOW - timedelta(seconds=seconds), MINUTE)


def by_utilization(
    current: int, target: int, pods: list[core_v1.Pod], used: dict[str, int], tolerance: Tolerance = EVEN
) -> replicas.Proposal:
    samples = {name: sample(value) for name, value in used.items()}
    groups = replicas.group(pods, samples, cpu=True, patience=Patience(), now=NOW)
    return replicas.utilization(current, target, samples, replicas.requested(pods, "cpu"), groups, tolerance)


def many(count: int, request: str = "1") -> list[core_v1.Pod]:
    return [pod(f"p{number}", request=request) for number in range(count)]


def each(count: int, value: int) -> dict[str, int]:
    return {f"p{number}": value for number in range(count)}


def test_the_worked_example() -> None:
    """Request 200m, target 50 %: two pods at 300m ask for six, six at 50m for three."""
    assert by_utilization(2, 50, many(2, "200m"), each(2, 300)).replicas == 6
    found = by_utilization(6, 50, many(6, "200m"), each(6, 50))
    assert (found.replicas, found.utilization, found.usage) == (3, 25, 50)


@pytest.mark.parametrize(
    ("current", "target", "usage", "expected"),
    [
        (1, 50, 1000, 2),
        (3, 30, 500, 5),
        (3, 50, 500, 3),
        (10, 50, 549, 10),  # 54 % is within the tolerance of 0.1
        (10, 50, 550, 10),  # 55 %: exactly at its edge
        (10, 50, 560, 12),
        (10, 50, 450, 10),
        (10, 50, 440, 9),
        (5, 100, 0, 0),
    ],
)
def test_ceiling_of_the_ratio(current: int, target: int, usage: int, expected: int) -> None:
    assert by_utilization(current, target, many(current), each(current, usage)).replicas == expected


def test_tolerance_of_its_own_for_each_direction() -> None:
    wide = Tolerance(up=0.5, down=0.0)
    assert by_utilization(4, 50, many(4), each(4, 700), wide).replicas == 4
    assert by_utilization(4, 50, many(4), each(4, 490), wide).replicas == 4  # ceil(0.98 x 4)
    assert by_utilization(100, 50, many(100), each(100, 490), wide).replicas == 98


def test_missing_samples_count_as_nothing_when_it_rises() -> None:
    found = by_utilization(4, 50, many(4), each(2, 1000))
    assert (found.replicas, found.missing) == (4, ("p2", "p3"))  # 2000 of 4000 is the target
    assert by_utilization(4, 50, many(4), each(3, 1000)).replicas == 6


def test_missing_samples_count_as_the_whole_request_when_it_falls() -> None:
    assert by_utilization(4, 50, many(4), each(2, 100)).replicas == 4  # (200 + 2000) / 4000 = 55 %
    assert by_utilization(4, 50, many(4), each(3, 100)).replicas == 3  # (300 + 1000) / 4000 = 32 %
    assert by_utilization(4, 300, many(4), each(2, 100)).replicas == 3  # above 100 %: as much as the target


def test_pods_that_start_do_not_make_it_rise_further() -> None:
    starting = [
        pod("p0"),
        pod("p1", ready="False", started=60, since=60),
        pod("p2", ready="False", started=60, since=60),
    ]
    found = by_utilization(3, 50, starting, each(3, 1000))
    assert (found.replicas, found.unready, found.ready) == (3, ("p1", "p2"), 1)


def test_pods_that_start_are_left_out_when_it_falls() -> None:
    pods = [*many(4), pod("p4", ready="False", started=60, since=60)]
    assert by_utilization(5, 50, pods, each(5, 100)).replicas == 1


@pytest.mark.parametrize(
    ("over", "group"),
    [
        ({}, "ready"),
        ({"phase": "Pending"}, "unready"),
        ({"phase": "Failed"}, "ignored"),
        ({"deleted": True}, "ignored"),
        # Within the initialization period: unready, or sampled over a window that began before it was ready.
        ({"started": 200, "ready": "False", "since": 200}, "unready"),
        ({"started": 200, "since": 30}, "unready"),
        ({"started": 200, "since": 100}, "ready"),
        # After it: only those that have never been ready.
        ({"started": 400, "ready": "False", "since": 380}, "unready"),
        ({"started": 400, "ready": "False", "since": 360}, "ready"),
    ],
)
def test_what_a_sample_is_worth(over: dict[str, Any], group: str) -> None:
    found = replicas.group([pod("p", **over)], {"p": sample(1)}, cpu=True, patience=Patience(), now=NOW)
    expected = {
        "ready": Groups(1, frozenset(), frozenset(), frozenset()),
        "unready": Groups(0, frozenset({"p"}), frozenset(), frozenset()),
        "ignored": Groups(0, frozenset(), frozenset(), frozenset({"p"})),
    }
    assert found == expected[group]


def test_readiness_matters_for_cpu_only() -> None:
    starting = pod("p", started=60, ready="False", since=60)
    found = replicas.group([starting], {"p": sample(1)}, cpu=False, patience=Patience(), now=NOW)
    assert found.ready == 1


def test_without_usable_samples_there_is_no_count() -> None:
    with pytest.raises(MetricError, match=r"did not receive metrics for targeted pods \(pods might be unready\)"):
        by_utilization(1, 50, [pod("p0", phase="Pending")], {"p0": 5})


def test_requests_are_needed() -> None:
    bare = pod("p0")
    bare.spec.containers[0].resources = None  # type: ignore[union-attr]
    with pytest.raises(MetricError, match="missing request for cpu in container c of Pod p0"):
        replicas.requested([bare], "cpu")
    assert replicas.requested([bare], "cpu", container="other") == {"p0": 0}


def test_average_of_a_metric() -> None:
    samples = {f"p{n}": sample(value) for n, value in enumerate((20_000, 10_000, 30_000))}
    groups = replicas.group(many(3), samples, cpu=False, patience=Patience(), now=NOW)
    found = replicas.average(3, 15_000, samples, groups, EVEN)
    assert (found.replicas, found.usage) == (4, 20_000)
    rising = replicas.group(many(4), samples, cpu=False, patience=Patience(), now=NOW)
    assert replicas.average(4, 15_000, samples, rising, EVEN).replicas == 4  # the fourth counts as 0: 15 exactly


@pytest.mark.parametrize(
    ("current", "ready", "usage", "target", "expected"),
    [
        (3, 3, 20_000, 15_000, 4),
        (3, 2, 30_000, 15_000, 4),
        (3, 3, 16_000, 15_000, 3),
        (0, 0, 30_000, 15_000, 2),
        (3, 3, 0, 1, 0),
    ],
)
def test_one_value(current: int, ready: int, usage: int, target: int, expected: int) -> None:
    assert replicas.value(current, ready, usage, target, EVEN).replicas == expected


@pytest.mark.parametrize(
    ("replicas_now", "usage", "target", "expected", "mean"),
    [(3, 8600, 2000, 5, 2867), (3, 6100, 2000, 3, 2034), (0, 5000, 2000, 3, 5000), (4, 800, 2000, 1, 200)],
)
def test_one_value_per_replica(replicas_now: int, usage: int, target: int, expected: int, mean: int) -> None:
    found = replicas.value_per_replica(replicas_now, usage, target, EVEN)
    assert (found.replicas, found.usage) == (expected, mean)


@given(
    st.lists(st.one_of(st.none(), st.integers(0, 4000)), min_size=1, max_size=12),
    st.integers(1, 200),
    st.integers(0, 3),
)
def test_what_is_unknown_never_enlarges_a_change(used: list[int | None], target: int, starting: int) -> None:
    """With samples missing or pods starting, the count lies between the present one and what the known pods ask for."""
    pods = many(len(used))
    for number in range(min(starting, len(used) - 1)):
        pods[number] = pod(f"p{number}", ready="False", started=60, since=60)
    known = {f"p{number}": value for number, value in enumerate(used) if value is not None}
    current = len(pods)
    try:
        found = by_utilization(current, target, pods, known)
    except MetricError:
        return
    if EVEN.holds(found.ratio):
        assert found.replicas == current
    trusted = [name for name in known if name not in found.unready]
    raw = sum(known[name] for name in trusted) * 100 // (1000 * len(trusted)) / target
    if raw > 1:
        assert found.replicas >= current or found.replicas == -(-raw * found.ready // 1)
    assert found.replicas >= 0
