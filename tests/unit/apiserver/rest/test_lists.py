"""Lists joined once for many clients."""

from __future__ import annotations

import pytest

from apiserver.registry.context import ListPage
from apiserver.rest import lists
from apiserver.rest.lists import JoinedLists
from tests.harness.apiserver import eventually

KEY = ("", "v1", "pods", "default")


def page(*items: bytes, state: int) -> ListPage:
    return ListPage(list(items), 9, state=state)


async def test_pages_of_one_state_share_their_bytes() -> None:
    joined = JoinedLists()
    first = joined.items(KEY, page(b"1", b"2", state=7), bytes)
    assert first == b"1,2" and joined.items(KEY, page(b"1", b"2", state=7), bytes) is first
    assert joined.items(KEY, page(b"3", state=8), bytes) == b"3"
    assert joined.items((*KEY[:3], "other"), page(b"4", state=8), bytes) == b"4"
    assert len(joined) == 2


async def test_parts_of_lists_and_huge_ones_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    joined = JoinedLists()
    assert joined.items(KEY, page(b"1", state=0), bytes) == b"1"
    monkeypatch.setattr(lists, "MOST_KEPT", 2)
    assert joined.items(KEY, page(b"1", b"2", state=7), bytes) == b"1,2"
    assert len(joined) == 0


async def test_what_nobody_asks_for_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "KEPT_SECONDS", 0.01)
    joined = JoinedLists()
    joined.items(KEY, page(b"1", state=7), bytes)
    await eventually(lambda: len(joined) == 0)
    assert joined.items(KEY, page(b"1", state=7), bytes) == b"1"
    assert len(joined) == 1
