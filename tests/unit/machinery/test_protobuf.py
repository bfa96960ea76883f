"""Protobuf bodies as kubectl sends them, every special type both ways, and that no bytes can do more than a 400."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machinery import protobuf
from machinery.errors import BadRequest

# What kubectl 1.36 sends for `create deployment web --image=nginx:1.25 --replicas=2 --port=80`.
DEPLOYMENT = (
    b'k8s\x00\n\x15\n\x07apps/v1\x12\nDeployment\x12\xca\x01\n,\n\x03web\x12\x00\x1a\rgold-u0u0u0-a"\x00*\x002\x008\x00'
    b"B\x00Z\n\n\x03app\x12\x03web\x12\x8b\x01\x08\x02\x12\x0c\n\n\n\x03app\x12\x03web\x1aq\n\x1c\n\x00\x12\x00\x1a\x00"
    b'"\x00*\x002\x008\x00B\x00Z\n\n\x03app\x12\x03web\x12Q\x123\n\x05nginx\x12\nnginx:1.25*\x002\n\n\x00\x10\x00\x18P'
    b'"\x00*\x00B\x00j\x00r\x00\x80\x01\x00\x88\x01\x00\x90\x01\x00\xa2\x01\x00\x1a\x002\x00B\x00J\x00R\x00X\x00`\x00h'
    b'\x00\x82\x01\x00\x8a\x01\x00\x9a\x01\x00\xc2\x01\x00"\x02\n\x00(\x008\x00'
    b"\x1a\x0c\x08\x00\x10\x00\x18\x00 \x00(\x00"
    b'8\x00\x1a\x00"\x00'
)
# `create service clusterip c1 --tcp=80:8080`
SERVICE = (
    b'k8s\x00\n\r\n\x02v1\x12\x07Service\x12s\n*\n\x02c1\x12\x00\x1a\rgold-u0u0u0-a"\x00*\x002\x008\x00B\x00Z\t\n\x03app'
    b'\x12\x02c1\x12A\n\x1b\n\x0780-8080\x12\x03TCP\x18P"\x07\x08\x00\x10\x90?\x1a\x00(\x00\x12\t\n\x03app\x12\x02c1\x1a\x00"'
    b'\tClusterIP:\x00B\x00R\x00Z\x00`\x00h\x00\x1a\x02\n\x00\x1a\x00"\x00'
)


def test_what_kubectl_sends_for_a_deployment() -> None:
    assert protobuf.decode(DEPLOYMENT) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "gold-u0u0u0-a", "labels": {"app": "web"}},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [
                        {"name": "nginx", "image": "nginx:1.25", "ports": [{"containerPort": 80}], "resources": {}}
                    ]
                },
            },
            "strategy": {},
        },
        "status": {},
    }


def test_what_kubectl_sends_for_a_service() -> None:
    spec = protobuf.decode(SERVICE)["spec"]
    assert spec == {
        "ports": [{"name": "80-8080", "protocol": "TCP", "port": 80, "targetPort": 8080}],
        "selector": {"app": "c1"},
        "type": "ClusterIP",
    }


@pytest.mark.parametrize(
    "obj",
    [
        pytest.param(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": "p",
                    "creationTimestamp": "2026-01-02T03:04:05Z",
                    "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}, "time": "1969-12-31T23:59:59Z"}],
                },
                "spec": {
                    "volumes": [
                        {"name": "a", "emptyDir": {"sizeLimit": "1Gi"}},
                        {"name": "h", "hostPath": {"path": "/", "type": ""}},
                    ],
                    "containers": [
                        {
                            "name": "c",
                            "resources": {"limits": {"cpu": "100m", "memory": "0"}},
                            "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 3},
                            "readinessProbe": {"tcpSocket": {"port": 8080}},
                            "env": [{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}],
                        }
                    ],
                    "terminationGracePeriodSeconds": 0,
                    "automountServiceAccountToken": False,
                    "securityContext": {"supplementalGroups": [1, 2], "runAsUser": 0},
                    "priority": -5,
                },
            },
            id="pod: inlined members, pointers to zero, quantities, negative numbers",
        ),
        pytest.param(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "AAEC", "empty": ""}},
            id="bytes in a map",
        ),
        pytest.param(
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": "l"},
                "spec": {"holderIdentity": "", "renewTime": "2026-01-02T03:04:05.000006Z"},
            },
            id="micro time, empty string that means something",
        ),
        pytest.param(
            {
                "apiVersion": "apps/v1",
                "kind": "ControllerRevision",
                "metadata": {"name": "c"},
                "data": {"spec": {"x": [1, None, "é"]}},
                "revision": 0,
            },
            id="raw extension, required zero",
        ),
        pytest.param(
            {
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": {"name": "x"},
                "spec": {
                    "group": "g",
                    "names": {"plural": "p", "kind": "K"},
                    "scope": "Cluster",
                    "versions": [
                        {
                            "name": "v1",
                            "served": True,
                            "storage": False,
                            "schema": {
                                "openAPIV3Schema": {
                                    "$ref": "#/x",
                                    "type": "object",
                                    "default": {"a": 1},
                                    "enum": [1, "a"],
                                    "maximum": 1.5,
                                    "items": {"type": "string"},
                                    "additionalProperties": False,
                                    "dependencies": {"a": ["b"]},
                                    "properties": {"p": {"additionalProperties": {"type": "string"}}},
                                    "x-kubernetes-preserve-unknown-fields": True,
                                }
                            },
                        }
                    ],
                },
                "status": {"conditions": [], "storedVersions": []},
            },
            id="custom resource: the unions of its schema",
        ),
        pytest.param(
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "SelfSubjectReview",
                "metadata": {},
                "status": {"userInfo": {"username": "u", "extra": {"k": ["a", "b"]}}},
            },
            id="extra values",
        ),
        pytest.param(
            {
                "apiVersion": "v1",
                "kind": "Status",
                "metadata": {},
                "status": "Failure",
                "message": "no",
                "details": {"causes": [{"reason": "r", "message": "m", "field": "f"}]},
                "code": 404,
            },
            id="status",
        ),
        pytest.param(
            {"apiVersion": "policy/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "orphanDependents": False},
            id="delete options of any group",
        ),
    ],
)
def test_round_trip(obj: dict[str, Any]) -> None:
    def present(value: Any) -> Any:
        # Protobuf has no empty lists.
        if isinstance(value, dict):
            return {key: present(item) for key, item in value.items() if item != []}
        return [present(item) for item in value] if isinstance(value, list) else value

    assert protobuf.decode(protobuf.encode(obj)) == present(obj)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(
            b"",
            "the object provided is unrecognized (must be of type ConfigMap): empty data (<empty>)",
            id="empty",
        ),
        pytest.param(b"{}", "does not appear to be a protobuf message", id="json"),
        pytest.param(b"k8s\x00\xff\xff\xff", "unexpected EOF", id="garbage"),
        pytest.param(DEPLOYMENT[:-40], "unexpected EOF", id="cut"),
        pytest.param(b"k8s\x00\n\x0a\n\x02v1\x12\x04Nope", 'no kind "Nope" is registered for version "v1"', id="kind"),
        pytest.param(b"k8s\x00\n\x0f\n\x02v1\x12\tConfigMap\x12\x02\x12\x7f", "unexpected EOF", id="inner length"),
        pytest.param(b"k8s\x00\n\x0f\n\x02v1\x12\tConfigMap\x12\x02\x08\x01", "wrong wireType", id="wire type"),
        pytest.param(b"k8s\x00\n\x0f\n\x02v1\x12\tConfigMap\x12\x01\x0b", "illegal wire type 3", id="group"),
        pytest.param(b"k8s\x00\n\x0f\n\x02v1\x12\tConfigMap\x12\x05\n\x03\n\x01\xff", "codec can't decode", id="utf-8"),
    ],
)
def test_malformed_bodies(body: bytes, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        protobuf.decode(body, "ConfigMap")
    assert message in caught.value.message


def test_unknown_fields_are_skipped() -> None:
    unknown = b"\x9a\x3f\x01x" + b"\x90\x3f\x07" + b"\x91\x3f" + b"\0" * 8 + b"\x95\x3f" + b"\0" * 4
    body = b"k8s\x00\n\x0f\n\x02v1\x12\tConfigMap\x12" + bytes([len(unknown) + 5]) + b"\n\x03\n\x01a" + unknown
    assert protobuf.decode(body)["metadata"] == {"name": "a"}


def test_nesting_is_bounded() -> None:
    name = "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"
    raw = b""
    for _ in range(500):
        raw = b"\xe2\x01" + protobuf._put_varint(len(raw)) + raw
    with pytest.raises(BadRequest, match="nested too deeply"):
        protobuf.decode_message(name, raw)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        pytest.param(0, "0s", id="zero"),
        pytest.param(1_500_000_000, "1.5s", id="fraction"),
        pytest.param(5400 * 10**9, "1h30m0s", id="hours"),
        pytest.param(250 * 10**6, "250ms", id="milliseconds"),
        pytest.param(-90 * 10**9, "-1m30s", id="negative"),
        pytest.param(1500, "1.5µs", id="microseconds"),
    ],
)
def test_durations(nanoseconds: int, text: str) -> None:
    assert protobuf._go_duration(nanoseconds) == text
    assert protobuf._nanoseconds(text) == nanoseconds


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_a_bad_request(raw: bytes) -> None:
    for kind in (b"\x12\tConfigMap", b"\x12\x03Pod", b"\x12\x06Secret"):
        head = b"\n\x02v1" + kind
        body = b"k8s\x00\n" + bytes([len(head)]) + head + b"\x12" + protobuf._put_varint(len(raw)) + raw
        for candidate in (raw, b"k8s\x00" + raw, body):
            try:
                json.dumps(protobuf.decode(candidate))
            except BadRequest as error:
                assert error.code == 400


@settings(max_examples=300)
@given(st.sampled_from([DEPLOYMENT, SERVICE]), st.integers(4, 200), st.binary(min_size=1, max_size=3))
def test_damaged_bodies(body: bytes, at: int, damage: bytes) -> None:
    try:
        json.dumps(protobuf.decode(body[:at] + damage + body[at + len(damage) :]))
    except BadRequest as error:
        assert error.code == 400


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda c: st.lists(c, max_size=2) | st.dictionaries(st.sampled_from(["metadata", "name", "spec", "containers"]), c),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["metadata", "spec", "status", "data"]), _json))
def test_encoding_anything_is_bytes_or_a_bad_request(obj: dict[str, Any]) -> None:
    try:
        assert protobuf.encode({"apiVersion": "v1", "kind": "Pod", **obj}).startswith(protobuf.MAGIC)
    except BadRequest as error:
        assert error.code == 400
