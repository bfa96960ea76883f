"""JSON patch: RFC 6902's table, upstream's leniencies, and that nothing is modified in place."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinery.errors import StatusError, TooLarge
from machinery.patch import apply_json_patch, decode_json_patch

DOC: dict[str, Any] = {"a": {"b": [1, 2, 3], "c/d": "x", "m~n": 1}, "e": "f", "n": None}


@pytest.mark.parametrize(
    ("ops", "expected"),
    [
        pytest.param([], DOC, id="empty"),
        pytest.param([{"op": "add", "path": "/z", "value": 1}], {**DOC, "z": 1}, id="add member"),
        pytest.param([{"op": "add", "path": "/e", "value": 1}], {**DOC, "e": 1}, id="add replaces member"),
        pytest.param(
            [{"op": "add", "path": "/a/b/1", "value": 9}], {**DOC, "a": {**DOC["a"], "b": [1, 9, 2, 3]}}, id="insert"
        ),
        pytest.param(
            [{"op": "add", "path": "/a/b/3", "value": 9}], {**DOC, "a": {**DOC["a"], "b": [1, 2, 3, 9]}}, id="at end"
        ),
        pytest.param(
            [{"op": "add", "path": "/a/b/-", "value": 9}], {**DOC, "a": {**DOC["a"], "b": [1, 2, 3, 9]}}, id="append"
        ),
        pytest.param(
            [{"op": "remove", "path": "/a/b/-1"}], {**DOC, "a": {**DOC["a"], "b": [1, 2]}}, id="negative index"
        ),
        pytest.param(
            [{"op": "replace", "path": "/a/c~1d", "value": 2}], {**DOC, "a": {**DOC["a"], "c/d": 2}}, id="slash"
        ),
        pytest.param([{"op": "remove", "path": "/a/m~0n"}], {**DOC, "a": {"b": [1, 2, 3], "c/d": "x"}}, id="tilde"),
        pytest.param([{"op": "replace", "path": "/ghost", "value": 2}], {**DOC, "ghost": 2}, id="replace adds"),
        pytest.param([{"op": "add", "path": "junk/e", "value": 2}], {**DOC, "e": 2}, id="no leading slash"),
        pytest.param([{"op": "replace", "path": "", "value": {}}], {}, id="whole document"),
        pytest.param(
            [{"op": "move", "from": "/e", "path": "/g"}], {"a": DOC["a"], "n": None, "g": "f"}, id="move member"
        ),
        pytest.param([{"op": "copy", "from": "/a/b", "path": "/g"}], {**DOC, "g": [1, 2, 3]}, id="copy"),
        pytest.param(
            [{"op": "copy", "from": "/a/b", "path": "/g"}, {"op": "add", "path": "/g/-", "value": 4}],
            {**DOC, "g": [1, 2, 3, 4]},
            id="a copy is independent",
        ),
        pytest.param([{"op": "test", "path": "/a/b", "value": [1, 2, 3]}], DOC, id="test"),
        pytest.param([{"op": "test", "path": "/ghost", "value": None}], DOC, id="test missing is null"),
        pytest.param([{"op": "test", "path": "/n", "value": None}], DOC, id="test null"),
    ],
)
def test_applies(ops: list[dict[str, Any]], expected: Any) -> None:
    before = copy.deepcopy(DOC)
    assert apply_json_patch(DOC, ops) == expected
    assert before == DOC


@pytest.mark.parametrize(
    "op",
    [
        pytest.param({"op": "test", "path": "/e", "value": "other"}, id="test differs"),
        pytest.param({"op": "test", "path": "/a/b/0", "value": True}, id="one is not true"),
        pytest.param({"op": "remove", "path": "/ghost"}, id="remove missing"),
        pytest.param({"op": "remove", "path": "/a/b/7"}, id="index out of range"),
        pytest.param({"op": "add", "path": "/a/b/5", "value": 1}, id="insert out of range"),
        pytest.param({"op": "replace", "path": "/a/b/x", "value": 1}, id="index is no number"),
        pytest.param({"op": "add", "path": "/nope/deep", "value": 1}, id="missing parent"),
        pytest.param({"op": "add", "path": "/e/deep", "value": 1}, id="parent is a string"),
        pytest.param({"op": "add", "path": "", "value": 1}, id="add to the document"),
        pytest.param({"op": "copy", "from": "/ghost", "path": "/x"}, id="copy missing"),
        pytest.param({"op": "move", "path": "/x"}, id="no from"),
        pytest.param({"op": "fly", "path": "/e"}, id="unknown op"),
        pytest.param({"op": "remove"}, id="no path"),
    ],
)
def test_what_does_not_apply_is_422(op: dict[str, Any]) -> None:
    before = copy.deepcopy(DOC)
    with pytest.raises(StatusError) as caught:
        apply_json_patch(DOC, [{"op": "add", "path": "/a/new", "value": 1}, op])
    assert caught.value.to_status() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "the server rejected our request due to an error in our request",
        "reason": "Invalid",
        "details": {},
        "code": 422,
    }
    assert before == DOC


def test_too_many_operations() -> None:
    with pytest.raises(TooLarge, match="maximum operations in a JSON patch is 10000, got 10001"):
        apply_json_patch({}, [{"op": "add", "path": "/a", "value": 1}] * 10_001)


def test_a_copy_into_its_own_source_makes_no_cycle() -> None:
    ops = [{"op": "copy", "from": "/a", "path": "/b"}, {"op": "copy", "from": "/b", "path": "/a/x"}]
    assert apply_json_patch({"a": {"x": 1}}, ops) == {"a": {"x": {"x": 1}}, "b": {"x": 1}}


def test_copy_cannot_grow_a_document_without_bound() -> None:
    ops = [{"op": "copy", "from": "/a", "path": "/b"}, {"op": "copy", "from": "/b", "path": "/a/x"}] * 2000
    with pytest.raises(StatusError) as caught:
        apply_json_patch({"a": {"x": "y" * 1000}}, ops)
    assert caught.value.code == 422


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        pytest.param(b'[{"op":', "error decoding patch: unexpected end of JSON input", id="cut"),
        pytest.param(
            b'{"op":"add"}',
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
            id="not a list",
        ),
        pytest.param(
            b'[{"op":5}]',
            "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string",
            id="op is a number",
        ),
    ],
)
def test_bodies_that_are_no_patch(raw: bytes, message: str) -> None:
    with pytest.raises(StatusError) as caught:
        decode_json_patch(raw)
    assert (caught.value.code, caught.value.message) == (400, message)


def test_unknown_fields_of_operations_are_warned_of() -> None:
    ops, warnings = decode_json_patch(b'[{"op":"add","path":"/a","value":1,"vlaue":2}]')
    assert len(ops) == 1
    assert warnings == ['json patch unknown field "[0].vlaue"']


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda c: st.lists(c, max_size=3) | st.dictionaries(st.sampled_from("abc/~"), c, max_size=3),
    max_leaves=12,
)
_pointer = st.lists(st.sampled_from(["a", "b", "c", "~1", "~0", "0", "1", "-", "-1"]), max_size=3).map(
    lambda parts: "".join(f"/{part}" for part in parts)
)
_op = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]), "path": _pointer},
    optional={"from": _pointer, "value": _json},
)


@given(_json, st.lists(_op, max_size=5))
def test_any_patch_succeeds_or_is_refused_and_never_touches_the_input(doc: Any, ops: list[dict[str, Any]]) -> None:
    before = copy.deepcopy((doc, ops))
    try:
        apply_json_patch(doc, ops)
    except StatusError as error:
        assert error.code == 422
    assert before == (doc, ops)
