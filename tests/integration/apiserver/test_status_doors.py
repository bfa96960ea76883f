"""What writes leave alone or put right: metadata in status writes, creation by PUT, owners named twice.

Facts from upstream's integration tests of all API definitions (test/integration/apiserver/apidefinitions).
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.harness.apiserver import RunningApiServer

MERGE = {"content-type": "application/merge-patch+json"}
APPLY = {"content-type": "application/apply-patch+yaml"}
POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
FLOW = "/apis/flowcontrol.apiserver.k8s.io/v1"
CONDITION = {"type": "Mine", "status": "True"}
TOLD = {**CONDITION, "reason": "r", "message": "m", "lastTransitionTime": "2024-01-01T00:00:00Z"}
RULES = [{"apiGroups": ["x"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["y"]}]
POLICY = {"validations": [{"expression": "true"}], "matchConstraints": {"resourceRules": RULES}}
LEVEL = {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}
ATTACHMENT = {"attacher": "a.example.com", "nodeName": "n", "source": {"persistentVolumeName": "v"}}
API = {"group": "doors.example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100}

WIPING = [
    pytest.param("/apis/networking.k8s.io/v1/servicecidrs", {"cidrs": ["10.222.0.0/24"]}, {"conditions": [TOLD]}),
    pytest.param(POLICIES, POLICY, {"conditions": [TOLD]}),
    pytest.param(f"{FLOW}/flowschemas", {"priorityLevelConfiguration": {"name": "x"}}, {"conditions": [CONDITION]}),
    pytest.param(f"{FLOW}/prioritylevelconfigurations", LEVEL, {"conditions": [CONDITION]}),
    pytest.param(
        "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims",
        {"devices": {}},
        {"allocation": {"devices": {}}},
    ),
    pytest.param("/apis/storage.k8s.io/v1/volumeattachments", ATTACHMENT, {"attached": True}),
    pytest.param("/apis/apiregistration.k8s.io/v1/apiservices", API, {"conditions": [CONDITION]}),
]


@pytest.mark.parametrize(("path", "spec", "status"), WIPING)
async def test_a_status_write_leaves_the_metadata(
    apiserver: RunningApiServer, path: str, spec: dict[str, Any], status: dict[str, Any]
) -> None:
    rest = apiserver.rest()
    name = "v1.doors.example.com" if path.endswith("apiservices") else "doors"
    made = await rest.post(path, {"metadata": {"name": name, "labels": {"a": "b"}}, "spec": spec})
    assert made.status == 201, made.json
    try:
        for field, value in (("labels", {"c": "d"}), ("annotations", {"c": "d"}), ("finalizers", ["x.example.com/y"])):
            answer = await rest.request("PATCH", f"{path}/{name}/status", {"metadata": {field: value}}, MERGE)
            assert answer.status == 200, answer.json
            assert answer.json["metadata"].get(field) == made.json["metadata"].get(field)
        meta = {"name": name, "labels": {"e": "f"}}
        body = {"apiVersion": made.json["apiVersion"], "kind": made.json["kind"], "metadata": meta, "status": status}
        applied = await rest.request("PATCH", f"{path}/{name}/status?fieldManager=applier&force=true", body, APPLY)
        assert applied.status == 200, applied.json
        assert applied.json["metadata"]["labels"] == {"a": "b"}
        owned = [each for each in applied.json["metadata"]["managedFields"] if each["manager"] == "applier"]
        assert [list(each["fieldsV1"]) for each in owned] == [["f:status"]]
    finally:
        await rest.request("DELETE", f"{path}/{name}")


async def test_a_runtime_class_can_be_put_where_none_was(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    path = "/apis/node.k8s.io/v1/runtimeclasses/doors"
    answer = await rest.request("PUT", path, {"metadata": {"name": "doors"}, "handler": "h"})
    assert answer.status == 201, answer.json
    assert (await rest.request("DELETE", path)).status == 200


@pytest.mark.parametrize("policy", ["Foreground", "Orphan", "Background"])
@pytest.mark.parametrize("root", ["/api/v1", "/apis/events.k8s.io/v1"])
async def test_nobody_waits_for_dependents_of_events(apiserver: RunningApiServer, root: str, policy: str) -> None:
    rest = apiserver.rest()
    name = f"e-{policy.lower()}-{len(root)}"
    meta = {"name": name, "finalizers": ["x.example.com/y"]}
    event = {"metadata": meta, "involvedObject": {"namespace": "default", "kind": "Pod", "name": "p"}}
    assert (await rest.post("/api/v1/namespaces/default/events", event)).status == 201
    path = f"{root}/namespaces/default/events/{name}"
    assert (await rest.request("DELETE", path, {"propagationPolicy": policy})).status == 200
    assert (await rest.get(path)).json["metadata"]["finalizers"] == ["x.example.com/y"]
    await rest.request("PATCH", path, {"metadata": {"finalizers": None}}, MERGE)


OWNERS = "/api/v1/namespaces/default/configmaps"
TWICE = ".metadata.ownerReferences contains duplicate entries"


async def test_owners_that_are_named_twice_are_kept_once(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    first, second = ({"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": f"uid-{each}"} for each in "ab")
    path = f"{OWNERS}/owned-twice"
    meta = {"name": "owned-twice", "ownerReferences": [first, first]}
    made = await rest.post(OWNERS, {"metadata": meta})
    assert made.status == 201, made.json
    try:
        assert made.json["metadata"]["ownerReferences"] == [first]
        assert f"{TWICE}; " in made.header("warning")
        assert "observed: uid-a" in made.header("warning")
        put = await rest.request("PUT", path, {"metadata": {**meta, "ownerReferences": [first, second, first]}})
        assert put.json["metadata"]["ownerReferences"] == [first, second]
        assert f"{TWICE}; " in put.header("warning")
        added = [{"op": "add", "path": "/metadata/ownerReferences/-", "value": second}]
        patched = await rest.request("PATCH", path, added, {"content-type": "application/json-patch+json"})
        assert patched.json["metadata"]["ownerReferences"] == [first, second]
        assert f"{TWICE} after mutating admission happens; " in patched.header("warning")
        controlled = {**second, "controller": True}
        kept = await rest.request("PUT", path, {"metadata": {**meta, "ownerReferences": [second, controlled]}})
        assert kept.json["metadata"]["ownerReferences"] == [second, controlled]
        assert not kept.header("warning")
    finally:
        await rest.request("DELETE", path)
