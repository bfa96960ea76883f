"""Who may what, over REST: tokens, certificates, service accounts, impersonation, roles, reviews."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.harness.apiserver import USER_TOKEN, RestClient, RunningApiServer, until_status

RBAC = "/apis/rbac.authorization.k8s.io/v1"
AUTHORIZATION = "/apis/authorization.k8s.io/v1"
AUTHENTICATION = "/apis/authentication.k8s.io/v1"
PODS = "/api/v1/namespaces/default/pods"
ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"


async def until_allowed(rest: RestClient, path: str) -> int:
    return await until_status(rest, path, lambda status: status != 403)


def role(name: str, *verbs: str, resources: tuple[str, ...] = ("pods",)) -> dict[str, Any]:
    rule = {"apiGroups": [""], "resources": list(resources), "verbs": list(verbs)}
    return {"kind": "Role", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name}, "rules": [rule]}


def binding(name: str, subject: dict[str, str], role_name: str, kind: str = "Role") -> dict[str, Any]:
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role_name}
    return {
        "kind": "RoleBinding",
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": name},
        "roleRef": reference,
        "subjects": [subject],
    }


ALICE = {"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"}


@pytest.mark.parametrize(
    ("token", "status", "reason"),
    [
        pytest.param("wrong", 401, "Unauthorized", id="wrong-token"),
        pytest.param("", 403, "Forbidden", id="anonymous"),
        pytest.param(USER_TOKEN, 403, "Forbidden", id="no-rights"),
    ],
)
async def test_refusals(apiserver: RunningApiServer, token: str, status: int, reason: str) -> None:
    answer = await apiserver.rest(token).get(PODS)
    assert (answer.status, answer.json["reason"]) == (status, reason)


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz", "/version"])
async def test_anybody_may_see_health_and_version(apiserver: RunningApiServer, path: str) -> None:
    assert (await apiserver.rest("").get(path)).status == 200


async def test_a_certificate_names_user_and_groups(apiserver: RunningApiServer) -> None:
    pair = apiserver.pki.client("carol", "dev", "ops")
    review = {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}
    answer = await apiserver.rest(pair=pair).post(f"{AUTHENTICATION}/selfsubjectreviews", review)
    assert answer.status == 201
    info = answer.json["status"]["userInfo"]
    assert (info["username"], info["groups"]) == ("carol", ["dev", "ops", "system:authenticated"])
    (identity,) = info["extra"]["authentication.kubernetes.io/credential-id"]
    assert identity.startswith("X509SHA256=") and len(identity) == len("X509SHA256=") + 64


async def test_a_binding_gives_and_its_deletion_takes(apiserver: RunningApiServer) -> None:
    admin, alice = apiserver.rest(), apiserver.rest(USER_TOKEN)
    await admin.post(f"{RBAC}/namespaces/default/roles", role("reader", "get", "list"))
    await admin.post(f"{RBAC}/namespaces/default/rolebindings", binding("reader", ALICE, "reader"))
    assert await until_allowed(alice, PODS) == 200
    assert (await alice.get("/api/v1/pods")).status == 403
    assert (await alice.request("DELETE", f"{PODS}/x")).status == 403
    await admin.request("DELETE", f"{RBAC}/namespaces/default/rolebindings/reader")
    assert await until_status(alice, PODS, lambda status: status != 200) == 403


async def test_nobody_grants_what_they_do_not_hold(apiserver: RunningApiServer) -> None:
    admin, alice = apiserver.rest(), apiserver.rest(USER_TOKEN)
    manage = role("granter", "create", "get", resources=("roles", "rolebindings"))
    manage["rules"][0]["apiGroups"] = ["rbac.authorization.k8s.io"]
    manage["rules"].append({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]})
    await admin.post(f"{RBAC}/namespaces/default/roles", manage)
    await admin.post(f"{RBAC}/namespaces/default/rolebindings", binding("granter", ALICE, "granter"))
    assert await until_allowed(alice, f"{PODS}/x") == 404
    refused = await alice.post(f"{RBAC}/namespaces/default/roles", role("up", "get", "delete"))
    assert refused.status == 403
    assert refused.json["message"].endswith('{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}')
    assert (await alice.post(f"{RBAC}/namespaces/default/roles", role("same", "get"))).status == 201
    over = binding("over", ALICE, "cluster-admin", "ClusterRole")
    assert (await alice.post(f"{RBAC}/namespaces/default/rolebindings", over)).status == 403


async def test_aggregated_roles_work_without_a_controller(apiserver: RunningApiServer) -> None:
    viewer = binding("viewer", ALICE, "view", "ClusterRole")
    await apiserver.rest().post(f"{RBAC}/namespaces/default/rolebindings", viewer)
    alice = apiserver.rest(USER_TOKEN)
    assert await until_allowed(alice, PODS) == 200
    assert (await alice.get("/api/v1/namespaces/default/secrets")).status == 403


async def test_impersonation_needs_the_right_and_takes_the_identity(apiserver: RunningApiServer) -> None:
    asked = {"Impersonate-User": "bob", "Impersonate-Group": "team", "Impersonate-Extra-Scope": "s1"}
    refused = await apiserver.rest(USER_TOKEN).request("GET", PODS, headers=asked)
    assert refused.status == 403
    assert 'User "alice" cannot impersonate resource "users"' in refused.json["message"]
    review = {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}
    taken = await apiserver.rest().request("POST", f"{AUTHENTICATION}/selfsubjectreviews", review, asked)
    assert taken.json["status"]["userInfo"] == {
        "username": "bob",
        "groups": ["team", "system:authenticated"],
        "extra": {"scope": ["s1"]},
    }


async def test_a_service_account_token_dies_with_its_account(apiserver: RunningApiServer) -> None:
    admin = apiserver.rest()
    made = await admin.post(ACCOUNTS, {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "robot"}})
    assert made.status == 201
    asked = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {"expirationSeconds": 900}}
    given = await admin.post(f"{ACCOUNTS}/robot/token", asked)
    assert given.status == 201
    token = given.json["status"]["token"]

    review = {"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": {"token": token}}
    seen = (await admin.post(f"{AUTHENTICATION}/tokenreviews", review)).json["status"]
    assert seen["authenticated"] is True
    assert seen["user"]["username"] == "system:serviceaccount:default:robot"
    assert (await apiserver.rest(token).get(PODS)).status == 403  # known, without rights

    await admin.request("DELETE", f"{ACCOUNTS}/robot")
    after = (await admin.post(f"{AUTHENTICATION}/tokenreviews", review)).json["status"]
    assert after == {"user": {}, "error": "invalid bearer token"}


def _bound_to(kind: str) -> dict[str, Any]:
    return {"spec": {"boundObjectRef": {"kind": kind, "apiVersion": "v1", "name": "gone"}}}


@pytest.mark.parametrize(
    ("change", "status", "told"),
    [
        pytest.param({"spec": {"expirationSeconds": 10}}, 422, "less than 10 minutes", id="too-short"),
        pytest.param(_bound_to("Pod"), 404, 'pods "gone" not found', id="no-such-pod"),
        pytest.param(
            _bound_to("Service"), 400, "cannot bind token to object of type /v1, Kind=Service", id="not-bindable"
        ),
        pytest.param({"metadata": {"name": "other"}}, 422, "must match the service account name", id="other-name"),
        pytest.param({"metadata": {"namespace": "other"}}, 400, "does not match the namespace", id="other-namespace"),
        pytest.param({"metadata": {"uid": "other"}}, 409, "does not match the UID of the service", id="other-uid"),
    ],
)
async def test_bad_token_requests(apiserver: RunningApiServer, change: dict[str, Any], status: int, told: str) -> None:
    await apiserver.rest().post(ACCOUNTS, {"metadata": {"name": "robot"}})
    asked = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {}, **change}
    answer = await apiserver.rest().post(f"{ACCOUNTS}/robot/token", asked)
    assert (answer.status, answer.json["kind"]) == (status, "Status")
    assert told in answer.json["message"]


async def test_access_reviews(apiserver: RunningApiServer) -> None:
    attributes = {"namespace": "default", "verb": "list", "resource": "pods"}
    body = {
        "kind": "SubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "spec": {"user": "bob", "resourceAttributes": attributes},
    }
    answer = await apiserver.rest().post(f"{AUTHORIZATION}/subjectaccessreviews", body)
    assert (answer.status, answer.json["status"]) == (201, {"allowed": False})
    mine = {**body, "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": attributes}}
    allowed = await apiserver.rest().post(f"{AUTHORIZATION}/selfsubjectaccessreviews", mine)
    assert allowed.json["status"] == {"allowed": True}


async def test_the_token_issuer_tells_its_keys(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    for path, kind in (
        ("/.well-known/openid-configuration", "application/json"),
        ("/openid/v1/jwks", "application/jwk-set+json"),
    ):
        answer = await rest.get(path)
        assert (answer.headers["content-type"], answer.headers["cache-control"]) == ([kind], ["public, max-age=3600"])
        assert (await apiserver.rest("").get(path)).status == 403
    document = (await rest.get("/.well-known/openid-configuration")).json
    assert document["issuer"] == "https://kubernetes.default.svc.cluster.local"
    keys = (await rest.get("/openid/v1/jwks")).json["keys"]
    assert [key["alg"] for key in keys] == ["ES256"]


async def test_projected_tokens_outlive_their_file_by_a_year(apiserver: RunningApiServer) -> None:
    """Upstream's rule for tokens of 3607 seconds that are bound to a pod; `warnafter` says when they should be new."""
    rest = apiserver.rest()
    await rest.post(ACCOUNTS, {"metadata": {"name": "robot"}})
    spec = {"containers": [{"name": "c", "image": "i"}], "serviceAccountName": "robot"}
    pod = {"metadata": {"name": "web"}, "spec": {**spec, "automountServiceAccountToken": False}}
    assert (await rest.post(PODS, pod)).status == 201

    async def claims(seconds: int, **spec: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        bound = {"apiVersion": "v1", "kind": "Pod", "name": "web"}
        body = {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "spec": {"expirationSeconds": seconds, "boundObjectRef": bound, **spec},
        }
        answer = (await rest.post(f"{ACCOUNTS}/robot/token", body)).json
        middle = answer["status"]["token"].split(".")[1]
        return answer, json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))

    answer, said = await claims(3607)
    assert said["exp"] - said["iat"] == 365 * 24 * 3600
    assert said["kubernetes.io"]["warnafter"] - said["iat"] == 3607
    assert answer["spec"]["expirationSeconds"] == 3607
    for seconds, audiences in ((3600, []), (3607, ["vault"])):
        _, said = await claims(seconds, audiences=audiences)
        assert said["exp"] - said["iat"] == seconds
        assert "warnafter" not in said["kubernetes.io"]


@pytest.mark.parametrize(
    ("selector", "field", "message"),
    [
        pytest.param(
            {"rawSelector": "a=b", "requirements": [{"key": "a", "operator": "Exists"}]},
            "spec.resourceAttributes.fieldSelector.rawSelector",
            "may not specified at the same time as requirements",
            id="both",
        ),
        pytest.param(
            {},
            "spec.resourceAttributes.fieldSelector.requirements",
            "when spec.resourceAttributes.fieldSelector is specified, requirements or rawSelector is required",
            id="neither",
        ),
        pytest.param(
            {"requirements": [{"key": "a", "operator": "In"}]},
            "spec.resourceAttributes.fieldSelector.requirements[0].values",
            "must be specified when `operator` is 'In' or 'NotIn'",
            id="no-values",
        ),
    ],
)
async def test_selectors_of_reviews_are_checked(
    apiserver: RunningApiServer, selector: dict[str, Any], field: str, message: str
) -> None:
    attributes = {"resource": "pods", "verb": "list", "fieldSelector": selector}
    body = {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1"}
    spec = {"resourceAttributes": attributes}
    answer = await apiserver.rest().post(f"{AUTHORIZATION}/selfsubjectaccessreviews", {**body, "spec": spec})
    (cause,) = answer.json["details"]["causes"]
    assert (answer.status, cause["field"]) == (422, field)
    assert cause["message"].endswith(message)


async def test_a_node_is_judged_by_the_selector_of_a_review(apiserver: RunningApiServer) -> None:
    node = {"user": "system:node:n1", "groups": ["system:nodes"]}
    requirement = {"key": "spec.nodeName", "operator": "In", "values": ["n1"]}
    for values, allowed in ((["n1"], True), (["n2"], False)):
        selector = {"requirements": [{**requirement, "values": values}]}
        attributes = {"resource": "pods", "verb": "list", "version": "v1", "fieldSelector": selector}
        body = {"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1"}
        spec = {"resourceAttributes": attributes, **node}
        answer = await apiserver.rest().post(f"{AUTHORIZATION}/subjectaccessreviews", {**body, "spec": spec})
        assert answer.json["status"]["allowed"] is allowed


@pytest.mark.parametrize(
    ("role", "message"),
    [
        pytest.param(
            {"rules": [{"verbs": ["get", "list"], "nonResourceURLs": ["/x"]}]},
            '{NonResourceURLs:["/x"], Verbs:["get"]}\n{NonResourceURLs:["/x"], Verbs:["list"]}',
            id="paths",
        ),
        pytest.param(
            {"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a", "b"]}]},
            '{APIGroups:[""], Resources:["secrets"], ResourceNames:["a"], Verbs:["get"]}\n'
            '{APIGroups:[""], Resources:["secrets"], ResourceNames:["b"], Verbs:["get"]}',
            id="names",
        ),
        pytest.param(
            {"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}},
            "must have cluster-admin privileges to use the aggregationRule",
            id="aggregation",
        ),
    ],
)
async def test_what_refusals_of_escalation_say(apiserver: RunningApiServer, role: dict[str, Any], message: str) -> None:
    admin, alice = apiserver.rest(), apiserver.rest(USER_TOKEN)
    rule = {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["create", "get"]}
    base = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "granter"}}
    await admin.post(f"{RBAC}/clusterroles", {**base, "kind": "ClusterRole", "rules": [rule]})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "granter"}
    bound = {**base, "kind": "ClusterRoleBinding", "roleRef": reference, "subjects": [ALICE]}
    await admin.post(f"{RBAC}/clusterrolebindings", bound)
    assert await until_allowed(alice, f"{RBAC}/clusterroles/granter") == 200
    body = {**base, "kind": "ClusterRole", "metadata": {"name": "up"}, **role}
    refused = await alice.post(f"{RBAC}/clusterroles", body)
    assert refused.status == 403
    assert refused.json["message"].endswith(message)


UNAUTHORIZED = "not found in pod spec volume, system:node:n1 is not authorized to request tokens for this audience"


async def test_a_node_gets_tokens_of_its_own_pods_only(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    for name in ("default", "other"):
        await rest.post(ACCOUNTS, {"metadata": {"name": name}})
    for node in ("n1", "n2"):
        await rest.post("/api/v1/nodes", {"metadata": {"name": node}})
    audience = {"serviceAccountToken": {"path": "t", "audience": "vault"}}
    volumes = [{"name": "v", "projected": {"sources": [audience]}}, {"name": "c", "csi": {"driver": "csi.example.com"}}]
    driver = {"metadata": {"name": "csi.example.com"}, "spec": {"tokenRequests": [{"audience": "store"}]}}
    assert (await rest.post("/apis/storage.k8s.io/v1/csidrivers", driver)).status == 201
    uids = {}
    for name, node in (("here", "n1"), ("there", "n2")):
        spec = {"nodeName": node, "containers": [{"name": "c", "image": "i"}], "volumes": volumes}
        answer = await rest.post(PODS, {"metadata": {"name": name}, "spec": spec})
        assert answer.status == 201, answer.body
        uids[name] = answer.json["metadata"]["uid"]
    as_node = {"impersonate-user": "system:node:n1", "impersonate-group": "system:nodes"}

    async def asked(expected: str, *audiences: str, **reference: str) -> None:
        spec = {"audiences": list(audiences), **({"boundObjectRef": reference} if reference else {})}
        answer = await rest.request("POST", f"{ACCOUNTS}/default/token", {"spec": spec}, as_node)
        if expected:
            assert answer.status == 403, answer.body
            assert expected in answer.json["message"]
        else:
            assert answer.status == 201, answer.body

    here = {"kind": "Pod", "apiVersion": "v1", "name": "here", "uid": uids["here"]}
    await asked("", **here)
    await asked("", "vault", **here)
    await asked("", "store", **here)
    await asked(f'audience "else" {UNAUTHORIZED}', "else", **here)
    await asked("node may only request 0 or 1 audiences", "vault", "store", **here)
    await asked("node requested token not bound to a pod")
    await asked("node requested token not bound to a pod", **{**here, "kind": "Secret"})
    await asked("node requested token with a pod binding without a uid", **{**here, "uid": ""})
    await asked("does not match the UID in record", **{**here, "uid": "x"})
    await asked("bound to a pod scheduled on a different node", **{**here, "name": "there", "uid": uids["there"]})
    rule = {"apiGroups": [""], "resources": ["else"], "verbs": ["request-serviceaccounts-token-audience"]}
    granted = {"metadata": {"name": "else"}, "rules": [rule]}
    assert (await rest.post(f"{RBAC}/namespaces/default/roles", granted)).status == 201
    subject = {"kind": "User", "name": "system:node:n1", "apiGroup": "rbac.authorization.k8s.io"}
    assert (await rest.post(f"{RBAC}/namespaces/default/rolebindings", binding("else", subject, "else"))).status == 201
    await asked("", "else", **here)


async def test_admission_judges_requests_for_tokens(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    await rest.post(ACCOUNTS, {"metadata": {"name": "default"}})
    registration = "/apis/admissionregistration.k8s.io/v1"
    rule = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["serviceaccounts/token"],
    }
    rejected = {"expression": "object.spec.expirationSeconds <= 900", "message": "too long"}
    policy = {"matchConstraints": {"resourceRules": [rule]}, "validations": [rejected]}
    bound = {"policyName": "short", "validationActions": ["Deny"]}
    made = await rest.post(
        f"{registration}/validatingadmissionpolicies", {"metadata": {"name": "short"}, "spec": policy}
    )
    assert made.status == 201, made.body
    path = f"{registration}/validatingadmissionpolicybindings"
    assert (await rest.post(path, {"metadata": {"name": "short"}, "spec": bound})).status == 201
    token = f"{ACCOUNTS}/default/token"
    answer = await rest.post(token, {"spec": {}})  # an hour, unless told
    assert answer.status == 422, answer.body
    assert answer.json["message"].endswith("denied request: too long")
    assert (await rest.post(token, {"spec": {"expirationSeconds": 800}})).status == 201
