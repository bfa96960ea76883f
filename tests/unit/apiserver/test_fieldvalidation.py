"""Unknown and duplicate fields and wrong types, in upstream's words; the fast path agrees with the slow one."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import schema
from apiserver import fieldvalidation as fv
from apiserver.fieldwalk import TypeMismatch, Walker
from machinery.errors import StatusError


def node_of(api_version: str, kind: str) -> schema.SchemaNode:
    group, _, version = api_version.rpartition("/")
    node = schema.for_kind(group, version, kind)
    assert node is not None
    return node


def accept(raw: bytes, directive: str = "") -> tuple[dict[str, Any], list[str]]:
    obj = json.loads(raw)
    warnings: list[str] = []
    node = node_of(obj["apiVersion"], obj["kind"])
    return fv.accept_body(obj, raw, node, kind=obj["kind"], directive=directive, warnings=warnings), warnings


def body(kind: str, api_version: str = "v1", **fields: Any) -> bytes:
    return json.dumps({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}, **fields}).encode()


CONTAINER = {"name": "main", "image": "nginx"}


@pytest.mark.parametrize(
    ("raw", "problems"),
    [
        pytest.param(body("ConfigMap", data={"a": "b"}), [], id="fine"),
        pytest.param(
            b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","foo":"bar"},"datta":{"a":"b"}}',
            ['unknown field "metadata.foo"', 'unknown field "datta"'],
            id="unknown",
        ),
        pytest.param(
            b'{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"main","imagee":"x"}],"nodename":"y"}}',
            ['unknown field "spec.containers[0].imagee"', 'unknown field "spec.nodename"'],
            id="in a list",
        ),
        pytest.param(
            b'{"apiVersion":"v1","kind":"ConfigMap","METADATA":{"name":"case"},"Data":{"a":"b"}}',
            ['unknown field "METADATA"', 'unknown field "Data"'],
            id="case matters",
        ),
        pytest.param(
            b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"labels":{"a":"b","a":"c"}},"data":{"k":"1","k":"2"},'
            b'"data":{"z":"3"}}',
            ['duplicate field "metadata.labels.a"', 'duplicate field "data.k"', 'duplicate field "data"'],
            id="duplicates",
        ),
        pytest.param(
            b'{"apiVersion":"v1","kind":"ConfigMap","data":{"a" :"1","a":"2"}}',
            ['duplicate field "data.a"'],
            id="blanks before a colon hide nothing",
        ),
        pytest.param(
            b'{"apiVersion":"v1","kind":"ConfigMap","data":{"a":"\\u0022:","b":"1","b":"2"}}',
            ['duplicate field "data.b"'],
            id="escapes hide nothing",
        ),
        pytest.param(
            b'{"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "x\\":y", "b" : null}}', [], id="odd spelling"
        ),
        pytest.param(
            body("ControllerRevision", "apps/v1", data={"anything": {"goes": [1]}}, revision=1), [], id="raw extension"
        ),
    ],
)
def test_problems(raw: bytes, problems: list[str]) -> None:
    pruned, warnings = accept(raw)
    assert warnings == problems
    assert accept(raw, "Ignore")[1] == []
    obj = json.loads(raw)
    if problems:
        with pytest.raises(StatusError) as caught:
            accept(raw, "Strict")
        assert caught.value.code == 400
        assert caught.value.message == (
            f'{obj["kind"]} in version "v1" cannot be handled as a {obj["kind"]}: strict decoding error: '
            + ", ".join(problems)
        )
    else:
        assert accept(raw, "Strict")[0] == obj
    assert fv.check_fields(pruned, None, node_of(obj["apiVersion"], obj["kind"])) == []


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        pytest.param(
            body("ConfigMap", data={"k": 5}),
            "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
            id="map value",
        ),
        pytest.param(
            body("Deployment", "apps/v1", spec={"replicas": "two"}),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            id="integer",
        ),
        pytest.param(
            body("Deployment", "apps/v1", spec={"replicas": 1.5}),
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
            id="fraction",
        ),
        pytest.param(
            body("Deployment", "apps/v1", spec={"replicas": 2**31}),
            "json: cannot unmarshal number 2147483648 into Go struct field DeploymentSpec.spec.replicas of type int32",
            id="too large",
        ),
        pytest.param(
            body("Pod", spec={"nodeName": 5, "containers": [CONTAINER]}),
            "json: cannot unmarshal number into Go struct field PodSpec.spec.nodeName of type string",
            id="string",
        ),
        pytest.param(
            body("Pod", spec={"containers": {"name": "main"}}),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
            id="list",
        ),
        pytest.param(
            body("Pod", spec={"containers": [{**CONTAINER, "ports": [{"containerPort": "80"}]}]}),
            "json: cannot unmarshal string into Go struct field "
            "ContainerPort.spec.containers.ports.containerPort of type int32",
            id="inside lists",
        ),
        pytest.param(
            body("Pod", spec=[]),
            "json: cannot unmarshal array into Go struct field Pod.spec of type v1.PodSpec",
            id="struct",
        ),
        pytest.param(
            body("Pod", spec={"containers": [{**CONTAINER, "resources": {"limits": {"cpu": "1zz"}}}]}),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            id="quantity",
        ),
        pytest.param(body("ConfigMap", binaryData={"k": "!!"}), "illegal base64 data at input byte 0", id="base64"),
        pytest.param(
            body("Secret", data={"k": "not base64"}), "illegal base64 data at input byte 3", id="base64 in the middle"
        ),
        pytest.param(body("Secret", data={"k": "abcdab"}), "illegal base64 data at input byte 4", id="base64 cut"),
        pytest.param(
            body("Lease", "coordination.k8s.io/v1", spec={"renewTime": "yesterday"}),
            'parsing time "yesterday" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "yesterday" as "2006"',
            id="micro time",
        ),
        pytest.param(
            body("Lease", "coordination.k8s.io/v1", spec={"renewTime": "2026-01-01T00:00:00Z"}),
            'parsing time "2026-01-01T00:00:00Z" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "Z" as ".000000"',
            id="micro time without fraction",
        ),
        pytest.param(
            body("Pod", metadata={"creationTimestamp": "2026-13-01T00:00:00Z"}),
            'parsing time "2026-13-01T00:00:00Z": month out of range',
            id="month",
        ),
        pytest.param(
            body("Service", spec={"ports": [{"port": 80, "targetPort": True}]}),
            "json: cannot unmarshal bool into Go value of type int32",
            id="int or string",
        ),
    ],
)
def test_wrong_types_are_a_bad_request(raw: bytes, why: str) -> None:
    kind = json.loads(raw)["kind"]
    for directive in ("", "Ignore", "Strict", "Warn"):
        with pytest.raises(StatusError) as caught:
            accept(raw, directive)
        assert caught.value.code == 400
        assert caught.value.message == f'{kind} in version "v1" cannot be handled as a {kind}: {why}'


def test_pruning_shares_what_it_keeps() -> None:
    obj = json.loads(body("Pod", spec={"containers": [CONTAINER, {**CONTAINER, "x": 1}], "y": {}}))
    pruned = fv.check(obj, None, node_of("v1", "Pod")).obj
    assert pruned["spec"] == {"containers": [CONTAINER, CONTAINER]}
    assert pruned["metadata"] is obj["metadata"]
    assert pruned["spec"]["containers"][0] is obj["spec"]["containers"][0]
    assert "y" in obj["spec"]


def test_patched_objects_are_told_as_patches() -> None:
    obj = {"apiVersion": "v1", "datta": {"a": "b"}, "kind": "ConfigMap", "metadata": {"name": "base"}}
    node = node_of("v1", "ConfigMap")
    with pytest.raises(StatusError) as caught:
        fv.accept_patched(obj, node, patch={"datta": {"a": "b"}}, directive="Strict", warnings=[])
    assert caught.value.code == 422
    assert caught.value.message == (
        ' "" is invalid: patch: Invalid value: "map[datta:map[a:b]]": strict decoding error: unknown field "datta"'
    )
    with pytest.raises(StatusError) as caught:
        fv.accept_patched(obj, node, patch=None, directive="Strict", warnings=[])
    assert caught.value.causes[0]["field"] == "patch"
    assert r"{\"apiVersion\":\"v1\",\"datta\"" in caught.value.message
    warnings: list[str] = []
    assert "datta" not in fv.accept_patched(obj, node, patch=None, directive="", warnings=warnings)
    assert warnings == ['unknown field "datta"']


def test_custom_schemas() -> None:
    node = schema.from_openapi(
        {
            "type": "object",
            "properties": {
                "metadata": {"type": "object"},
                "spec": {
                    "type": "object",
                    "properties": {"free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                },
            },
        }
    )
    obj = {"metadata": {"name": "x"}, "spec": {"free": {"a": 1}, "extra": 1}}
    assert fv.check_fields(obj, None, node) == ['unknown field "spec.extra"']


def test_repeated_objects_are_merged() -> None:
    raw = b'{"apiVersion":"v1","kind":"ConfigMap","data":{"k":"1","k":"2"},"data":{"z":"3"},"immutable":true,'
    raw += b'"immutable":false}'
    obj = accept(raw)[0]
    assert obj["data"] == {"k": "2", "z": "3"}
    assert obj["immutable"] is False


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        pytest.param({"replicas": "x"}, "unrecognized type: int32", id="scalar"),
        pytest.param({"template": []}, "cannot restore struct from: slice", id="struct"),
        pytest.param({"template": {"spec": {"containers": {}}}}, "cannot restore slice from map", id="list"),
        pytest.param({"template": {"metadata": {"labels": 5}}}, "cannot restore map from int64", id="map"),
    ],
)
def test_strategic_patches_word_wrong_types_differently(spec: dict[str, Any], why: str) -> None:
    obj = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": spec}
    with pytest.raises(StatusError) as caught:
        fv.accept_patched(obj, node_of("apps/v1", "Deployment"), patch={"a": 1}, directive="", warnings=[])
    assert caught.value.message == f' "" is invalid: patch: Invalid value: "map[a:1]": {why}'


def test_kinds_without_a_schema_are_accepted() -> None:
    assert fv.accept_body({"a": 1}, None, None, kind="X", directive="Strict", warnings=[]) == {"a": 1}


def test_problems_are_bounded() -> None:
    raw = b'{"apiVersion":"v1","kind":"Pod",' + b",".join(b'"x%d":1' % i for i in range(500)) + b"}"
    assert len(accept(raw)[1]) == 100


_keys = st.sampled_from(
    ["metadata", "spec", "status", "containers", "name", "ports", "containerPort", "resources", "limits", "cpu", "x"]
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(0, 9) | st.sampled_from(["a", "1Gi", "5"]),
    lambda c: st.lists(c, max_size=2) | st.dictionaries(_keys, c, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(_keys, _json))
def test_fast_and_slow_path_agree(obj: dict[str, Any]) -> None:
    node = node_of("v1", "Pod")
    text = msgspec.json.encode(obj)
    walker = Walker()
    try:
        walker.walk(text, node)
        slow = not walker.problems
    except TypeMismatch:
        slow = False
    assert fv._is_fine(text, text, node) == slow
    if slow:
        assert fv.check(obj, text, node) == (obj, [])
    elif walker.problems:
        assert fv.prune(obj, node) != obj


@given(st.dictionaries(_keys, _json))
def test_pruned_objects_have_no_unknown_fields(obj: dict[str, Any]) -> None:
    node = node_of("v1", "Pod")
    try:
        pruned = fv.check(obj, None, node).obj
    except TypeMismatch:
        return
    assert fv.check_fields(pruned, None, node) == []
