from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodepool_autoscaler.disruption.budgets import (
    DRIFTED,
    EMPTY,
    REASONS,
    UNBOUNDED,
    UNDERUTILIZED,
    Allowance,
    PoolCount,
    active,
    allowed,
    allows,
)
from nodepool_autoscaler.model import Budget, DisruptionReason, Pool

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
DOCUMENTED = (
    Budget("20%", reasons=(EMPTY, DRIFTED)),
    Budget("5"),
    Budget("0", "@daily", 600.0, (UNDERUTILIZED,)),
)


@pytest.mark.parametrize(
    ("nodes", "total", "expected"),
    [
        pytest.param("10%", 0, 0, id="no-nodes"),
        pytest.param("10%", 1, 1, id="rounds-up"),
        pytest.param("10%", 10, 1, id="exactly"),
        pytest.param("10%", 11, 2, id="just-above"),
        pytest.param("20%", 19, 4, id="documented"),
        pytest.param("7%", 100, 7, id="no-rounding-errors"),
        pytest.param("100%", 7, 7, id="all"),
        pytest.param("0%", 7, 0, id="none"),
        pytest.param("3", 1, 3, id="count"),
        pytest.param("0", 9, 0, id="zero"),
        pytest.param("many", 9, 0, id="unreadable-allows-nothing"),
        pytest.param("", 9, 0, id="empty-allows-nothing"),
    ],
)
def test_counts_and_percentages(nodes: str, total: int, expected: int) -> None:
    assert allows(Budget(nodes), NOON, total) == expected


@pytest.mark.parametrize(
    ("now", "holds"),
    [
        pytest.param(datetime(2026, 3, 4, 8, 59, tzinfo=UTC), False, id="before"),
        pytest.param(datetime(2026, 3, 4, 9, 0, tzinfo=UTC), True, id="begins"),
        pytest.param(datetime(2026, 3, 4, 16, 59, 59, tzinfo=UTC), True, id="last-second"),
        pytest.param(datetime(2026, 3, 4, 17, 0, 1, tzinfo=UTC), False, id="ended"),
        pytest.param(datetime(2026, 3, 7, 10, 0, tzinfo=UTC), False, id="saturday"),
    ],
)
def test_a_window_of_working_hours(now: datetime, holds: bool) -> None:
    budget = Budget("0", schedule="0 9 * * mon-fri", duration=8 * 3600.0)
    assert active(budget, now) is holds
    assert allows(budget, now, 10) == (0 if holds else UNBOUNDED)


def test_a_window_longer_than_its_period_never_ends() -> None:
    budget = Budget("0", schedule="@hourly", duration=7200.0)
    assert all(active(budget, NOON + timedelta(minutes=minutes)) for minutes in range(0, 180, 7))


def test_a_schedule_that_cannot_be_read_allows_nothing() -> None:
    assert allows(Budget("5", schedule="whenever", duration=60.0), NOON, 10) == 0


@pytest.mark.parametrize(
    ("reason", "now", "total", "expected"),
    [
        pytest.param(EMPTY, NOON, 19, 4, id="share-of-few"),
        pytest.param(EMPTY, NOON, 100, 5, id="ceiling"),
        pytest.param(UNDERUTILIZED, NOON, 19, 5, id="other-reason"),
        pytest.param(UNDERUTILIZED, NOON.replace(hour=0, minute=5), 19, 0, id="first-minutes-of-the-day"),
        pytest.param(EMPTY, NOON.replace(hour=0, minute=5), 19, 4, id="window-of-another-reason"),
    ],
)
def test_the_documented_budgets(reason: DisruptionReason, now: datetime, total: int, expected: int) -> None:
    assert allowed(DOCUMENTED, now, total, reason) == expected


def test_no_budget_is_no_bound_and_the_default_is_a_tenth() -> None:
    assert allowed((), NOON, 10, EMPTY) == UNBOUNDED
    assert allowed(Pool("p").budgets, NOON, 10, EMPTY) == 1


def test_nodes_on_their_way_out_count() -> None:
    allowance = Allowance.of(
        {"a": (Budget("3"),), "b": (Budget("0"),)}, {"a": PoolCount(10, 2), "b": PoolCount(4, 0)}, NOON, EMPTY
    )
    assert [allowance.take("a"), allowance.take("a"), allowance.take("b"), allowance.take("unknown")] == [
        True,
        False,
        False,
        False,
    ]
    assert list(allowance.blocked()) == ["b"]


budgets = st.builds(
    Budget,
    st.one_of(st.integers(0, 30).map(str), st.integers(0, 100).map("{}%".format)),
    reasons=st.lists(st.sampled_from(REASONS), unique=True).map(tuple),
)


@given(st.lists(budgets, max_size=4), st.integers(0, 50), st.integers(0, 20), st.sampled_from(REASONS))
def test_never_more_than_any_budget_of_the_reason(
    listed: list[Budget], total: int, gone: int, reason: DisruptionReason
) -> None:
    allowance = Allowance.of({"p": tuple(listed)}, {"p": PoolCount(total, gone)}, NOON, reason)
    taken = 0
    while taken <= total and allowance.take("p"):
        taken += 1
    for each in listed:
        if not each.reasons or reason in each.reasons:
            assert taken == 0 or taken + gone <= allows(each, NOON, total)
