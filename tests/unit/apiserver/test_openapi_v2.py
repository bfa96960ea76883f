"""OpenAPI v2 made of v3, and its protobuf form, read back by a decoder of the wire format that knows no messages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver import openapi_gnostic, openapi_v2
from apiserver.crd.resource import CustomResource, resources_of

REFERENCE = {"$ref": "#/components/schemas/a.B"}


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of a message; nested ones stay bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        elif key & 7 == 1:
            yield key >> 3, data[at : at + 8]
            at += 8
        else:
            assert key & 7 == 2
            length = varint()
            yield key >> 3, data[at : at + length]
            at += length
    assert at == len(data)


def one(data: bytes, number: int) -> Any:
    return next(value for found, value in fields(data) if found == number)


@pytest.mark.parametrize(
    ("given_", "made"),
    [
        pytest.param(
            {"allOf": [REFERENCE], "default": {}, "description": "d"},
            {"$ref": "#/definitions/a.B", "description": "d"},
            id="wrapped-reference",
        ),
        pytest.param({"type": "array", "items": REFERENCE}, {"type": "array", "items": {"$ref": "#/definitions/a.B"}}),
        pytest.param({"oneOf": [{"type": "string"}], "description": "d"}, {"description": "d"}, id="choices"),
        pytest.param({"type": "string", "nullable": True}, {"type": "string"}, id="nullable"),
        pytest.param(
            {"type": "object", "additionalProperties": REFERENCE},
            {"type": "object", "additionalProperties": {"$ref": "#/definitions/a.B"}},
            id="map",
        ),
        pytest.param(
            {"type": "object", "properties": {"items": {"type": "string"}}},
            {"type": "object", "properties": {"items": {"type": "string"}}},
            id="property-called-items",
        ),
    ],
)
def test_schemas(given_: dict[str, Any], made: dict[str, Any]) -> None:
    assert openapi_v2.rewrite(given_) == made


def custom(schema: dict[str, Any]) -> CustomResource:
    names = {"plural": "widgets", "kind": "Widget"}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    return resources_of({"metadata": {"name": "widgets.example.com"}, "spec": spec})[0]


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        pytest.param({"type": "string", "nullable": True}, {}, id="nullable"),
        pytest.param(
            {"type": "array", "items": {"type": "string"}, "x-kubernetes-preserve-unknown-fields": True},
            {"x-kubernetes-preserve-unknown-fields": True},
            id="open-list",
        ),
        pytest.param(
            {"type": "object", "properties": {"a": {"type": "string"}}, "x-kubernetes-preserve-unknown-fields": True},
            {"x-kubernetes-preserve-unknown-fields": True},
            id="open-object",
        ),
        pytest.param(
            {"type": "object", "required": ["a", "b"], "properties": {"a": {"type": "string", "nullable": True}}},
            {"type": "object", "required": ["b"], "properties": {"a": {}}},
            id="required-nullable",
        ),
        pytest.param(
            {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True},
            {"x-kubernetes-int-or-string": True},
            id="int-or-string",
        ),
    ],
)
def test_custom_schemas(schema: dict[str, Any], told: dict[str, Any]) -> None:
    made = openapi_v2.custom_definition(custom({"type": "object", "properties": {"spec": schema}}))
    assert made["properties"]["spec"] == told
    assert made["properties"]["metadata"]["$ref"] == "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


def test_protobuf_of_a_schema() -> None:
    schema = {
        "type": "object",
        "description": "d",
        "required": ["a", "b"],
        "properties": {"a": {"$ref": "#/definitions/x"}, "b": {"type": "array", "items": {"type": "string"}}},
        "additionalProperties": False,
        "default": {"k": [1]},
        "maximum": 1.5,
        "maxLength": 300,
        "x-kubernetes-list-type": "map",
        "unknown": "left out",
    }
    found = list(fields(openapi_gnostic.message("Schema", schema)))
    assert [value for number, value in found if number == 19] == [b"a", b"b"]
    numbers = dict(found)
    assert one(numbers[22], 1) == b"object"
    assert numbers[4] == b"d"
    assert numbers[11] == 300
    properties = [value for _, value in fields(numbers[25])]
    assert [one(each, 1) for each in properties] == [b"a", b"b"]
    assert one(one(properties[0], 2), 1) == b"#/definitions/x"
    assert one(numbers[21], 2) == 0
    assert json.loads(one(numbers[5], 2)) == {"k": [1]}
    assert one(numbers[31], 1) == b"x-kubernetes-list-type"
    assert json.loads(one(one(numbers[31], 2), 2)) == "map"


def test_protobuf_of_parameters() -> None:
    body = {"in": "body", "name": "body", "required": True, "schema": {"type": "object"}}
    assert one(one(openapi_gnostic.parameter(body), 1), 4) == 1
    path = openapi_gnostic.parameter({"in": "path", "name": "name", "type": "string"})
    assert one(one(one(path, 2), 4), 4) == b"name"
    query = openapi_gnostic.parameter({"in": "query", "name": "limit", "type": "integer", "uniqueItems": True})
    assert one(one(one(query, 2), 3), 20) == 1


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "type"]), inner, max_size=3),
    max_leaves=5,
)
_KEYS = st.sampled_from(
    ["type", "maximum", "enum", "required", "default", "x-a", "maxItems", "items", "properties", "allOf", "$ref"]
)


@given(st.dictionaries(_KEYS, _VALUES, max_size=4))
def test_others_values_never_break_the_encoding(node: dict[str, Any]) -> None:
    list(fields(openapi_gnostic.definition("name", node)))
    operation = {"parameters": [node, None], "responses": {"200": node, "400": None}}
    list(fields(openapi_gnostic.path("/x", {"get": operation, "put": node.get("default")})))
