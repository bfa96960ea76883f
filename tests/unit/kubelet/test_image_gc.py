"""Which images go when the disk is full."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kubelet.image_gc import Candidate, plan_removal

OLD = Candidate("old", 100, first_seen=0, last_used=10, used=False)
NEWER = replace(OLD, id="newer", last_used=50)
USED = replace(OLD, id="used", used=True)
PINNED = replace(OLD, id="pinned", pinned=True)
YOUNG = replace(OLD, id="young", first_seen=990, last_used=990)
ALL = [NEWER, YOUNG, OLD, USED, PINNED]


@pytest.mark.parametrize(
    ("need", "gone"),
    [(0, []), (1, ["old"]), (100, ["old"]), (101, ["old", "newer"]), (10_000, ["old", "newer"])],
)
def test_least_recently_used_first_and_only_as_many_as_needed(need: int, gone: list[str]) -> None:
    assert plan_removal(ALL, need, now=1000) == gone
