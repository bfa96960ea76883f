"""MutatingAdmissionPolicy on a registry with the memory store."""

from __future__ import annotations

from typing import Any

import pytest

from machinery.errors import StatusError
from tests.unit.apiserver.admission.conftest import Cluster, a_pod

Obj = dict[str, Any]
GROUP = "admissionregistration.k8s.io"


async def a_policy(cluster: Cluster, *mutations: str | Obj, name: str = "m", **spec: Any) -> None:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["*"]}
    made = [
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": each}}
        if isinstance(each, str)
        else each
        for each in mutations
    ]
    constraints = {"resourceRules": [{**rule, "resources": ["configmaps", "pods"]}]}
    full = {"matchConstraints": constraints, "mutations": made, "reinvocationPolicy": "Never", **spec}
    await cluster.create("mutatingadmissionpolicies", {"metadata": {"name": name}, "spec": full}, "", group=GROUP)
    binding: Obj = {"policyName": name}
    if "paramKind" in spec:
        binding["paramRef"] = {"name": "values", "parameterNotFoundAction": "Allow"}
    obj = {"metadata": {"name": f"b-{name}"}, "spec": binding}
    await cluster.create("mutatingadmissionpolicybindings", obj, "", group=GROUP)


def patch(expression: str) -> Obj:
    return {"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}


async def test_apply_configurations_are_merged_by_the_schema(cluster: Cluster) -> None:
    await a_policy(
        cluster,
        """Object{
            metadata: Object.metadata{labels: {"by": "policy"}},
            spec: Object.spec{containers: [Object.spec.containers{name: "side", image: "envoy"}]}
        }""",
        matchConditions=[{"name": "pods", "expression": "request.kind.kind == 'Pod'"}],
    )
    made = await cluster.create("pods", a_pod("web", {"name": "app"}))
    assert made["metadata"]["labels"] == {"by": "policy"}
    assert {item["name"]: item["image"] for item in made["spec"]["containers"]} == {"app": "nginx", "side": "envoy"}
    assert made["spec"]["containers"][1]["terminationMessagePath"] == "/dev/termination-log"  # defaulted
    assert "labels" not in (await cluster.create("configmaps", {"metadata": {"name": "other"}}))["metadata"]


async def test_json_patches_and_escaped_keys(cluster: Cluster) -> None:
    await a_policy(
        cluster,
        patch(
            """[
            JSONPatch{op: "add", path: "/metadata/labels", value: {}},
            JSONPatch{op: "add", path: "/metadata/labels/" + jsonpatch.escapeKey("example.com/env"), value: "test"},
            ]"""
        ),
        patch("""[JSONPatch{op: "test", path: "/data/a", value: "no"}, JSONPatch{op: "remove", path: "/data/a"}]"""),
        patch("""[JSONPatch{op: "copy", from: "/data/a", path: "/data/b"}]"""),
    )
    made = await cluster.create("configmaps", {"metadata": {"name": "c"}, "data": {"a": "1"}})
    assert made["metadata"]["labels"] == {"example.com/env": "test"}
    assert made["data"] == {"a": "1", "b": "1"}  # the second patch failed its own test


async def test_variables_and_parameters(cluster: Cluster) -> None:
    await cluster.create("configmaps", {"metadata": {"name": "values"}, "data": {"team": "blue"}})
    await a_policy(
        cluster,
        "Object{metadata: Object.metadata{annotations: {'team': variables.team, 'had': variables.had}}}",
        paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        variables=[
            {"name": "team", "expression": "params.data.team"},
            {"name": "had", "expression": "string(has(object.metadata.annotations))"},
        ],
    )
    made = await cluster.create("configmaps", {"metadata": {"name": "c"}})
    assert made["metadata"]["annotations"] == {"team": "blue", "had": "false"}
    changed = await cluster.patch("configmaps", "c", {"data": {"x": "y"}})
    assert changed["metadata"]["annotations"]["had"] == "true"


@pytest.mark.parametrize(
    ("mutation", "why"),
    [
        pytest.param("Object{metadata: 1/0}", "expression 'Object{metadata: 1/0}' resulted in error: ", id="fails"),
        pytest.param(
            "Object{spec: Object.spec{containers: [Object.spec.containers{name: 'c0', command: ['x']}]}}",
            "may not mutate atomic arrays, maps or structs: .spec.containers[0].command",
            id="an atomic list",
        ),
        pytest.param(patch("[JSONPatch{op: 'remove', path: '/nothing'}]"), "JSONPath: ", id="a patch that fails"),
        pytest.param(patch("'x'"), "should evaluate to array of JSONPatch", id="no patch"),
        pytest.param("'x'", "unsupported return type from ApplyConfiguration expression", id="no object"),
    ],
)
async def test_failures_deny_unless_they_are_ignored(cluster: Cluster, mutation: Any, why: str) -> None:
    await a_policy(cluster, mutation)
    with pytest.raises(StatusError) as caught:
        await cluster.create("pods", a_pod("web"))
    assert caught.value.message.startswith("policy 'm' with binding 'b-m' denied request: ")
    assert why in caught.value.message
    assert (caught.value.code, caught.value.reason) == (403, "Invalid")
    await a_policy(cluster, mutation, name="n", failurePolicy="Ignore")
    store = cluster.registry.resource(GROUP, "v1", "mutatingadmissionpolicybindings")
    from apiserver.auth.user import UserInfo
    from apiserver.registry.store import DeleteOptions, RequestContext

    await store.delete(RequestContext(UserInfo("tester")), "", "b-m", DeleteOptions())
    await store.sync()
    await cluster.create("pods", a_pod("web"))


async def test_policies_that_ask_for_it_see_what_later_ones_have_made(cluster: Cluster) -> None:
    copies = "Object{data: {'seen': string(has(object.metadata.labels))}}"
    await a_policy(cluster, copies, name="a", reinvocationPolicy="IfNeeded")
    await a_policy(cluster, copies.replace("seen", "once"), name="b")
    await a_policy(cluster, "Object{metadata: Object.metadata{labels: {'late': 'yes'}}}", name="c")
    made = await cluster.create("configmaps", {"metadata": {"name": "c"}, "data": {"x": "y"}})
    assert made["data"] == {"x": "y", "seen": "true", "once": "false"}
