from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.auth.attributes import Attributes
from apiserver.auth.escalation import missing
from apiserver.auth.policy import default_objects
from apiserver.auth.rbac import RBACAuthorizer, rules_of
from apiserver.auth.user import UserInfo

ALICE = UserInfo("alice", ("dev",))


def asked(
    verb: str, resource: str, *, namespace: str = "", name: str = "", sub: str = "", group: str = ""
) -> Attributes:
    return Attributes(
        verb=verb,
        is_resource=True,
        group=group,
        version="v1",
        resource=resource,
        namespace=namespace,
        name=name,
        subresource=sub,
    )


def role(name: str, *rules: dict[str, Any], namespace: str = "") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}, "rules": list(rules)}


def binding(
    name: str, role_kind: str, role_name: str, *subjects: dict[str, str], namespace: str = ""
) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"kind": role_kind, "name": role_name},
        "subjects": list(subjects),
    }


READ_PODS = {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}
USER = {"kind": "User", "name": "alice"}
GROUP = {"kind": "Group", "name": "dev"}
ACCOUNT = {"kind": "ServiceAccount", "name": "robot", "namespace": "a"}


def authorizer(rule: dict[str, Any], subject: dict[str, str], *, namespace: str = "") -> RBACAuthorizer:
    rbac = RBACAuthorizer()
    if namespace:
        rbac.put("roles", role("r", rule, namespace=namespace))
        rbac.put("rolebindings", binding("b", "Role", "r", subject, namespace=namespace))
    else:
        rbac.put("clusterroles", role("r", rule))
        rbac.put("clusterrolebindings", binding("b", "ClusterRole", "r", subject))
    return rbac


@pytest.mark.parametrize(
    ("rule", "request_", "allowed"),
    [
        pytest.param(READ_PODS, asked("get", "pods", name="x"), True, id="plain"),
        pytest.param(READ_PODS, asked("delete", "pods"), False, id="other-verb"),
        pytest.param(READ_PODS, asked("get", "pods", sub="log"), False, id="subresource-not-implied"),
        pytest.param({**READ_PODS, "resources": ["pods/log"]}, asked("get", "pods", sub="log"), True, id="subresource"),
        pytest.param({**READ_PODS, "resources": ["*/log"]}, asked("get", "pods", sub="log"), True, id="any-with-sub"),
        pytest.param({**READ_PODS, "resources": ["*"]}, asked("get", "pods", sub="log"), True, id="all-resources"),
        pytest.param({**READ_PODS, "verbs": ["*"]}, asked("escalate", "pods"), True, id="all-verbs"),
        pytest.param(READ_PODS, asked("get", "pods", group="apps"), False, id="other-group"),
        pytest.param({**READ_PODS, "apiGroups": ["*"]}, asked("get", "pods", group="apps"), True, id="all-groups"),
        pytest.param({**READ_PODS, "resourceNames": ["x"]}, asked("get", "pods", name="x"), True, id="named"),
        pytest.param({**READ_PODS, "resourceNames": ["x"]}, asked("get", "pods", name="y"), False, id="other-name"),
        pytest.param({**READ_PODS, "resourceNames": ["x"]}, asked("list", "pods"), False, id="named-list"),
    ],
)
def test_rules(rule: dict[str, Any], request_: Attributes, allowed: bool) -> None:
    assert authorizer(rule, USER).decide(ALICE, request_).allowed is allowed


@pytest.mark.parametrize(
    ("path", "asked_path", "allowed"),
    [
        ("/healthz", "/healthz", True),
        ("/extra/*", "/extra/x/y", True),
        ("/extra/*", "/other", False),
        ("*", "/x", True),
    ],
)
def test_paths(path: str, asked_path: str, allowed: bool) -> None:
    rbac = authorizer({"verbs": ["get"], "nonResourceURLs": [path]}, USER)
    assert rbac.decide(ALICE, Attributes(path=asked_path, verb="get")).allowed is allowed


@pytest.mark.parametrize(
    ("subject", "user"),
    [
        pytest.param(USER, ALICE, id="user"),
        pytest.param(GROUP, ALICE, id="group"),
        pytest.param(ACCOUNT, UserInfo("system:serviceaccount:a:robot"), id="service-account"),
    ],
)
def test_subjects(subject: dict[str, str], user: UserInfo) -> None:
    rbac = authorizer(READ_PODS, subject)
    assert rbac.decide(user, asked("get", "pods")).allowed
    assert not rbac.decide(UserInfo("eve"), asked("get", "pods")).allowed


def test_a_role_binding_counts_in_its_namespace_only() -> None:
    rbac = authorizer(READ_PODS, USER, namespace="a")
    assert rbac.decide(ALICE, asked("get", "pods", namespace="a")).allowed
    assert not rbac.decide(ALICE, asked("get", "pods", namespace="b")).allowed
    assert not rbac.decide(ALICE, asked("get", "pods")).allowed
    reason = rbac.decide(ALICE, asked("get", "pods", namespace="a")).reason
    assert reason == 'RBAC: allowed by RoleBinding "b/a" of Role "r" to User "alice"'


def test_every_change_forgets_decisions() -> None:
    rbac = authorizer(READ_PODS, USER)
    request = asked("delete", "pods")
    assert not rbac.decide(ALICE, request).allowed
    rbac.put("clusterroles", role("r", {**READ_PODS, "verbs": ["delete"]}))
    assert rbac.decide(ALICE, request).allowed
    rbac.remove("clusterrolebindings", "", "b")
    assert not rbac.decide(ALICE, request).allowed
    rbac.put("clusterrolebindings", binding("b", "ClusterRole", "r", USER))
    assert rbac.decide(ALICE, request).allowed
    rbac.replace("clusterrolebindings", [])
    assert not rbac.decide(ALICE, request).allowed


def test_the_default_policy() -> None:
    rbac = RBACAuthorizer()
    for plural, _, obj in default_objects():
        rbac.put(plural, obj)
    for name in ("view", "edit", "admin"):
        rbac.put("rolebindings", binding(name, "ClusterRole", name, {"kind": "User", "name": name}, namespace="a"))
    may = {
        "view": {("list", "pods"): True, ("list", "secrets"): False, ("create", "pods"): False},
        "edit": {("list", "pods"): True, ("list", "secrets"): True, ("create", "pods"): True},
        "admin": {("list", "pods"): True, ("list", "secrets"): True, ("create", "pods"): True},
    }
    for name, expected in may.items():
        for (verb, resource), allowed in expected.items():
            assert rbac.decide(UserInfo(name), asked(verb, resource, namespace="a")).allowed is allowed
    roles = asked("create", "roles", namespace="a", group="rbac.authorization.k8s.io")
    assert [rbac.decide(UserInfo(name), roles).allowed for name in may] == [False, False, True]
    scheduler = UserInfo("system:kube-scheduler", ("system:authenticated",))
    assert rbac.decide(scheduler, asked("create", "pods", namespace="x", name="p", sub="binding")).allowed
    assert not rbac.decide(scheduler, asked("create", "pods", namespace="x")).allowed
    anybody = UserInfo("x", ("system:authenticated",))
    assert rbac.decide(anybody, Attributes(path="/openapi/v3", verb="get")).allowed
    assert not rbac.decide(anybody, Attributes(path="/metrics", verb="get")).allowed


words = st.sampled_from(["get", "list", "*", "pods", "secrets", "pods/log", "", "apps"])
any_rule = st.fixed_dictionaries(
    {
        "verbs": st.lists(words, min_size=1, max_size=2),
        "apiGroups": st.lists(words, min_size=1, max_size=2),
        "resources": st.lists(words, min_size=1, max_size=2),
    },
    optional={"resourceNames": st.lists(st.sampled_from("xy"), max_size=2)},
)


@given(st.lists(any_rule, max_size=3), st.lists(any_rule, max_size=3))
def test_whoever_holds_rules_may_grant_them(mine: list[dict[str, Any]], more: list[dict[str, Any]]) -> None:
    held, wanted = rules_of({"rules": mine + more}), rules_of({"rules": mine})
    assert missing(held, wanted) == []


@given(st.lists(any_rule, max_size=3), any_rule, words, words, words)
def test_no_grant_allows_more_than_was_held(
    mine: list[dict[str, Any]], wanted: dict[str, Any], verb: str, group: str, resource: str
) -> None:
    """If granting a rule is allowed, every request that the rule allows was allowed before."""
    held, granted = rules_of({"rules": mine}), rules_of({"rules": [wanted]})
    if missing(held, granted) or "*" in (verb, group, resource) or granted[0].names:
        return
    plain, _, sub = resource.partition("/")
    if granted[0].covers(verb, group, plain, sub):
        assert any(rule.covers(verb, group, plain, sub) and not rule.names for rule in held)
