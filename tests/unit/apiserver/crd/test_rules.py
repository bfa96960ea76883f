"""Expressions of schemas: what they see, when they run, what is told."""

from __future__ import annotations

from typing import Any

import pytest

from apiserver.crd.rules import Rules, escaped, is_about_change
from apiserver.expressions.compiling import ExpressionError, compile_expression


def told(schema: dict[str, Any], value: Any, *old: Any) -> list[str]:
    wrapped = {"type": "object", "properties": {"f": schema}}
    before = ({"f": old[0]},) if old else ()
    return [str(error) for error in Rules(wrapped, root=True).evaluate({"f": value}, *before)]


def rule(text: str, **more: Any) -> dict[str, Any]:
    return {"x-kubernetes-validations": [{"rule": text, **more}]}


@pytest.mark.parametrize(
    ("schema", "value", "found"),
    [
        pytest.param({"type": "integer", **rule("self > 1")}, 2, [], id="true"),
        pytest.param(
            {"type": "integer", **rule("self > 1")}, 1, ["f: Invalid value: 1: failed rule: self > 1"], id="false"
        ),
        pytest.param(
            {"type": "integer", **rule("self > 1", message="no", reason="FieldValueForbidden")},
            1,
            ["f: Forbidden: no"],
            id="reason",
        ),
        pytest.param(
            {"type": "integer", **rule("self > 1", messageExpression="'got ' + string(self)")},
            1,
            ["f: Invalid value: 1: got 1"],
            id="message expression",
        ),
        pytest.param(
            {"type": "object", "properties": {"a": {}}, **rule("self.a > 1")},
            {},
            ['f: Invalid value: "object": no such key: a evaluating rule: self.a > 1'],
            id="a missing member",
        ),
        pytest.param(
            {"type": "object", "properties": {"a-b": {"type": "string"}}, **rule("self.a__dash__b == 'x'")},
            {"a-b": "x"},
            [],
            id="escaped names",
        ),
        pytest.param({"type": "number", **rule("self * 2.0 > 1.0")}, 1, [], id="numbers are doubles"),
        pytest.param(
            {"type": "string", "format": "date-time", **rule("self > timestamp('2020-01-01T00:00:00Z')")},
            "2021-01-01T00:00:00Z",
            [],
            id="times",
        ),
        pytest.param(
            {"type": "string", "format": "duration", **rule("self > duration('1m')")}, "1h", [], id="durations"
        ),
        pytest.param({"type": "array", "items": {"type": "integer"}, **rule("self.isSorted()")}, [1, 2], [], id="list"),
        pytest.param(
            {"type": "object", "additionalProperties": {"type": "string"}, **rule("self.all(k, k != 'x')")},
            {"x": "1"},
            ["f: Invalid value: \"object\": failed rule: self.all(k, k != 'x')"],
            id="map",
        ),
        pytest.param(
            {"type": "string", **rule("quantity(self).isLessThan(quantity('1Gi'))")}, "1Mi", [], id="quantities"
        ),
    ],
)
def test_rules(schema: dict[str, Any], value: Any, found: list[str]) -> None:
    assert told(schema, value) == found


def test_rules_about_changes_need_an_old_value() -> None:
    schema = {"type": "integer", **rule("self >= oldSelf", message="shrinks")}
    assert told(schema, 1) == []
    assert told(schema, 2, 1) == []
    assert told(schema, 1, 2) == ["f: Invalid value: 1: shrinks"]


def test_an_optional_old_value_is_always_there() -> None:
    schema = {"type": "integer", **rule("oldSelf.hasValue() || self == 0", optionalOldSelf=True, message="new")}
    assert told(schema, 1) == ["f: Invalid value: 1: new"]
    assert told(schema, 1, 2) == []


def test_what_did_not_change_is_not_judged() -> None:
    schema = {"type": "integer", **rule("self > 5")}
    assert told(schema, 1, 1) == []


def test_items_of_a_map_list_know_what_they_were() -> None:
    item = {"type": "object", "properties": {"k": {}, "n": {"type": "integer", **rule("self >= oldSelf")}}}
    schema = {"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}
    old = [{"k": "a", "n": 1}, {"k": "b", "n": 5}]
    assert told(schema, [{"k": "b", "n": 6}, {"k": "a", "n": 2}], old) == []
    assert told(schema, [{"k": "b", "n": 4}], old) == ["f[0].n: Invalid value: 4: failed rule: self >= oldSelf"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("self >", "Syntax error: mismatched input '<EOF>'", id="syntax"),
        pytest.param("other > 1", "undeclared reference to 'other'", id="unknown name"),
        pytest.param("1 + 1", "must evaluate to bool", id="type"),
        pytest.param("", "empty", id="empty"),
        pytest.param("(" * 500 + "true" + ")" * 500, "recursion", id="depth"),
    ],
)
def test_bad_expressions_do_not_compile(text: str, problem: str) -> None:
    with pytest.raises(ExpressionError, match=problem.replace("(", r"\(")):
        compile_expression(text)


def test_an_endless_expression_ends() -> None:
    rules = Rules({"type": "array", "items": {}, **rule("self.all(x, self.all(y, self.all(z, x + y + z >= 0)))")})
    assert len(rules.evaluate(list(range(300)))) == 1


def test_names_and_changes_are_recognised() -> None:
    assert [escaped(name) for name in ("a", "in", "a.b", "a__b", "x/y")] == [
        "a", "__in__", "a__dot__b", "a__underscores__b", "x__slash__y",
    ]  # fmt: skip
    assert is_about_change("self == oldSelf")
    assert not is_about_change("self == 'oldSelf'")
