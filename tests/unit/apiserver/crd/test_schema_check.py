"""What a definition's schema may not say, in upstream's words."""

from __future__ import annotations

from typing import Any

import pytest

from apiserver.crd.schema_check import check_schema

PAIR = [{"type": "integer"}, {"type": "string"}]
NAMED = {"type": "object", "required": ["n"], "properties": {"n": {"type": "string"}}}


def told(schema: dict[str, Any]) -> list[str]:
    return [str(error) for error in check_schema({"type": "object", "properties": {"f": schema}}, "s")]


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({"type": "string", "pattern": "^a+$", "default": "a"}, id="string"),
        pytest.param({"x-kubernetes-int-or-string": True, "anyOf": PAIR}, id="int or string"),
        pytest.param({"x-kubernetes-int-or-string": True, "allOf": [{"anyOf": PAIR}]}, id="int or string, wrapped"),
        pytest.param({"x-kubernetes-preserve-unknown-fields": True}, id="anything"),
        pytest.param(
            {"type": "array", "items": NAMED, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"]},
            id="map list",
        ),
        pytest.param(
            {**NAMED, "oneOf": [{"required": ["n"]}, {"properties": {"n": {"enum": ["x"]}}}]}, id="a structural branch"
        ),
        pytest.param(
            {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True},
            id="embedded",
        ),
        pytest.param({"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]}, id="rule"),
    ],
)
def test_good_schemas(schema: dict[str, Any]) -> None:
    assert told(schema) == []


@pytest.mark.parametrize(
    ("schema", "at", "text"),
    [
        pytest.param({}, ".type", "Required value: must not be empty for specified object fields", id="no type"),
        pytest.param({"type": "text"}, ".type", 'Unsupported value: "text"', id="unknown type"),
        pytest.param({"type": "array"}, ".items", "Required value: must be specified", id="no items"),
        pytest.param({"type": "array", "items": {}}, ".items.type", "for specified array items", id="items' type"),
        pytest.param({"type": "string", "$ref": "#/x"}, ".$ref", "Forbidden: $ref is not supported", id="ref"),
        pytest.param(
            {"type": "object", "additionalProperties": False},
            ".additionalProperties",
            "Forbidden: additionalProperties cannot be set to false",
            id="closed object",
        ),
        pytest.param(
            {"type": "string", "x-kubernetes-int-or-string": True},
            ".type",
            'Invalid value: "string": must be empty if x-kubernetes-int-or-string is true',
            id="int or string with a type",
        ),
        pytest.param(
            {"type": "array", "items": NAMED, "x-kubernetes-list-type": "map"},
            ".x-kubernetes-list-map-keys",
            "Required value: must not be empty if x-kubernetes-list-type is map",
            id="no keys",
        ),
        pytest.param(
            {
                "type": "array",
                "items": {"type": "object", "properties": {"n": {"type": "string"}}},
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["n"],
            },
            ".items.properties[n].default",
            "Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a "
            "required property",
            id="an optional key",
        ),
        pytest.param(
            {"type": "object", "anyOf": [{"type": "object"}]},
            ".anyOf[0].type",
            "Forbidden: must be empty to be structural",
            id="a type in a branch",
        ),
        pytest.param(
            {"type": "object", "anyOf": [{"properties": {"x": {}}}]},
            ".properties[x]",
            "Required value: because it is defined in s.properties[f].anyOf[0].properties[x]",
            id="a property of a branch alone",
        ),
        pytest.param(
            {"type": "object", "properties": {"a": {"type": "string"}}, "default": {"b": 1}},
            ".default",
            'Invalid value: {"b":1}: must not have unknown fields',
            id="unknown field in a default",
        ),
        pytest.param(
            {"type": "string", "pattern": "("}, ".pattern", "must be a valid regular expression", id="bad pattern"
        ),
        pytest.param(
            {"type": "string", "x-kubernetes-validations": [{"rule": "size(self) > 1 +"}]},
            ".x-kubernetes-validations[0].rule",
            '{"Rule":"size(self) \\u003e 1 +"',
            id="bad rule",
        ),
        pytest.param(
            {"type": "array", "items": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}},
            ".items.x-kubernetes-validations[0].rule",
            "oldSelf cannot be used on the uncorrelatable portion of the schema",
            id="a rule about changes where nothing corresponds",
        ),
    ],
)
def test_bad_schemas(schema: dict[str, Any], at: str, text: str) -> None:
    (finding,) = told(schema)
    assert finding.startswith(f"s.properties[f]{at}: ")
    assert text in finding


def test_the_root_is_an_object_with_its_own_metadata() -> None:
    assert [str(error) for error in check_schema({}, "s")] == ["s.type: Required value: must not be empty at the root"]
    metadata = {"type": "object", "properties": {"labels": {"type": "object"}}}
    (finding,) = check_schema({"type": "object", "properties": {"metadata": metadata}}, "s")
    assert finding.reason == "FieldValueForbidden"
