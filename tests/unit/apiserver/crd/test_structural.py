"""Pruning, defaults and nulls, as a schema wants them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.crd.structural import Structural, drop_nulls, embedded_objects, fill, prune

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "mode": {"type": "string", "default": "a"},
                "maybe": {"type": "string", "nullable": True, "default": "x"},
                "items": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"n": {"type": "integer", "default": 1}}},
                },
                "map": {"type": "object", "additionalProperties": {"type": "string"}},
                "free": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": True,
                    "properties": {"known": {"type": "object", "properties": {"a": {"type": "string"}}}},
                },
                "tmpl": {
                    "type": "object",
                    "x-kubernetes-embedded-resource": True,
                    "properties": {"spec": {"type": "object"}},
                },
            },
        }
    },
}
NODE = Structural(SCHEMA, root=True)


@pytest.mark.parametrize(
    ("spec", "unknown", "left"),
    [
        pytest.param({"extra": 1}, ["spec.extra"], {}, id="unknown"),
        pytest.param({"items": [{"n": 1}, {"x": 2}]}, ["spec.items[1].x"], {"items": [{"n": 1}, {}]}, id="in a list"),
        pytest.param({"map": {"k": "v"}}, [], {"map": {"k": "v"}}, id="map"),
        pytest.param(
            {"free": {"x": {"y": 1}, "known": {"b": 1}}},
            ["spec.free.known.b"],
            {"free": {"x": {"y": 1}, "known": {}}},
            id="kept but for what is described",
        ),
        pytest.param(
            {"tmpl": {"apiVersion": "v1", "kind": "X", "metadata": {"name": "x"}, "other": 1}},
            ["spec.tmpl.other"],
            {"tmpl": {"apiVersion": "v1", "kind": "X", "metadata": {"name": "x"}}},
            id="embedded",
        ),
    ],
)
def test_prune(spec: Any, unknown: list[str], left: Any) -> None:
    obj = {"apiVersion": "e/v1", "kind": "W", "metadata": {"name": "a"}, "spec": spec}
    assert prune(obj, NODE) == unknown
    assert obj == {"apiVersion": "e/v1", "kind": "W", "metadata": {"name": "a"}, "spec": left}


@pytest.mark.parametrize(
    ("spec", "filled"),
    [
        pytest.param({}, {"mode": "a", "maybe": "x"}, id="absent"),
        pytest.param({"mode": None, "maybe": None}, {"mode": "a", "maybe": None}, id="null only where it may be"),
        pytest.param({"items": [{}]}, {"items": [{"n": 1}], "mode": "a", "maybe": "x"}, id="in a list"),
        pytest.param({"map": {"k": None}}, {"map": {}, "mode": "a", "maybe": "x"}, id="null without a default"),
    ],
)
def test_defaults(spec: Any, filled: Any) -> None:
    obj = {"spec": spec}
    drop_nulls(obj, NODE)
    fill(obj, NODE)
    assert obj == {"spec": filled}


def test_defaults_are_not_shared() -> None:
    node = Structural({"type": "object", "properties": {"l": {"type": "array", "default": [1], "items": {}}}})
    one: dict[str, Any] = {}
    fill(one, node)
    one["l"].append(2)
    other: dict[str, Any] = {}
    fill(other, node)
    assert other == {"l": [1]}


def test_embedded_objects_are_found() -> None:
    inner = {"apiVersion": "v1", "kind": "Pod"}
    assert embedded_objects({"spec": {"tmpl": inner}}, NODE) == [("spec.tmpl", inner)]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["spec", "mode", "maybe", "items", "map", "free", "n", "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["spec", "metadata", "x"]), VALUES, max_size=3))
def test_doing_it_twice_changes_nothing(obj: dict[str, Any]) -> None:
    for _ in range(2):
        before = copy.deepcopy(obj)
        unknown = prune(obj, NODE)
        drop_nulls(obj, NODE)
        fill(obj, NODE)
    assert not unknown
    assert obj == before
