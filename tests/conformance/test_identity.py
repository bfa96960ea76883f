"""sig-auth: service accounts, their tokens and issuer, and the reviews of subjects, on a real cluster."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.objects import STAY, container, pod
from tests.harness.api import Api, ApiError, Obj
from tests.harness.nanokube import Cluster, eventually, is_ready

SA = "[sig-auth] ServiceAccounts "
REVIEWS = "/apis/authorization.k8s.io/v1"
TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def account(api: Api, namespace: str, name: str, **fields: Any) -> Obj:
    body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}, **fields}
    return api.of("v1", "serviceaccounts", namespace).create(body)


def running(api: Api, namespace: str, obj: Obj) -> Obj:
    """Create a pod and wait until it is Ready."""
    pods = api.of("v1", "pods", namespace)
    name = pods.create(obj)["metadata"]["name"]
    eventually(lambda: is_ready(pods.get(name)), f"{name} ready")
    return pods.get(name)


def claims(token: str) -> Obj:
    body = token.split(".")[1]
    found: Obj = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return found


def review(api: Api, token: str) -> Obj:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    status: Obj = api.call("POST", TOKEN_REVIEWS, body)["status"]
    return status


@pytest.mark.conformance(SA + "should mount an API token into pods [Conformance]")
def test_pods_get_a_token_the_authority_and_their_namespace(cluster: Cluster, api: Api, namespace: str) -> None:
    account(api, namespace, "mounter")
    running(api, namespace, pod("web", serviceAccountName="mounter"))

    def read(name: str) -> str:
        return cluster.kubectl("exec", "-n", namespace, "web", "--", "cat", f"{MOUNT}/{name}")

    status = review(api, read("token"))
    assert status["authenticated"] is True
    assert status["user"]["username"] == f"system:serviceaccount:{namespace}:mounter"
    assert {"system:serviceaccounts", f"system:serviceaccounts:{namespace}"} <= set(status["user"]["groups"])
    roots = api.of("v1", "configmaps", namespace).get("kube-root-ca.crt")
    assert read("ca.crt") == roots["data"]["ca.crt"]
    assert read("namespace") == namespace


@pytest.mark.conformance(SA + "should allow opting out of API token automount [Conformance]")
@pytest.mark.parametrize("of_account", [None, True, False])
@pytest.mark.parametrize("of_pod", [None, True, False])
def test_a_pods_word_on_tokens_counts_before_its_accounts(
    api: Api, namespace: str, of_account: bool | None, of_pod: bool | None
) -> None:
    wish: Obj = {} if of_account is None else {"automountServiceAccountToken": of_account}
    account(api, namespace, "mounter", **wish)
    more: Obj = {} if of_pod is None else {"automountServiceAccountToken": of_pod}
    made = api.of("v1", "pods", namespace).create(pod("web", serviceAccountName="mounter", **more))
    mounts = [each["mountPath"] for each in made["spec"]["containers"][0].get("volumeMounts") or ()]
    expected = of_pod if of_pod is not None else of_account is not False
    assert (MOUNT in mounts) is expected


@pytest.mark.conformance(SA + "should mount projected service account token [Conformance]")
def test_a_projected_token_is_where_and_what_was_asked(cluster: Cluster, api: Api, namespace: str) -> None:
    source = {"serviceAccountToken": {"path": "test_token", "expirationSeconds": 7200, "audience": "vault"}}
    volume = {"name": "token", "projected": {"defaultMode": 0o440, "sources": [source]}}
    main = container(STAY, volumeMounts=[{"name": "token", "mountPath": "/tokens"}])
    made = running(api, namespace, pod("web", main=main, volumes=[volume]))
    inside = ("exec", "-n", namespace, "web", "--")
    said = claims(cluster.kubectl(*inside, "cat", "/tokens/test_token"))
    assert said["aud"] == ["vault"]
    assert said["exp"] - said["iat"] == 7200
    assert said["kubernetes.io"]["pod"] == {"name": "web", "uid": made["metadata"]["uid"]}
    assert cluster.kubectl(*inside, "stat", "-L", "-c", "%a", "/tokens/test_token").strip() == "440"


@pytest.mark.conformance(SA + "should create a serviceAccountToken and ensure a successful TokenReview [Conformance]")
def test_a_requested_token_is_good(api: Api, namespace: str) -> None:
    made = account(api, namespace, "e2e-sa")
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = api.of("v1", "serviceaccounts", namespace).create(body, "e2e-sa", "token")
    status = review(api, answer["status"]["token"])
    assert (status["authenticated"], status["user"]["uid"]) == (True, made["metadata"]["uid"])
    assert status["user"]["username"] == f"system:serviceaccount:{namespace}:e2e-sa"
    api.of("v1", "serviceaccounts", namespace).delete("e2e-sa")
    eventually(lambda: not review(api, answer["status"]["token"]).get("authenticated"), "the token's end", timeout=20)


@pytest.mark.conformance(SA + "should guarantee kube-root-ca.crt exist in any namespace [Conformance]")
def test_every_namespace_has_the_authority(api: Api, namespace: str) -> None:
    maps = api.of("v1", "configmaps", namespace)

    def present() -> bool:
        try:
            return "BEGIN CERTIFICATE" in maps.get("kube-root-ca.crt")["data"].get("ca.crt", "")
        except ApiError:
            return False

    eventually(present, "the ConfigMap")
    maps.delete("kube-root-ca.crt")
    eventually(present, "the ConfigMap made anew")
    maps.patch("kube-root-ca.crt", {"data": {"ca.crt": ""}})
    eventually(present, "the ConfigMap's content restored")


@pytest.mark.conformance(SA + "should run through the lifecycle of a ServiceAccount [Conformance]")
def test_the_life_of_an_account(api: Api, namespace: str) -> None:
    accounts = api.of("v1", "serviceaccounts", namespace)
    made = account(api, namespace, "testserviceaccount")
    accounts.patch("testserviceaccount", {"metadata": {"labels": {"test-serviceaccount-static": "true"}}})
    everywhere = api.of("v1", "serviceaccounts").list(labelSelector="test-serviceaccount-static=true")
    assert made["metadata"]["uid"] in [each["metadata"]["uid"] for each in everywhere]
    patched = accounts.patch("testserviceaccount", {"automountServiceAccountToken": False}, "strategic")
    assert patched["automountServiceAccountToken"] is False
    accounts.delete_all(labelSelector="test-serviceaccount-static=true")
    eventually(lambda: not accounts.exists("testserviceaccount"), "the account's end")


@pytest.mark.conformance(SA + "should update a ServiceAccount [Conformance]")
def test_an_account_is_updated(api: Api, namespace: str) -> None:
    account(api, namespace, "e2e-sa", automountServiceAccountToken=False)

    def change(obj: Obj) -> None:
        obj["automountServiceAccountToken"] = True

    updated = api.of("v1", "serviceaccounts", namespace).modify("e2e-sa", change)
    assert updated["automountServiceAccountToken"] is True


@pytest.mark.conformance(
    SA + "ServiceAccountIssuerDiscovery should support OIDC discovery of service account issuer [Conformance]"
)
def test_a_pod_can_verify_tokens_by_the_issuers_documents(cluster: Cluster, api: Api, namespace: str) -> None:
    """What upstream's oidc-discovery image does: find the keys with the pod's own token, and verify that token."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    running(api, namespace, pod("web"))
    token = cluster.kubectl("exec", "-n", namespace, "web", "--", "cat", f"{MOUNT}/token")
    fetch = f'wget -q -O- --no-check-certificate --header "Authorization: Bearer $(cat {MOUNT}/token)" '
    host = "https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT"

    def inside(path: str) -> Obj:
        out = cluster.kubectl("exec", "-n", namespace, "web", "--", "sh", "-c", f"{fetch} {host}{path}")
        found: Obj = json.loads(out)
        return found

    document = inside("/.well-known/openid-configuration")
    said = claims(token)
    assert document["issuer"] == said["iss"]
    assert "RS256" in document["id_token_signing_alg_values_supported"]
    header = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
    (key,) = [each for each in inside("/openid/v1/jwks")["keys"] if each["kid"] == header["kid"]]

    def number(text: str) -> int:
        return int.from_bytes(base64.urlsafe_b64decode(text + "=="), "big")

    public = rsa.RSAPublicNumbers(number(key["e"]), number(key["n"])).public_key()
    signed, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    public.verify(raw, signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    assert said["exp"] > time.time()
    assert said["aud"] == [said["iss"]]


@pytest.mark.conformance("[sig-auth] SubjectReview should support SubjectReview API operations [Conformance]")
def test_reviews_of_subjects(api: Api, namespace: str) -> None:
    account(api, namespace, "e2e")
    user = f"system:serviceaccount:{namespace}:e2e"
    attributes = {"group": "apps", "resource": "deployments", "verb": "create", "namespace": namespace, "version": "v1"}

    def ask(kind: str, where: str = "") -> Obj:
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": kind,
            "spec": {"resourceAttributes": attributes, "user": user},
        }
        status: Obj = api.call("POST", f"{REVIEWS}{where}/{kind.lower()}s", body)["status"]
        return status

    asks: list[Callable[[], Obj]] = [
        lambda: ask("SubjectAccessReview"),
        lambda: ask("LocalSubjectAccessReview", f"/namespaces/{namespace}"),
    ]
    assert [each()["allowed"] for each in asks] == [False, False]
    own: Obj = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "editor"}}
    own["roleRef"] = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"}
    own["subjects"] = [{"kind": "ServiceAccount", "name": "e2e", "namespace": namespace}]
    api.of("rbac.authorization.k8s.io/v1", "rolebindings", namespace).create(own)
    eventually(lambda: all(each()["allowed"] for each in asks), "the right of the editor")
