"""ValidatingAdmissionPolicy on a registry with the memory store."""

from __future__ import annotations

import json
from typing import Any

import pytest

from apiserver.admission.policies.expressions import Judge
from apiserver.admission.policies.validating import ValidatingPolicies
from apiserver.auth.attributes import Attributes, Decision
from apiserver.auth.user import UserInfo
from apiserver.registry.context import RequestContext
from machinery.errors import StatusError
from tests.unit.apiserver.admission.conftest import Cluster

Obj = dict[str, Any]
GROUP = "admissionregistration.k8s.io"
RULE = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}


async def a_policy(cluster: Cluster, *validations: Obj, actions: tuple[str, ...] = ("Deny",), **spec: Any) -> None:
    full = {"matchConstraints": {"resourceRules": [RULE]}, "validations": list(validations), **spec}
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
        matchConditions=[{"name": "named", "expression": "object.metadata.name != 'free' && params.data.most != ''"}],
        matchConstraints={
            "resourceRules": [RULE],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "team"}},
        },
    )
    with pytest.raises(StatusError, match="failed to configure binding: no params found for policy binding"):
        await cluster.create("configmaps", a_map("web", a="1"))
    await cluster.create("configmaps", a_map("limits", most="1"), "default")
    await cluster.create("configmaps", a_map("web", a="1"))
    with pytest.raises(StatusError, match="failed expression"):
        await cluster.create("configmaps", a_map("more", a="1", b="2"))
    await cluster.create("configmaps", a_map("free", a="1", b="2"))


async def test_every_denial_is_a_cause_and_configuration_faults_are_told(cluster: Cluster) -> None:
    await a_policy(cluster, {"expression": "object.data.size() <= 1"}, {"expression": "!('b' in object.data)"})
    with pytest.raises(StatusError) as caught:
        await cluster.create("configmaps", a_map("large", a="1", b="2"))
    assert [cause["message"].rpartition("request: ")[2] for cause in caught.value.causes] == [
        "failed expression: object.data.size() <= 1",
        "failed expression: !('b' in object.data)",
    ]


async def test_audit_annotations_are_left_for_the_audit_log(cluster: Cluster) -> None:
    await a_policy(
        cluster,
        {"expression": "object.data.size() <= 1", "message": "too many"},
        actions=("Audit",),
        auditAnnotations=[{"key": "size", "valueExpression": "'has ' + string(object.data.size())"}],
    )
    ctx = RequestContext(UserInfo("tester"))
    store = cluster.registry.resource("", "v1", "configmaps")
    await store.create(ctx, "team", a_map("large", a="1", b="2"))
    assert ctx.annotations["p/size"] == "has 2"
    [failure] = json.loads(ctx.annotations["validation.policy.admission.k8s.io/validation_failure"])
    assert failure == {
        "message": "too many",
        "policy": "p",
        "binding": "b",
        "expressionIndex": 0,
        "validationActions": ["Audit"],
    }


async def test_expressions_ask_about_rights(cluster: Cluster) -> None:
    def authorize(user: UserInfo, asked: Attributes) -> Decision:
        return Decision(
            user.name == "tester" and (asked.verb, asked.resource, asked.name) == ("free", "configmaps", "a")
        )

    judge = Judge(cluster.registry, authorize)
    cluster.registry.admission.append(ValidatingPolicies(cluster.registry, judge))
    await a_policy(
        cluster, {"expression": "authorizer.requestResource.check('free').allowed()"}, failurePolicy="Ignore"
    )
    await cluster.create("configmaps", a_map("a"))
    with pytest.raises(StatusError, match="denied request: failed expression"):
        await cluster.create("configmaps", a_map("b"))
