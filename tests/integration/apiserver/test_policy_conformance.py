"""Admission policies over REST, by the behaviours that upstream's conformance tests name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.harness.apiserver import Answer, RestClient, RunningApiServer

Obj = dict[str, Any]
GROUP = "/apis/admissionregistration.k8s.io/v1"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
API = "admissionregistration.k8s.io/v1"
MERGE = {"content-type": "application/merge-patch+json"}
RULE = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["deployments"]}


def conformance(kind: str, *texts: str) -> pytest.MarkDecorator:
    start = f"[sig-api-machinery] {kind}AdmissionPolicy [Privileged:ClusterAdmin] {{}} [Conformance]"
    return pytest.mark.conformance(*(start.format(text) for text in texts))


@pytest.fixture
def rest(apiserver: RunningApiServer) -> RestClient:
    return apiserver.rest()


def a_deployment(name: str, replicas: int, **meta: Any) -> Obj:
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "x"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, **meta}, "spec": spec}


def a_policy(kind: str, name: str = "policy", **spec: Any) -> Obj:
    full = {"matchConstraints": {"resourceRules": [RULE]}, **spec}
    meta = {"name": name, "labels": {"suite": "policies"}}
    return {"apiVersion": API, "kind": f"{kind}AdmissionPolicy", "metadata": meta, "spec": full}


def a_binding(kind: str, name: str = "binding", **spec: Any) -> Obj:
    full = {"policyName": "policy", **({"validationActions": ["Deny"]} if kind == "Validating" else {}), **spec}
    meta = {"name": name, "labels": {"suite": "policies"}}
    return {"apiVersion": API, "kind": f"{kind}AdmissionPolicyBinding", "metadata": meta, "spec": full}


async def enforced(rest: RestClient, kind: str, policy: Obj) -> None:
    for plural, obj in (("policies", policy), ("policybindings", a_binding(kind))):
        answer = await rest.post(f"{GROUP}/{kind.lower()}admission{plural}", obj)
        assert answer.status == 201, answer.body


async def until(ask: Callable[[], Awaitable[Answer]], wanted: Callable[[Answer], bool]) -> Answer:
    async with asyncio.timeout(10):
        while not wanted(answer := await ask()):  # noqa: ASYNC110  caches tell of no event
            await asyncio.sleep(0.005)
    return answer


def tries(rest: RestClient, replicas: int) -> Callable[[], Awaitable[Answer]]:
    numbers = iter(range(1000))
    return lambda: rest.post(DEPLOYMENTS, a_deployment(f"try-{replicas}-{next(numbers)}", replicas))


@conformance("Validating", "should validate against a Deployment", "should allow expressions to refer variables.")
async def test_validating(rest: RestClient) -> None:
    validations = [
        {"expression": "variables.replicas > 1", "messageExpression": "'wants replicas > 1, got ' + variables.oddness"},
        {"expression": "variables.oddness == 'odd'"},
    ]
    variables = [
        {"name": "replicas", "expression": "object.spec.replicas"},
        {"name": "oddness", "expression": "variables.replicas % 2 == 1 ? 'odd' : 'even'"},
    ]
    policy = a_policy("Validating", validations=validations, variables=variables)
    await enforced(rest, "Validating", policy)
    refused = await until(tries(rest, 1), lambda answer: answer.status != 201)
    assert (refused.status, refused.json["reason"]) == (422, "Invalid")
    assert refused.json["message"].endswith(
        "ValidatingAdmissionPolicy 'policy' with binding 'binding' denied request: wants replicas > 1, got odd"
    )
    assert (await rest.post(DEPLOYMENTS, a_deployment("even", 2))).status == 422
    assert (await rest.post(DEPLOYMENTS, a_deployment("good", 3))).status == 201
    scaled = await rest.request("PATCH", f"{DEPLOYMENTS}/good", {"spec": {"replicas": 4}}, MERGE)
    assert scaled.status == 422


@conformance("Mutating", "should mutate a Deployment", "should mutate a Deployment with annotations")
async def test_mutating(rest: RestClient) -> None:
    mutations = [
        {
            "patchType": "ApplyConfiguration",
            "applyConfiguration": {
                "expression": "Object{spec: Object.spec{replicas: object.spec.replicas + 100}}",
            },
        },
        {
            "patchType": "JSONPatch",
            "jsonPatch": {
                "expression": """has(object.metadata.annotations) ? [
                    JSONPatch{op: "add", path: "/metadata/annotations/example.com~1by", value: "policy"}
                ] : [JSONPatch{op: "add", path: "/metadata/annotations", value: {"example.com/by": "policy"}}]"""
            },
        },
    ]
    conditions = [{"name": "small", "expression": "object.spec.replicas < 100"}]
    policy = a_policy("Mutating", mutations=mutations, matchConditions=conditions, reinvocationPolicy="Never")
    await enforced(rest, "Mutating", policy)
    made = await until(tries(rest, 1), lambda answer: answer.json["spec"]["replicas"] > 1)
    assert made.json["spec"]["replicas"] == 101
    assert made.json["metadata"]["annotations"] == {"example.com/by": "policy"}
    kept = await rest.post(DEPLOYMENTS, a_deployment("kept", 2, annotations={"a": "b"}))
    assert kept.json["metadata"]["annotations"] == {"a": "b", "example.com/by": "policy"}
    large = await rest.post(DEPLOYMENTS, a_deployment("large", 200))
    assert large.json["spec"]["replicas"] == 200


MUTATION = {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}}
KINDS = [
    pytest.param(
        "Validating",
        "policies",
        a_policy("Validating", validations=[{"expression": "true"}]),
        marks=conformance("Validating", "should support ValidatingAdmissionPolicy API operations"),
        id="validating policy",
    ),
    pytest.param(
        "Validating",
        "policybindings",
        a_binding("Validating"),
        marks=conformance("Validating", "should support ValidatingAdmissionPolicyBinding API operations"),
        id="validating binding",
    ),
    pytest.param(
        "Mutating",
        "policies",
        a_policy("Mutating", mutations=[MUTATION], reinvocationPolicy="Never"),
        marks=conformance("Mutating", "should support MutatingAdmissionPolicy API operations"),
        id="mutating policy",
    ),
    pytest.param(
        "Mutating",
        "policybindings",
        a_binding("Mutating"),
        marks=conformance("Mutating", "should support MutatingAdmissionPolicyBinding API operations"),
        id="mutating binding",
    ),
]


@pytest.mark.parametrize(("kind", "plural", "obj"), KINDS)
async def test_operations(rest: RestClient, kind: str, plural: str, obj: Obj) -> None:
    """Discovery, create, get, list, watch, patch, update, status, delete, deletecollection."""
    name = f"{kind.lower()}admission{plural}"
    path, selector = f"{GROUP}/{name}", "?labelSelector=suite%3Dpolicies"
    groups = {each["name"]: each for each in (await rest.get("/apis")).json["groups"]}
    assert {"groupVersion": API, "version": "v1"} in groups["admissionregistration.k8s.io"]["versions"]
    assert name in {each["name"] for each in (await rest.get(GROUP)).json["resources"]}
    start = (await rest.get(path)).json["metadata"]["resourceVersion"]
    for number in range(3):
        wanted = {**obj, "metadata": {**obj["metadata"], "name": f"n{number}"}}
        assert (await rest.post(path, wanted)).status == 201
    found = (await rest.get(f"{path}/n0")).json
    assert found["metadata"]["uid"]
    assert len((await rest.get(path + selector)).json["items"]) == 3
    async with rest.watch(f"{path}?watch=1&resourceVersion={start}&labelSelector=suite%3Dpolicies") as events:
        assert [(await anext(events))["type"] for _ in range(3)] == ["ADDED"] * 3
        patched = await rest.request("PATCH", f"{path}/n0", {"metadata": {"annotations": {"patched": "yes"}}}, MERGE)
        assert patched.json["metadata"]["annotations"] == {"patched": "yes"}
        changed = patched.json | {"metadata": {**patched.json["metadata"], "annotations": {"updated": "yes"}}}
        assert (await rest.request("PUT", f"{path}/n0", changed)).status == 200
        assert [(await anext(events))["type"] for _ in range(2)] == ["MODIFIED"] * 2
        if (kind, plural) == ("Validating", "policies"):
            status = f"{path}/n0/status"
            told = {"status": {"conditions": [_condition()]}}
            answer = await rest.request("PATCH", status, told, MERGE)
            assert answer.json["status"]["conditions"][0]["reason"] == "PatchStatus"
            assert (await rest.get(status)).json["status"] == answer.json["status"]
            assert (await anext(events))["object"]["status"] == answer.json["status"]
        assert (await rest.request("DELETE", f"{path}/n0")).status == 200
        assert (await anext(events))["type"] == "DELETED"
    assert (await rest.get(f"{path}/n0")).status == 404
    assert (await rest.request("DELETE", path + selector)).status == 200
    assert (await rest.get(path + selector)).json["items"] == []


def _condition() -> Obj:
    when = {"lastTransitionTime": "2026-01-01T00:00:00Z"}
    return {"type": "PatchStatusFailed", "status": "False", "reason": "PatchStatus", "message": "ok", **when}


@pytest.mark.parametrize(
    ("spec", "field", "why"),
    [
        pytest.param(
            {"validations": [{"expression": "objct.spec"}]}, "spec.validations[0].expression", "undeclared", id="name"
        ),
        pytest.param(
            {"validations": [{"expression": "1"}]}, "spec.validations[0].expression", "must evaluate to bool", id="type"
        ),
        pytest.param(
            {"validations": [{"expression": "true"}], "variables": [{"name": "a-b", "expression": "1"}]},
            "spec.variables[0].name",
            "name is not a valid CEL identifier",
            id="variable",
        ),
        pytest.param(
            {"validations": [{"expression": "true", "messageExpression": "1"}]},
            "spec.validations[0].messageExpression",
            "must evaluate to a string",
            id="message",
        ),
        pytest.param(
            {"validations": [{"expression": "true", "reason": "Because"}]},
            "spec.validations[0].reason",
            "Unsupported value",
            id="reason",
        ),
    ],
)
async def test_bad_policies_are_refused(rest: RestClient, spec: Obj, field: str, why: str) -> None:
    answer = await rest.post(f"{GROUP}/validatingadmissionpolicies", a_policy("Validating", **spec))
    assert answer.status == 422
    [cause] = answer.json["details"]["causes"]
    assert cause["field"] == field
    assert why in cause["message"]
