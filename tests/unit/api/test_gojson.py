from __future__ import annotations

from typing import Any

import pytest

from api import schema
from api.gojson import go_json, paths_tree
from machinery.field_errors import FieldError

POD = {
    "spec": {
        "dnsPolicy": "ClusterFirst",
        "initContainers": [{"image": "i", "envFrom": [], "env": [], "ports": [], "name": "n"}],
        "containers": [],
        "volumes": [],
        "nodeSelector": {"b": "1", "a": "<&>"},
    },
    "metadata": {"uid": "u", "labels": {"z": "1", "b": "2"}, "name": "web"},
    "kind": "Pod",
    "apiVersion": "v1",
}
SPEC = (
    '"spec":{"volumes":[],"initContainers":[{"name":"n","image":"i","ports":[],"envFrom":[],"env":[]}],'
    '"containers":[],"dnsPolicy":"ClusterFirst","nodeSelector":{"a":"\\u003c\\u0026\\u003e","b":"1"}}'
)
META = '"metadata":{"name":"web","uid":"u","labels":{"b":"2","z":"1"}}'


@pytest.mark.parametrize(
    ("merged", "expected"),
    [
        pytest.param(None, f'{{"kind":"Pod","apiVersion":"v1",{META},{SPEC}}}', id="a struct"),
        pytest.param({}, f'{{"apiVersion":"v1","kind":"Pod",{META},{SPEC}}}', id="its outermost level was merged"),
        pytest.param(
            {"metadata": {"labels": {"z": "1"}}},
            f'{{"apiVersion":"v1","kind":"Pod","metadata":{{"labels":{{"b":"2","z":"1"}},"name":"web","uid":"u"}},{SPEC}}}',
            id="a level below too",
        ),
    ],
)
def test_members_of_structs_are_in_order_and_keys_of_maps_sorted(merged: Any, expected: str) -> None:
    assert go_json(POD, schema.for_kind("", "v1", "Pod"), merged) == expected


@pytest.mark.parametrize(
    ("operations", "tree"),
    [
        ([], {}),
        ([{"op": "remove", "path": "/spec/paused"}], {"spec": {}}),
        ([{"op": "add", "path": "/metadata/labels/a~1b", "value": "x"}], {"metadata": {"labels": {"a/b": "as sent"}}}),
        ([{"op": "move", "from": "/data/x", "path": "/data/y"}], {"data": {}}),
        ([{"op": "add", "path": "/a", "value": {}}, {"op": "add", "path": "/a/b", "value": 1}], {"a": "as sent"}),
        ([{"op": "add", "path": ""}, {}, {"op": "test", "path": None}], {}),
    ],
)
def test_a_json_patch_tells_what_it_decodes(operations: list[Any], tree: Any) -> None:
    assert paths_tree(operations) == tree


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"b": "1", "a": "2"}, '{"a":"2","b":"1"}'),
        (
            {
                "matchExpressions": [{"values": ["x"], "operator": "In", "key": "k"}],
                "matchLabels": {"b": "1", "a": "2"},
            },
            '{"matchLabels":{"a":"2","b":"1"},"matchExpressions":[{"key":"k","operator":"In","values":["x"]}]}',
        ),
        ({"Type": "x", "Action": {"B": "1", "A": "2"}}, '{"Type":"x","Action":{"B":"1","A":"2"}}'),
        ({}, "{}"),
    ],
)
def test_values_in_findings(value: Any, shown: str) -> None:
    assert FieldError.invalid("f", value, "d").text == f"Invalid value: {shown}: d"
