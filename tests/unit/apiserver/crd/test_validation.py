"""Findings about values, in upstream's words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.crd.formats import FORMATS, compile_pattern
from apiserver.crd.structural import Structural
from apiserver.crd.validation import Validator, duplicates, number_text


def texts(schema: dict[str, Any], value: Any) -> list[str]:
    wrapped = {"type": "object", "properties": {"f": schema}}
    return [str(error) for error in Validator(wrapped).validate({"f": value})]


@pytest.mark.parametrize(
    ("schema", "value", "found"),
    [
        pytest.param({"type": "integer"}, 3.0, [], id="a whole number is an integer"),
        pytest.param({"type": "number"}, 3, [], id="an integer is a number"),
        pytest.param(
            {"type": "integer"}, True, ['f: Invalid value: "boolean": f in body must be of type integer: "boolean"'],
            id="a boolean is no integer",
        ),
        pytest.param(
            {"type": "string"}, None, ['f: Invalid value: "null": f in body must be of type string: "null"'], id="null"
        ),
        pytest.param({"type": "string", "nullable": True}, None, [], id="nullable"),
        pytest.param(
            {"x-kubernetes-int-or-string": True},
            1.5,
            ['f: Invalid value: "number": f in body must be of type integer,string: "number"'],
            id="int or string",
        ),
        pytest.param({"maximum": 5, "exclusiveMaximum": True}, 5,
                     ["f: Invalid value: 5: f in body should be less than 5"], id="exclusive maximum"),
        pytest.param({"minimum": 0.5}, 0.25,
                     ["f: Invalid value: 0.25: f in body should be greater than or equal to 0.5"], id="minimum"),
        pytest.param({"multipleOf": 0.1}, 0.3, [], id="decimal multiple"),
        pytest.param({"maxLength": 2}, "abc", ["f: Too long: may not be more than 2 bytes"], id="max length"),
        pytest.param({"minLength": 2}, "a",
                     ['f: Invalid value: "a": f in body should be at least 2 chars long'], id="min length"),
        pytest.param({"pattern": "^a$"}, "a\n",
                     ['f: Invalid value: "a\\n": f in body should match \'^a$\''], id="the end is the end"),
        pytest.param({"maxItems": 1}, [1, 2], ["f: Too many: 2: must have at most 1 item"], id="max items"),
        pytest.param({"minItems": 1}, [],
                     ["f: Invalid value: 0: f in body should have at least 1 items"], id="min items"),
        pytest.param({"maxProperties": 1}, {"a": 1, "b": 2}, ["f: Too many: 2: must have at most 1 item"],
                     id="max properties"),
        pytest.param({"minProperties": 1}, {},
                     ["f: Invalid value: 0: f in body should have at least 1 properties"], id="min properties"),
        pytest.param({"enum": [1, "a"]}, 2, ['f: Unsupported value: 2: supported values: "1", "a"'], id="enum"),
        pytest.param({"format": "ipv4"}, "1.2.3",
                     ['f: Invalid value: "1.2.3": f in body must be of type ipv4: "1.2.3"'], id="format"),
        pytest.param({"format": "made-up"}, "x", [], id="unknown format"),
        pytest.param({"additionalProperties": {"type": "string"}}, {"k": 1},
                     ['f.k: Invalid value: "integer": f.k in body must be of type string: "integer"'], id="map"),
        pytest.param(
            {"anyOf": [{"minimum": 5}, {"maximum": 1}]}, 3,
            ['<nil>: Invalid value: "": "f" must validate at least one schema (anyOf)',
             "f: Invalid value: 3: f in body should be greater than or equal to 5"],
            id="any of",
        ),
        pytest.param(
            {"oneOf": [{"minimum": 1}, {"minimum": 2}]}, 3,
            ['<nil>: Invalid value: "": "f" must validate one and only one schema (oneOf). Found 2 valid alternatives'],
            id="one of",
        ),
        pytest.param({"not": {"minimum": 1}}, 3,
                     ['<nil>: Invalid value: "": "f" must not validate the schema (not)'], id="not"),
        pytest.param(
            {"allOf": [{"minimum": 5}, {"maximum": 9}]}, 3,
            ["f: Invalid value: 3: f in body should be greater than or equal to 5",
             '<nil>: Invalid value: "": "f" must validate all the schemas (allOf)'],
            id="all of",
        ),
        pytest.param({"type": "object", "x-kubernetes-embedded-resource": True}, {},
                     ["f.apiVersion: Required value", "f.kind: Required value"], id="embedded resource"),
    ],
)  # fmt: skip
def test_findings(schema: dict[str, Any], value: Any, found: list[str]) -> None:
    assert texts(schema, value) == found


def test_what_an_update_leaves_alone_is_not_judged() -> None:
    item = {"type": "object", "required": ["b"], "properties": {"k": {"type": "string"}, "n": {"maximum": 1}}}
    listed = {"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}
    schema = Validator({"type": "object", "properties": {"l": listed, "n": {"type": "integer", "maximum": 1}}})
    old = {"n": 5, "l": [{"k": "a", "n": 9}, {"k": "b", "n": 9}]}
    new = {"n": 5, "l": [{"k": "b", "n": 9}, {"k": "a", "n": 9, "b": 1}]}
    assert schema.validate(new, old=old) == []
    assert [error.field for error in schema.validate({**new, "n": 6}, old=old)] == ["n"]


@pytest.mark.parametrize(
    ("node", "value", "found"),
    [
        pytest.param({"x-kubernetes-list-type": "set"}, ["a", "b", "a"], ['f[2]: Duplicate value: "a"'], id="set"),
        pytest.param({"x-kubernetes-list-type": "set"}, [1, True], [], id="one and true differ"),
        pytest.param(
            {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["p", "n"]},
            [{"n": 1, "p": "T"}, {"p": "T", "n": 1}],
            ['f[1]: Duplicate value: {"n":1,"p":"T"}'],
            id="map",
        ),
        pytest.param({}, ["a", "a"], [], id="atomic"),
    ],
)
def test_duplicates(node: dict[str, Any], value: list[Any], found: list[str]) -> None:
    schema = Structural({"type": "object", "properties": {"f": {"type": "array", "items": {}, **node}}})
    assert [str(error) for error in duplicates({"f": value}, schema)] == found


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        pytest.param("datetime", "2024-01-02T03:04:05Z", "yesterday", id="date-time"),
        pytest.param("date", "2024-02-29", "2023-02-29", id="date"),
        pytest.param("duration", "1h30m", "soon", id="duration"),
        pytest.param("email", "a@b.c", "a@", id="email"),
        pytest.param("uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "6ba7b810", id="uuid"),
        pytest.param("cidr", "10.0.0.0/8", "10.0.0.0", id="cidr"),
        pytest.param("ipv6", "::1", "1.2.3.4", id="ipv6"),
        pytest.param("byte", "YQ==", "Y", id="byte"),
        pytest.param("hostname", "a.example", "-a", id="hostname"),
        pytest.param("uri", "http://a/b", "a b", id="uri"),
        pytest.param("mac", "00:11:22:33:44:55", "00:11", id="mac"),
        pytest.param("k8sshortname", "a-b", "a.b", id="k8s-short-name"),
    ],
)
def test_formats(name: str, good: str, bad: str) -> None:
    assert FORMATS[name](good)
    assert not FORMATS[name](bad)


@given(st.text(max_size=20))
def test_no_text_breaks_a_format(text: str) -> None:
    for test in FORMATS.values():
        assert test(text) in (True, False)


def test_patterns_of_go() -> None:
    pattern = compile_pattern("^[[:alpha:]]+$")
    assert pattern is not None
    assert pattern.search("abc")
    assert not pattern.search("ab1")
    assert compile_pattern("(?P<n") is None


@pytest.mark.parametrize(
    ("value", "text"),
    [pytest.param(10.0, "10", id="whole"), pytest.param(0.5, "0.5", id="half"), pytest.param(1e22, "1e+22", id="huge")],
)
def test_bounds_are_printed_as_go_does(value: float, text: str) -> None:
    assert number_text(value) == text
