"""Kinds whose conformance test is a walk through the verbs: one by one, watched, and all at once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.objects import container, template
from tests.harness.api import Api, ApiError, Obj, until
from tests.harness.nanokube import eventually

NODE, NETWORK = "[sig-node] ", "[sig-network] "
DRA = NODE + "[DRA] CRUD Tests resource.k8s.io/v1 "
REQUEST = {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "example.com"}}]}}


def walk(names: list[str], version: str, plural: str, kind: str, *, namespaced: bool = True, **body: Any) -> Any:
    return pytest.param(version, plural, kind, namespaced, body, marks=pytest.mark.conformance(*names), id=plural)


KINDS = [
    walk(
        [NODE + f"PodTemplates should {what} [Conformance]" for what in (
            "delete a collection of pod templates", "replace a pod template", "run the lifecycle of PodTemplates",
        )],
        "v1", "podtemplates", "PodTemplate", template=template({"app": "x"}),
    ),
    walk([NODE + "ConfigMap should run through a ConfigMap lifecycle [Conformance]"], "v1", "configmaps", "ConfigMap", data={"a": "1"}),
    walk([NODE + "Secrets should patch a secret [Conformance]"], "v1", "secrets", "Secret", data={"a": "dmFsdWU="}),
    walk(
        [NODE + "Lease lease API should be available [Conformance]"],
        "coordination.k8s.io/v1", "leases", "Lease",
        spec={"holderIdentity": "me", "leaseDurationSeconds": 30, "leaseTransitions": 0},
    ),
    walk(
        [NODE + "RuntimeClass should support RuntimeClasses API operations [Conformance]"],
        "node.k8s.io/v1", "runtimeclasses", "RuntimeClass", namespaced=False, handler="other",
    ),
    walk(
        [NETWORK + "IngressClass API should support creating IngressClass API operations [Conformance]"],
        "networking.k8s.io/v1", "ingressclasses", "IngressClass", namespaced=False, spec={"controller": "example.com/x"},
    ),
    walk(
        [NETWORK + "Ingress API should support creating Ingress API operations [Conformance]"],
        "networking.k8s.io/v1", "ingresses", "Ingress",
        spec={"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}},
    ),
    walk(
        [NETWORK + "EndpointSlice should support creating EndpointSlice API operations [Conformance]"],
        "discovery.k8s.io/v1", "endpointslices", "EndpointSlice",
        addressType="IPv4", endpoints=[{"addresses": ["10.9.8.7"]}], ports=[{"port": 80}],
    ),
    walk(
        [NETWORK + "Endpoints should test the lifecycle of an Endpoint [Conformance]"],
        "v1", "endpoints", "Endpoints", subsets=[{"addresses": [{"ip": "10.9.8.7"}], "ports": [{"port": 80}]}],
    ),
    walk([DRA + "DeviceClass [Conformance]"], "resource.k8s.io/v1", "deviceclasses", "DeviceClass", namespaced=False, spec={}),
    walk([DRA + "ResourceClaim [Conformance]"], "resource.k8s.io/v1", "resourceclaims", "ResourceClaim", spec=REQUEST),
    walk(
        [DRA + "ResourceClaimTemplate [Conformance]"],
        "resource.k8s.io/v1", "resourceclaimtemplates", "ResourceClaimTemplate", spec={"spec": REQUEST},
    ),
    walk(
        [DRA + "ResourceSlice [Conformance]"],
        "resource.k8s.io/v1", "resourceslices", "ResourceSlice", namespaced=False,
        spec={
            "driver": "example.com", "nodeName": "worker-1", "devices": [{"name": "d"}],
            "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1},
        },
    ),
]  # fmt: skip


def contains(stored: Any, given: Any) -> bool:
    """Whether what was given is stored, beside defaults."""
    if isinstance(given, dict):
        return all(key in stored and contains(stored[key], value) for key, value in given.items())
    if isinstance(given, list):
        return len(stored) == len(given) and all(map(contains, stored, given))
    return bool(stored == given)


@pytest.mark.parametrize(("version", "plural", "kind", "namespaced", "body"), KINDS)
def test_walk_through_the_verbs(
    api: Api, namespace: str, version: str, plural: str, kind: str, namespaced: bool, body: Obj
) -> None:
    group = f"/apis/{version}" if "/" in version else f"/api/{version}"
    found = {each["name"]: each for each in api.call("GET", group)["resources"]}
    verbs = {"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}
    assert verbs <= set(found[plural]["verbs"]) and found[plural]["kind"] == kind

    objects, everywhere = api.of(version, plural, namespace if namespaced else ""), api.of(version, plural)
    label = f"e2e={namespace}"
    one, two, three = (f"{namespace}-{number}" for number in "123")
    since = objects.page()["metadata"]["resourceVersion"]

    def manifest(name: str) -> Obj:
        return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": {"e2e": namespace}}, **body}

    with objects.watch(resourceVersion=since, labelSelector=label) as events:
        for name in (one, two, three):
            made = objects.create(manifest(name))
            assert made["metadata"]["uid"] and until(events, "ADDED")["metadata"]["name"] == name
        for field, value in body.items():
            assert contains(objects.get(one)[field], value)
        assert sorted(everywhere.names(labelSelector=label)) == [one, two, three]

        patched = objects.patch(one, {"metadata": {"annotations": {"patched": "true"}}})
        assert patched["metadata"]["annotations"]["patched"] == "true"
        until(events, "MODIFIED", lambda obj: obj["metadata"].get("annotations", {}).get("patched") == "true")
        objects.modify(one, lambda obj: obj["metadata"]["annotations"].update(updated="true"))
        until(events, "MODIFIED", lambda obj: obj["metadata"]["annotations"].get("updated") == "true")
        with pytest.raises(ApiError) as stale:
            objects.update(patched)
        assert stale.value.reason == "Conflict"

        objects.delete(one)
        assert until(events, "DELETED")["metadata"]["name"] == one
        with pytest.raises(ApiError) as gone:
            objects.get(one)
        assert gone.value.reason == "NotFound"
        objects.delete_all(labelSelector=label)
        assert {until(events, "DELETED")["metadata"]["name"] for _ in range(2)} == {two, three}
    assert everywhere.names(labelSelector=label) == []


@pytest.mark.parametrize(
    ("plural", "kind", "value"),
    [
        pytest.param(
            "configmaps", "ConfigMap", "x",
            marks=pytest.mark.conformance(NODE + "ConfigMap should fail to create ConfigMap with empty key [Conformance]"),
            id="ConfigMap",
        ),
        pytest.param(
            "secrets", "Secret", "eA==",
            marks=pytest.mark.conformance(NODE + "Secrets should fail to create secret due to empty secret key [Conformance]"),
            id="Secret",
        ),
    ],
)  # fmt: skip
def test_empty_keys_are_refused(api: Api, namespace: str, plural: str, kind: str, value: str) -> None:
    objects = api.of("v1", plural, namespace)
    with pytest.raises(ApiError) as refused:
        objects.create({"apiVersion": "v1", "kind": kind, "metadata": {"name": "bad"}, "data": {"": value}})
    assert refused.value.code == 422 and refused.value.reason == "Invalid"


@pytest.mark.conformance(
    NETWORK + "API Server should have Endpoints and EndpointSlices pointing to API Server [Conformance]",
    NETWORK + "API Server should provide secure master service [Conformance]",
)
def test_the_api_servers_own_service(api: Api) -> None:
    (port,) = api.of("v1", "services", "default").get("kubernetes")["spec"]["ports"]
    assert (port["name"], port["port"], port["protocol"]) == ("https", 443, "TCP")
    (subset,) = api.of("v1", "endpoints", "default").get("kubernetes")["subsets"]
    slices = api.of("discovery.k8s.io/v1", "endpointslices", "default")
    (piece,) = slices.list(labelSelector="kubernetes.io/service-name=kubernetes")
    assert [each["ip"] for each in subset["addresses"]] == [a for each in piece["endpoints"] for a in each["addresses"]]
    assert [each["port"] for each in subset["ports"]] == [each["port"] for each in piece["ports"]]


@pytest.mark.conformance(NODE + "Pods should delete a collection of pods [Conformance]")
def test_pods_by_collection(api: Api, namespace: str) -> None:
    pods = api.of("v1", "pods", namespace)
    for number in range(3):
        made = template({"type": "Testing"}, container())
        made["metadata"]["name"] = f"test-pod-{number}"
        pods.create({"apiVersion": "v1", "kind": "Pod", **made})
    assert len(pods.list(labelSelector="type=Testing")) == 3
    pods.delete_all({"gracePeriodSeconds": 0}, labelSelector="type=Testing")
    eventually(lambda: pods.list(labelSelector="type=Testing") == [], "all to go")
