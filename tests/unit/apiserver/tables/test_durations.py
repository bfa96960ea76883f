"""The text of AGE columns."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.tables.durations import human_duration, since

MINUTE, HOUR, DAY = 60, 3600, 86_400


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        pytest.param(-2, "<invalid>", id="future"),
        pytest.param(-1, "0s", id="clock skew"),
        pytest.param(0.9, "0s", id="zero"),
        pytest.param(119, "119s", id="seconds"),
        pytest.param(120, "2m", id="two minutes"),
        pytest.param(123, "2m3s", id="minutes and seconds"),
        pytest.param(10 * MINUTE + 5, "10m", id="ten minutes"),
        pytest.param(3 * HOUR - 1, "179m", id="minutes only"),
        pytest.param(3 * HOUR, "3h", id="three hours"),
        pytest.param(3 * HOUR + 5 * MINUTE, "3h5m", id="hours and minutes"),
        pytest.param(8 * HOUR + 5 * MINUTE, "8h", id="hours only"),
        pytest.param(47 * HOUR, "47h", id="below two days"),
        pytest.param(2 * DAY, "2d", id="two days"),
        pytest.param(4 * DAY + 2 * HOUR, "4d2h", id="days and hours"),
        pytest.param(8 * DAY + 2 * HOUR, "8d", id="days only"),
        pytest.param(2 * 365 * DAY, "2y", id="two years"),
        pytest.param(2 * 365 * DAY + 30 * DAY, "2y30d", id="years and days"),
        pytest.param(9 * 365 * DAY, "9y", id="years"),
    ],
)
def test_human_duration(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def test_since() -> None:
    now = datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC)
    assert since("2026-01-01T00:00:00Z", now) == "5s"
    assert since(None, now) == "<unknown>"
    assert since("yesterday", now) == "<unknown>"


@given(st.floats(-1e9, 1e10))
def test_every_duration_has_a_short_text(seconds: float) -> None:
    assert 1 < len(human_duration(seconds)) < 10
