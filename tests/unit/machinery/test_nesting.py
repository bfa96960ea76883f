"""How deep a value is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinery import nesting
from machinery.nesting import MAX_DEPTH, is_too_deep


def nested(depth: int) -> Any:
    value: Any = 1
    for number in range(depth):
        value = [value, 1] if number % 2 else {"a": value, "b": 1}
    return value


@pytest.mark.parametrize(("depth", "deep"), [(MAX_DEPTH - 1, False), (MAX_DEPTH, False), (MAX_DEPTH + 1, True)])
def test_the_bound(depth: int, deep: bool) -> None:
    value = nested(depth)
    assert is_too_deep(value, msgspec.json.encode(value)) is deep


def test_width_is_no_depth() -> None:
    value = [{"a": "{[" * 50}] * 1000
    assert not is_too_deep(value, msgspec.json.encode(value))


def depth_of(value: Any) -> int:
    if not isinstance(value, (dict, list)):
        return 0
    return 1 + max(map(depth_of, value.values() if isinstance(value, dict) else value), default=0)


@given(st.recursive(st.text("{[a"), lambda inner: st.lists(inner) | st.dictionaries(st.text("[b"), inner)))
def test_brackets_in_texts_do_not_count(value: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nesting, "MAX_DEPTH", 3)
        assert is_too_deep(value, msgspec.json.encode(value)) is (depth_of(value) > 3)
