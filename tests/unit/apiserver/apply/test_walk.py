from __future__ import annotations

from typing import Any

import msgspec
import pytest

from apiserver.apply.ownership import Kind, plan_create, plan_create_json
from apiserver.apply.walk import Undeclared, compared, declared
from tests.unit.apiserver.apply.objects import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    NOW,
    PODS,
    SERVICES,
    WIDGETS,
    Obj,
    config_map,
    deployment,
)

CONTAINER = {"name": "main", "image": "i", "resources": {}}


def meta(**fields: Any) -> Obj:
    return {"metadata": {"name": "web", "namespace": "x", "uid": "u", **fields}}


CREATED = [
    pytest.param(CONFIG_MAPS, config_map({"a": "1"}), {"f:data": {".": {}, "f:a": {}}}, id="keys-of-a-new-map"),
    pytest.param(
        CONFIG_MAPS,
        config_map(None, labels={"l": "x"}),
        {"f:metadata": {"f:labels": {".": {}, "f:l": {}}}},
        id="metadata-is-always-there",
    ),
    pytest.param(CONFIG_MAPS, config_map({}), {"f:data": {}}, id="empty-map"),
    pytest.param(
        DEPLOYMENTS,
        {
            **deployment(CONTAINER, strategy={"type": "R", "rollingUpdate": {"maxSurge": 1}}, selector={"x": {}}),
            "status": {"replicas": 1},
        },
        {
            "f:spec": {
                "f:selector": {},
                "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}, "f:type": {}},
                "f:template": {
                    "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
                    "f:spec": {
                        "f:containers": {'k:{"name":"main"}': {".": {}, "f:name": {}, "f:image": {}, "f:resources": {}}}
                    },
                },
            }
        },
        id="structs-by-value",
    ),
    pytest.param(
        SERVICES,
        {**meta(), "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}},
        {"f:spec": {"f:ports": {".": {}, 'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:port": {}}}, "f:selector": {}}},
        id="default-of-a-key",
    ),
    pytest.param(
        PODS,
        meta(ownerReferences=[{"uid": "o", "name": "n"}], finalizers=["a/b"]),
        {
            "f:metadata": {
                "f:ownerReferences": {".": {}, 'k:{"uid":"o"}': {}},
                "f:finalizers": {".": {}, 'v:"a/b"': {}},
            }
        },
        id="atomic-items-and-sets",
    ),
    pytest.param(
        WIDGETS,
        {**meta(labels={"l": "x"}), "spec": {"n": {"m": 1}, "l": [1]}},
        {
            "f:metadata": {"f:labels": {".": {}, "f:l": {}}},
            "f:spec": {".": {}, "f:n": {".": {}, "f:m": {}}, "f:l": {}},
        },
        id="no-schema",
    ),
]


@pytest.mark.parametrize(("kind", "obj", "fields"), CREATED)
def test_creator_owns(kind: Kind, obj: Obj, fields: Obj) -> None:
    assert kind.created(obj) == fields


@pytest.mark.parametrize(("kind", "obj", "fields"), CREATED)
def test_the_remembered_form_says_the_same(kind: Kind, obj: Obj, fields: Obj) -> None:
    for _ in range(2):
        raw = plan_create_json(kind, obj, 'a "b"', NOW)
        assert raw is not None
        assert msgspec.json.decode(bytes(raw)) == plan_create(kind, obj, 'a "b"', NOW)


@pytest.mark.parametrize(
    ("old", "new", "changed", "removed"),
    [
        pytest.param({"a": "1"}, {"a": "2"}, {"f:data": {"f:a": {}}}, {}, id="modified"),
        pytest.param({"a": "1"}, {"a": "1", "b": "2"}, {"f:data": {"f:b": {}}}, {}, id="added"),
        pytest.param({"a": "1", "b": "2"}, {"a": "1"}, {}, {"f:data": {"f:b": {}}}, id="removed"),
        pytest.param({"a": "1"}, None, {}, {"f:data": {".": {}, "f:a": {}}}, id="map-removed"),
        pytest.param(None, {"a": "1"}, {"f:data": {".": {}, "f:a": {}}}, {}, id="map-added"),
        pytest.param({"a": "1"}, {"a": "1"}, {}, {}, id="same"),
    ],
)
def test_compared(old: Obj | None, new: Obj | None, changed: Obj, removed: Obj) -> None:
    assert compared(CONFIG_MAPS.shape, config_map(old), config_map(new)) == (changed, removed)


def test_items_are_compared_by_key() -> None:
    side = {"name": "side", "image": "s"}
    old, new = deployment(CONTAINER, side), deployment(side, {**CONTAINER, "image": "j"})
    difference = DEPLOYMENTS.compared(old, new)
    image: Obj = {'k:{"name":"main"}': {"f:image": {}}}
    assert difference.changed == {"f:spec": {"f:template": {"f:spec": {"f:containers": image}}}}
    assert difference.removed == {}


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        pytest.param({"datta": {}}, ".datta: field not declared in schema", id="unknown"),
        pytest.param({"data": []}, ".data: expected map, got &{[]}", id="no-map"),
        pytest.param({"data": {"a": 1}}, ".data.a: expected string, got &{1}", id="no-text"),
        pytest.param(
            {"metadata": {"finalizers": ["a", "a"]}},
            '.metadata.finalizers: duplicate entries for key [="a"]',
            id="duplicate",
        ),
        pytest.param(
            {"metadata": {"ownerReferences": [None]}},
            ".metadata.ownerReferences: element 0: associative list with keys may not have a null element",
            id="null-item",
        ),
    ],
)
def test_configurations_must_fit_the_schema(config: Obj, problem: str) -> None:
    with pytest.raises(Undeclared) as refused:
        declared(CONFIG_MAPS.shape, config)
    assert str(refused.value) == problem


def test_unset_times_of_a_condition_are_owned() -> None:
    shape = PODS.shape
    old = {**meta(), "status": {}}
    ready = {"type": "Ready", "status": "True"}
    difference = compared(shape, old, {**meta(), "status": {"conditions": [ready]}})
    owned = {".", "f:type", "f:status", "f:lastProbeTime", "f:lastTransitionTime"}
    assert difference.changed["f:status"]["f:conditions"]['k:{"type":"Ready"}'].keys() == owned


def test_null_is_absent_in_typed_objects_and_a_value_in_custom_ones() -> None:
    assert compared(PODS.shape, {**meta(), "spec": {"nodeName": None}}, {**meta(), "spec": {}}) == ({}, {})
    custom = {**meta(), "spec": {"a": None}}
    assert WIDGETS.created(custom) == {"f:spec": {".": {}, "f:a": {}}}


@pytest.mark.parametrize(
    "value", [pytest.param([{}], id="list"), pytest.param("x", id="text"), pytest.param(7, id="int")]
)
def test_values_of_another_type_do_no_harm(value: Any) -> None:
    bad = {**meta(labels=value, finalizers=value, ownerReferences=value), "spec": value, "data": value}
    for kind in (CONFIG_MAPS, PODS, WIDGETS, SERVICES):
        plan_create_json(kind, bad, "x", NOW)
        good: Obj = {**meta(labels={"a": "b"}, finalizers=["a"]), "spec": {"a": {}}, "data": {"a": "b"}}
        kind.compared(bad, good)
        kind.compared(good, bad)
