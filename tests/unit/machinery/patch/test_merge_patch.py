"""JSON merge patch: RFC 7386's appendix, and that creating and applying are inverse."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinery.errors import StatusError
from machinery.patch import apply_merge_patch, create_merge_patch, decode_merge_patch


@pytest.mark.parametrize(
    ("doc", "patch", "expected"),
    [
        pytest.param({"a": "b"}, {"a": "c"}, {"a": "c"}, id="replace"),
        pytest.param({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}, id="add"),
        pytest.param({"a": "b"}, {"a": None}, {}, id="remove"),
        pytest.param({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}, id="remove one"),
        pytest.param({"a": ["b"]}, {"a": "c"}, {"a": "c"}, id="list by scalar"),
        pytest.param({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}, id="scalar by list"),
        pytest.param({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}, id="nested"),
        pytest.param({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}, id="lists are replaced"),
        pytest.param(["a", "b"], ["c", "d"], ["c", "d"], id="list document"),
        pytest.param({"a": "b"}, ["c"], ["c"], id="document replaced"),
        pytest.param({"a": "foo"}, None, None, id="null document"),
        pytest.param({"e": None}, {"a": 1}, {"e": None, "a": 1}, id="old null stays"),
        pytest.param([1, 2], {"a": "b", "c": None}, {"a": "b"}, id="list becomes object"),
        pytest.param({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}, id="nulls in new objects"),
    ],
)
def test_rfc_7386(doc: Any, patch: Any, expected: Any) -> None:
    before = copy.deepcopy(doc)
    assert apply_merge_patch(doc, patch) == expected
    assert before == doc


def test_untouched_parts_are_shared() -> None:
    doc = {"metadata": {"labels": {}}, "spec": {"replicas": 1}}
    assert apply_merge_patch(doc, {"spec": {"replicas": 2}})["metadata"] is doc["metadata"]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        pytest.param(b'{"data":', "error decoding patch: unexpected end of JSON input", id="cut"),
        pytest.param(
            b"[]",
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
            id="list",
        ),
    ],
)
def test_bodies_that_are_no_patch(raw: bytes, message: str) -> None:
    with pytest.raises(StatusError) as caught:
        decode_merge_patch(raw)
    assert (caught.value.code, caught.value.message) == (400, message)


_scalars = st.booleans() | st.integers(-2, 2) | st.text(alphabet="xy", max_size=2)
_objects = st.dictionaries(
    st.sampled_from("abcd"),
    st.recursive(
        _scalars,
        lambda c: st.lists(c, max_size=3) | st.dictionaries(st.sampled_from("abcd"), c, max_size=3),
        max_leaves=8,
    ),
)


def _typed(value: Any) -> Any:
    """Equality that tells true from 1."""
    if isinstance(value, dict):
        return {key: _typed(item) for key, item in value.items()}
    return [_typed(item) for item in value] if isinstance(value, list) else (type(value).__name__, value)


@given(_objects, _objects)
def test_create_then_apply_gives_the_new_document(old: dict[str, Any], new: dict[str, Any]) -> None:
    patch = create_merge_patch(old, new)
    assert apply_merge_patch(old, patch) == new
    assert (patch == {}) == (old == new) or _typed(old) != _typed(new)


@given(_objects, _objects)
def test_applying_twice_changes_nothing_more(doc: dict[str, Any], patch: dict[str, Any]) -> None:
    once = apply_merge_patch(doc, patch)
    assert apply_merge_patch(once, patch) == once
