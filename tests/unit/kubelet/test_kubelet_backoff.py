"""Back-off arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet.backoff import INITIAL, MAXIMUM, Backoff, format_duration


def test_the_first_failure_is_retried_at_once_then_ten_seconds_doubling() -> None:
    backoff, now, waits = Backoff(), 100.0, []
    for _ in range(8):
        due = backoff.due(now)
        waits.append(due - now)
        now = due
        backoff.advance(now, now)
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]


@given(st.lists(st.floats(0, 2000), min_size=1, max_size=30))
def test_delays_stay_in_bounds_and_only_a_long_run_resets_them(runs: list[float]) -> None:
    backoff, now = Backoff(), 1000.0
    for run in runs:
        failed = now + run
        before = backoff.delay
        due = backoff.due(failed)
        assert failed <= due <= failed + MAXIMUM
        backoff.advance(failed, due)
        assert INITIAL <= backoff.delay <= MAXIMUM
        if before and run <= 2 * MAXIMUM - 1:
            assert backoff.delay == min(before * 2, MAXIMUM)
        now = due


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        pytest.param(10, "10s", id="seconds"),
        pytest.param(160, "2m40s", id="minutes"),
        pytest.param(300, "5m0s", id="whole-minutes"),
        pytest.param(3600, "1h0m0s", id="hours"),
    ],
)
def test_durations_are_written_as_go_does(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
