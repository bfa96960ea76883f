"""Resource scores on numbers worked out by hand."""

from __future__ import annotations

import pytest

from scheduler.framework.scoring import Strategy
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.plugins.balanced_allocation import BalancedAllocation
from scheduler.plugins.node_resources_fit import NodeResourcesFit
from tests.unit.scheduler.objects import info, node

GI = 2**30


def snapshot_with(cpu_used: str, memory_used: str) -> ClusterSnapshot:
    snapshot = ClusterSnapshot()
    snapshot.set_node(node("n", cpu="4", memory="8Gi"))
    if (cpu_used, memory_used) != ("0", "0"):
        snapshot.add_pod(info("other", {"cpu": cpu_used, "memory": memory_used}), "n")
    return snapshot


@pytest.mark.parametrize(
    ("used", "asked", "least", "most"),
    [
        pytest.param(("0", "0"), ("0", "0"), 100, 0, id="empty"),
        pytest.param(("0", "0"), ("1", "2Gi"), 75, 25, id="a quarter of both"),
        pytest.param(("1", "2Gi"), ("1", "0"), (50 + 75) // 2, (50 + 25) // 2, id="rounded down"),
        pytest.param(("4", "8Gi"), ("1", "1Gi"), 0, 100, id="more than there is"),
    ],
)
def test_allocation(used: tuple[str, str], asked: tuple[str, str], least: int, most: int) -> None:
    snapshot = snapshot_with(*used)
    pod = info("p", {"cpu": asked[0], "memory": asked[1]})
    for strategy, expected in ((Strategy.LEAST_ALLOCATED, least), (Strategy.MOST_ALLOCATED, most)):
        plugin = NodeResourcesFit(strategy)
        state = plugin.pre_score(pod, snapshot)
        assert plugin.score(state, snapshot).tolist() == [expected]
        assert plugin.score_at(state, snapshot, 0) == expected


@pytest.mark.parametrize(
    ("used", "asked", "expected"),
    [
        pytest.param(("0", "0"), ("1", "2Gi"), 75, id="balanced before and after"),
        pytest.param(("4", "0"), ("0", "8Gi"), 100, id="from all uneven to even"),
        pytest.param(("0", "0"), ("4", "0"), 50, id="from even to all uneven"),
        pytest.param(("2", "0"), ("0", "2Gi"), 81, id="half way"),  # 75 -> 87: 50 + (50 + 12) // 2
        pytest.param(("3", "0"), ("9", "0"), 69, id="shares stop at one"),  # 62 -> 50: 50 + (50 - 12) // 2
    ],
)
def test_balance(used: tuple[str, str], asked: tuple[str, str], expected: int) -> None:
    snapshot = snapshot_with(*used)
    plugin = BalancedAllocation()
    state = plugin.pre_score(info("p", {"cpu": asked[0], "memory": asked[1]}), snapshot)
    assert state is not None
    assert plugin.score(state, snapshot).tolist() == [expected]
    assert plugin.score_at(state, snapshot, 0) == expected


def test_a_pod_without_requests_is_not_balanced() -> None:
    assert BalancedAllocation().pre_score(info("p"), snapshot_with("1", "0")) is None
