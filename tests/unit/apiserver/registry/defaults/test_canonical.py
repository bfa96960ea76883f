"""The canonical form: what vanishes, what stays, how quantities are written."""

from __future__ import annotations

from typing import Any

import pytest

from apiserver.registry.defaults.canonical import canonical_quantity, canonicalize, plan_for

Obj = dict[str, Any]


def canonical(obj: Obj, kind: str = "Pod", group: str = "", version: str = "v1") -> Obj:
    plan = plan_for(group, version, kind)
    assert plan is not None
    canonicalize(obj, plan)
    return obj


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        pytest.param({"nodeName": None, "hostname": ""}, {}, id="null-and-empty-text"),
        pytest.param({"hostNetwork": False, "hostPID": True}, {"hostPID": True}, id="plain-booleans"),
        pytest.param({"automountServiceAccountToken": False}, {"automountServiceAccountToken": False}, id="pointer"),
        pytest.param({"priority": 0, "tolerations": []}, {"priority": 0}, id="pointer-zero-and-empty-list"),
        pytest.param({"securityContext": {}}, {"securityContext": {}}, id="empty-struct"),
        pytest.param({"nodeSelector": {}}, {}, id="empty-map"),
        pytest.param({"tolerations": [None]}, {"tolerations": [{}]}, id="null-in-a-list-is-a-zero-value"),
        pytest.param({"dnsConfig": {"searches": ["a", None]}}, {"dnsConfig": {"searches": ["a", ""]}}, id="null-text"),
        pytest.param({"runtimeClassName": ""}, {"runtimeClassName": ""}, id="pointer-text"),
        pytest.param({"containers": []}, {"containers": []}, id="required-list"),
        pytest.param(
            {
                "containers": [
                    {"name": "a", "stdin": False, "resources": {"requests": {"cpu": 0.5, "memory": "1024Mi"}}}
                ]
            },
            {"containers": [{"name": "a", "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}}]},
            id="deep",
        ),
    ],
)
def test_pod_spec(spec: Obj, wanted: Obj) -> None:
    assert canonical({"metadata": {"name": "x", "labels": {}}, "spec": spec}) == {
        "metadata": {"name": "x"},
        "spec": wanted,
    }


def test_replicas_zero_stays_and_minimum_zero_goes() -> None:
    obj = canonical({"spec": {"replicas": 0, "minReadySeconds": 0, "paused": False}}, "Deployment", "apps")
    assert obj == {"spec": {"replicas": 0}}


def test_a_null_in_a_map_of_texts_is_an_empty_text() -> None:
    assert canonical({"data": {"a": None, "b": "c"}}, "ConfigMap") == {"data": {"a": "", "b": "c"}}


def test_the_same_name_in_two_groups_has_two_plans() -> None:
    core = canonical({"subsets": [{"ports": [{"name": "", "port": 80}]}]}, "Endpoints")
    assert core == {"subsets": [{"ports": [{"port": 80}]}]}
    sliced = canonical({"ports": [{"name": "", "port": 80}]}, "EndpointSlice", "discovery.k8s.io")
    assert sliced == {"ports": [{"name": "", "port": 80}]}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        pytest.param("1000m", "1", id="milli"),
        pytest.param(2, "2", id="integer"),
        pytest.param(0.1, "100m", id="float"),
        pytest.param("64Mi", "64Mi", id="binary"),
        pytest.param("nonsense", "nonsense", id="left-to-validation"),
        pytest.param(True, True, id="boolean"),
    ],
)
def test_quantities(given: object, wanted: object) -> None:
    assert canonical_quantity(given) == wanted
