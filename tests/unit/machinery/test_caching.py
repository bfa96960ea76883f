"""What is kept, and what is too long for it."""

from __future__ import annotations

import pytest

from machinery.caching import LONGEST, is_short, keep_short


@pytest.mark.parametrize(
    ("argument", "calls"),
    [("a", 1), ("x" * LONGEST, 1), ("x" * (LONGEST + 1), 2), (b"x" * (LONGEST + 1), 2), (5, 1)],
)
def test_answers_about_short_texts_are_kept(argument: object, calls: int) -> None:
    asked: list[object] = []

    @keep_short(8)
    def function(given: object, more: int = 0) -> tuple[object, int]:
        asked.append(given)
        return given, more

    assert function(argument, more=1) == function(argument, more=1) == (argument, 1)
    assert len(asked) == calls


def test_a_key_is_as_long_as_its_texts_together() -> None:
    assert is_short("a" * LONGEST, "b" * LONGEST)
    assert not is_short("a" * LONGEST, "b" * LONGEST, "c")
    assert is_short("abc", "d", longest=4)
    assert not is_short("abc", "de", longest=4)
