"""ValidatingAdmissionPolicy on a registry with the memory store."""

from __future__ import annotations

from typing import Any

import pytest

from machinery.errors import StatusError
from tests.unit.apiserver.admission.conftest import Cluster

Obj = dict[str, Any]
GROUP = "admissionregistration.k8s.io"


async def a_policy(cluster: Cluster, *validations: Obj, actions: tuple[str, ...] = ("Deny",), **spec: Any) -> None:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}
    full = {"matchConstraints": {"resourceRules": [rule]}, "validations": list(validations), **spec}
    binding: Obj = {"policyName": "p", "validationActions": list(actions)}
    if "paramKind" in spec:
        binding["paramRef"] = {"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"}
    await cluster.create("validatingadmissionpolicies", {"metadata": {"name": "p"}, "spec": full}, "", group=GROUP)
    obj = {"metadata": {"name": "b"}, "spec": binding}
    await cluster.create("validatingadmissionpolicybindings", obj, "", group=GROUP)


def a_map(name: str, **data: str) -> Obj:
    return {"metadata": {"name": name}, "data": data}


async def test_what_fails_is_denied(cluster: Cluster) -> None:
    await a_policy(cluster, {"expression": "object.data.size() <= 1"})
    await cluster.create("configmaps", a_map("small", a="1"))
    with pytest.raises(StatusError) as caught:
        await cluster.create("configmaps", a_map("large", a="1", b="2"))
    text = "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: failed expression: object.data.size() <= 1"
    assert (caught.value.code, caught.value.reason) == (422, "Invalid")
    assert caught.value.message == f'configmaps "large" is forbidden: {text}'
    assert caught.value.causes == [{"message": text}]
    await cluster.create("secrets", {"metadata": {"name": "large"}})


async def test_variables_messages_and_old_objects(cluster: Cluster) -> None:
    await a_policy(
        cluster,
        {
            "expression": "oldObject == null || variables.after >= variables.before",
            "messageExpression": "'shrank from ' + string(variables.before)",
            "reason": "Forbidden",
        },
        variables=[
            {"name": "after", "expression": "object.data.size()"},
            {"name": "before", "expression": "oldObject.data.size()"},
        ],
    )
    await cluster.create("configmaps", a_map("web", a="1", b="2"))
    with pytest.raises(StatusError, match="denied request: shrank from 2") as caught:
        await cluster.patch("configmaps", "web", {"data": {"a": None}})
    assert caught.value.code == 403


async def test_warnings_refuse_nothing(cluster: Cluster) -> None:
    await a_policy(cluster, {"expression": "false", "message": "never"}, actions=("Warn",))
    await cluster.create("configmaps", a_map("web"))
    assert cluster.warnings == ["Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': never"]


@pytest.mark.parametrize(
    ("policy", "refused"), [pytest.param("Fail", True, id="fail"), pytest.param("Ignore", False, id="ignore")]
)
async def test_expressions_that_fail(cluster: Cluster, policy: str, refused: bool) -> None:
    await a_policy(cluster, {"expression": "object.data.missing == 'x'"}, failurePolicy=policy)
    if not refused:
        assert await cluster.create("configmaps", a_map("web", a="1"))
        return
    with pytest.raises(StatusError, match="no such key: missing"):
        await cluster.create("configmaps", a_map("web", a="1"))


async def test_match_conditions_and_parameters(cluster: Cluster) -> None:
    await a_policy(
        cluster,
        {"expression": "object.data.size() <= int(params.data.most)"},
        paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        matchConditions=[{"name": "team", "expression": "request.namespace == 'team'"}],
    )
    with pytest.raises(StatusError, match="no params found for policy binding"):
        await cluster.create("configmaps", a_map("web", a="1"))
    await cluster.create("configmaps", a_map("limits", most="1"), "default")
    await cluster.create("configmaps", a_map("web", a="1"))
    with pytest.raises(StatusError, match="failed expression"):
        await cluster.create("configmaps", a_map("more", a="1", b="2"))
