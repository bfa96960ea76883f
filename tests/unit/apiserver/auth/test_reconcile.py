"""Default roles and bindings get back what they have lost, and keep what was added to them."""

from __future__ import annotations

from typing import Any

import pytest

from apiserver.auth.policy import default_objects
from apiserver.auth.reconcile import plan

META: dict[str, Any] = {"name": "r", "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}, "annotations": {}}
READ: dict[str, Any] = {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}
ROLE: dict[str, Any] = {"metadata": META, "rules": [READ]}
ALICE, BOB = ({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name} for name in ("alice", "bob"))
REF = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}
BINDING: dict[str, Any] = {"metadata": META, "roleRef": REF, "subjects": [ALICE]}
AGGREGATED: dict[str, Any] = {
    "metadata": META,
    "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]},
}


@pytest.mark.parametrize(
    ("expected", "found", "changed"),
    [
        pytest.param(ROLE, ROLE, None, id="same"),
        pytest.param(ROLE, {**ROLE, "rules": []}, {"rules": [READ]}, id="lost-rule"),
        pytest.param(
            ROLE,
            {**ROLE, "rules": [{**READ, "verbs": ["get", "watch"]}]},
            {"rules": [{**READ, "verbs": ["get", "watch"]}, {**READ, "verbs": ["list"]}]},
            id="lost-verb",
        ),
        pytest.param(ROLE, {**ROLE, "rules": [{**READ, "verbs": ["*"]}]}, None, id="wider-is-enough"),
        pytest.param(ROLE, {**ROLE, "rules": [READ, {**READ, "resources": ["x"]}]}, None, id="extra-rule-stays"),
        pytest.param(
            ROLE,
            {"metadata": {"name": "r", "labels": {"mine": "1"}}, "rules": [READ]},
            {"metadata": {**META, "labels": {"mine": "1", **META["labels"]}}},
            id="lost-label",
        ),
        pytest.param(BINDING, {**BINDING, "subjects": [BOB]}, {"subjects": [BOB, ALICE]}, id="lost-subject"),
        pytest.param(BINDING, {**BINDING, "subjects": [BOB, ALICE]}, None, id="extra-subject-stays"),
        pytest.param(AGGREGATED, {**AGGREGATED, "rules": [READ]}, None, id="gathered-rules-are-not-ours"),
        pytest.param(
            AGGREGATED,
            {"metadata": META, "aggregationRule": None},
            {"aggregationRule": AGGREGATED["aggregationRule"]},
            id="lost-selector",
        ),
    ],
)
def test_plans(expected: dict[str, Any], found: dict[str, Any], changed: dict[str, Any] | None) -> None:
    wanted, anew = plan(expected, found)
    assert not anew
    assert wanted == (None if changed is None else {**found, **changed})


def test_another_role_takes_a_new_binding() -> None:
    other = {**BINDING, "roleRef": {**REF, "name": "other"}, "metadata": {**META, "uid": "u", "resourceVersion": "7"}}
    wanted, anew = plan(BINDING, other)
    assert anew
    assert wanted is not None
    assert (wanted["roleRef"], wanted["subjects"]) == (REF, [ALICE])
    assert not {"uid", "resourceVersion"} & set(wanted["metadata"])


def test_a_user_may_opt_out() -> None:
    annotations = {"rbac.authorization.kubernetes.io/autoupdate": "false"}
    found = {**ROLE, "metadata": {**META, "annotations": annotations}, "rules": []}
    assert plan(ROLE, found) == (None, False)


def test_no_default_differs_from_itself() -> None:
    for _, _, obj in default_objects():
        assert plan(obj, obj) == (None, False), obj["metadata"]["name"]


def test_upstreams_defaults_are_there() -> None:
    names: dict[str, set[str]] = {}
    for plural, namespace, obj in default_objects():
        names.setdefault(plural, set()).add(f"{namespace}/{obj['metadata']['name']}".lstrip("/"))
    assert {
        "admin",
        "edit",
        "view",
        "cluster-admin",
        "system:kube-controller-manager",
        "system:certificates.k8s.io:kubelet-serving-approver",
        "system:controller:job-controller",
        "system:controller:endpointslicemirroring-controller",
    } <= names["clusterroles"]
    assert {"system:controller:job-controller", "system:node", "system:monitoring"} <= names["clusterrolebindings"]
    assert "kube-public/system:controller:bootstrap-signer" in names["roles"]
    assert "kube-system/system:controller:token-cleaner" in names["rolebindings"]
