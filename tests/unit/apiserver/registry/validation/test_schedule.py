"""Cron schedules: the grammar and upstream's complaints."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.registry.validation.schedule import schedule_error


@pytest.mark.parametrize(
    "text",
    ["* * * * *", "*/5 0 1,15 jan-mar mon", "0-30/10 8-18 * * 1-5", "@daily", "@every 1h30m", "0 0 ? * SUN"],
)
def test_valid(text: str) -> None:
    assert schedule_error(text) == ""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param("* * *", "expected exactly 5 fields, found 3: [* * *]", id="fields"),
        pytest.param("60 * * * *", "end of range (60) above maximum (59): 60", id="above"),
        pytest.param("* * 0 * *", "beginning of range (0) below minimum (1): 0", id="below"),
        pytest.param("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1", id="backwards"),
        pytest.param("*/0 * * * *", "step of range should be a positive number: */0", id="step"),
        pytest.param("1-2-3 * * * *", "too many hyphens: 1-2-3", id="hyphens"),
        pytest.param("@sometimes", "unrecognized descriptor: @sometimes", id="descriptor"),
    ],
)
def test_invalid(text: str, wanted: str) -> None:
    assert schedule_error(text) == wanted


@given(st.text(alphabet="0123456789*/-,?@ abcjanmonTZ", max_size=30))
def test_any_text_is_judged(text: str) -> None:
    assert isinstance(schedule_error(text), str)
