"""The validators themselves: each guarantee has a record that keeps it and one that breaks it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.robustness import validate
from tests.robustness.history import Event, History, Operation, Watch

CREATE = Operation("create", "a", "1", 5)
UPDATE = Operation("update", "a", "2", 6)
ADDED, MODIFIED = Event("ADDED", "a", "1", 5), Event("MODIFIED", "a", "2", 6)


def history(*operations: Operation, final: dict[str, tuple[str, int]] | None = None, events: list[Event]) -> History:
    return History(list(operations), [Watch("w", 4, events)], final or {}, 6)


GOOD = history(CREATE, UPDATE, final={"a": ("2", 6)}, events=[ADDED, MODIFIED])


def test_a_good_record_has_no_violation(tmp_path: Path) -> None:
    assert validate.violations(GOOD) == []
    GOOD.save(tmp_path / "h")
    assert validate.violations(History.load(tmp_path / "h")) == []


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        pytest.param(
            history(CREATE, UPDATE, final={"a": ("1", 5)}, events=[ADDED, MODIFIED]),
            validate.ERROR_LOST_WRITE,
            id="lost",
        ),
        pytest.param(history(CREATE, final={}, events=[ADDED]), validate.ERROR_LOST_WRITE, id="vanished"),
        pytest.param(
            history(CREATE, final={"a": ("1", 5), "b": ("9", 6)}, events=[ADDED]), validate.ERROR_PHANTOM, id="phantom"
        ),
        pytest.param(
            history(CREATE, Operation("create", "b", "3", 5), final={}, events=[]), validate.ERROR_REUSED, id="reused"
        ),
        pytest.param(
            history(CREATE, UPDATE, final={"a": ("2", 6)}, events=[MODIFIED, ADDED]), validate.ERROR_ORDER, id="order"
        ),
        pytest.param(
            history(CREATE, UPDATE, final={"a": ("2", 6)}, events=[ADDED, ADDED, MODIFIED]),
            validate.ERROR_UNIQUE,
            id="twice",
        ),
        pytest.param(
            history(CREATE, UPDATE, final={"a": ("2", 6)}, events=[MODIFIED]), validate.ERROR_RELIABLE, id="gap"
        ),
        pytest.param(
            history(CREATE, final={"a": ("1", 5)}, events=[ADDED, MODIFIED]), validate.ERROR_INVENTED, id="invented"
        ),
    ],
)
def test_a_broken_guarantee_is_named(bad: History, error: str) -> None:
    assert any(found.startswith(error) for found in validate.violations(bad))


def test_a_write_of_unknown_outcome_may_or_may_not_have_happened() -> None:
    unknown = Operation("update", "a", "2", None)
    for final, events in (({"a": ("1", 5)}, [ADDED]), ({"a": ("2", 6)}, [ADDED, MODIFIED])):
        assert validate.violations(history(CREATE, unknown, final=final, events=events)) == []
