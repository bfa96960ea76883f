"""Who machines and programs are: certificate requests, bootstrap tokens, lasting tokens of service accounts.

Real API server and controllers in this process; the client is REST, as a user's.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from api import resources
from api.models import core_v1
from client.client import Client
from controller_manager.app import ControllerManager
from controller_manager.environment import Options
from controller_manager.tokens.legacy import LegacyTokenCleaner
from machinery.clock import RealClock
from machinery.tls import KeyPair
from tests.harness.apiserver import Answer, RestClient, RunningApiServer, running_apiserver, shared_pki
from tests.integration.controller_manager.hollow import eventually, running_cluster

CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
SECRETS = "/api/v1/namespaces/{}/secrets"
MERGE = {"content-type": "application/merge-patch+json"}
NAMES = [
    "certificatesigningrequest-approving-controller",
    "certificatesigningrequest-signing-controller",
    "certificatesigningrequest-cleaner-controller",
    "bootstrap-signer-controller",
    "token-cleaner-controller",
    "serviceaccount-token-controller",
    "clusterrole-aggregation-controller",
]


@dataclass
class Site:
    server: RunningApiServer
    admin: RestClient


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    pki = shared_pki()
    options = Options(
        root_ca=pki.ca.read_text(),
        signing_cert=pki.ca.read_text(),
        signing_key=(pki.folder / "ca.key").read_text(),
        service_account_key=pki.service_account_key,
    )
    async with running_apiserver() as server:
        client = Client.connect(server.grpc_target, server.admin_tls, field_manager="kube-controller-manager")
        manager = ControllerManager(client, RealClock(), options, NAMES)
        task = asyncio.ensure_future(manager.run())
        try:
            yield Site(server, server.rest())
        finally:
            assert not task.done(), task.result()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await client.close()


def request(
    name: str,
    signer: str = "kubernetes.io/kube-apiserver-client",
    *,
    common_name: str = "alice",
    organizations: tuple[str, ...] = ("dev",),
    usages: tuple[str, ...] = ("client auth", "digital signature"),
    **spec: Any,
) -> tuple[dict[str, Any], bytes]:
    """(object, private key) of a request."""
    key = ec.generate_private_key(ec.SECP256R1())
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, each) for each in organizations]
    subject = x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    pem = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    encoded = base64.b64encode(pem.public_bytes(serialization.Encoding.PEM)).decode()
    body = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {"request": encoded, "signerName": signer, "usages": list(usages), **spec},
    }
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return body, private


async def approve(admin: RestClient, name: str, kind: str = "Approved") -> Answer:
    """As `kubectl certificate approve` (or deny) does it."""
    found = (await admin.get(f"{CSRS}/{name}")).json
    condition = {"type": kind, "status": "True", "reason": f"Kubectl{kind}", "message": "by hand"}
    found.setdefault("status", {}).setdefault("conditions", []).append(condition)
    return await admin.request("PUT", f"{CSRS}/{name}/approval", found)


async def issued(admin: RestClient, name: str) -> x509.Certificate:
    async def look() -> Any:
        return (await admin.get(f"{CSRS}/{name}")).json["status"].get("certificate")

    return x509.load_pem_x509_certificate(base64.b64decode(await eventually(look, f"certificate of {name}")))


async def condition(admin: RestClient, name: str, kind: str) -> dict[str, Any]:
    async def look() -> Any:
        conditions = (await admin.get(f"{CSRS}/{name}")).json["status"].get("conditions") or []
        return next((each for each in conditions if each["type"] == kind), None)

    found: dict[str, Any] = await eventually(look, f"{kind} of {name}")
    return found


async def test_an_approved_request_becomes_a_certificate_that_works(site: Site) -> None:
    body, key = request("alice", expirationSeconds=3600)
    assert (await site.admin.post(CSRS, body)).status == 201
    assert (await approve(site.admin, "alice")).status == 200
    certificate = await issued(site.admin, "alice")
    life = certificate.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(minutes=50) < life < timedelta(minutes=61)
    folder = site.server.pki.folder
    cert_path, key_path = folder / "csr-alice.crt", folder / "csr-alice.key"
    cert_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(key)
    mine = site.server.rest(pair=KeyPair(site.server.ca, cert_path, key_path))
    review = {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}
    answer = await mine.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
    assert answer.json["status"]["userInfo"]["username"] == "alice"
    assert answer.json["status"]["userInfo"]["groups"] == ["dev", "system:authenticated"]


@pytest.mark.parametrize(
    ("signer", "changes", "message"),
    [
        pytest.param(
            "kubernetes.io/kube-apiserver-client",
            {"usages": ("client auth", "server auth")},
            "invalid usage for client certificate: server auth",
            id="client-usage",
        ),
        pytest.param(
            "kubernetes.io/kube-apiserver-client-kubelet",
            {},
            "subject organization is not system:nodes",
            id="kubelet-organization",
        ),
        pytest.param(
            "kubernetes.io/kubelet-serving",
            {"organizations": ("system:nodes",), "common_name": "system:node:n1"},
            "DNS or IP subjectAltName is required",
            id="serving-names",
        ),
    ],
)
async def test_what_a_signer_does_not_grant_fails(
    site: Site, signer: str, changes: dict[str, Any], message: str
) -> None:
    body, _ = request("bad", signer, **changes)
    await site.admin.post(CSRS, body)
    await approve(site.admin, "bad")
    failed = await condition(site.admin, "bad", "Failed")
    assert (failed["reason"], failed["message"]) == ("SignerValidationFailure", message)
    assert "certificate" not in (await site.admin.get(f"{CSRS}/bad")).json["status"]


async def test_denied_and_foreign_requests_are_not_signed(site: Site) -> None:
    denied, _ = request("denied")
    foreign, _ = request("foreign", "example.com/mine")
    proof, _ = request("proof")
    for body in (denied, foreign, proof):
        await site.admin.post(CSRS, body)
    await approve(site.admin, "denied", "Denied")
    await approve(site.admin, "foreign")
    await approve(site.admin, "proof")
    await issued(site.admin, "proof")
    for name in ("denied", "foreign"):
        assert "certificate" not in (await site.admin.get(f"{CSRS}/{name}")).json["status"]


async def test_masters_are_not_made_by_request(site: Site) -> None:
    body, _ = request("root", organizations=("system:masters",))
    refused = await site.admin.post(CSRS, body)
    assert refused.status == 403
    assert refused.json["message"].endswith(
        "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
    )


async def test_approving_needs_the_right_to_the_signer(site: Site) -> None:
    rule = {
        "apiGroups": ["certificates.k8s.io"],
        "resources": ["certificatesigningrequests", "certificatesigningrequests/approval"],
        "verbs": ["get", "update"],
    }
    await grant(site.admin, "approver", [rule], "alice")
    body, _ = request("mine")
    await site.admin.post(CSRS, body)
    alice = site.server.rest("user-token")

    async def refused() -> Any:
        answer = await approve(alice, "mine")
        return answer.status == 403 and "not permitted" in answer.json["message"]

    await eventually(refused, "refusal by the signer's name")
    signers = {"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "verbs": ["approve"]}
    await grant(site.admin, "signers", [{**signers, "resourceNames": ["kubernetes.io/*"]}], "alice")

    async def approved() -> bool:
        return (await approve(alice, "mine")).status == 200

    await eventually(approved, "approval by alice")


async def grant(admin: RestClient, name: str, rules: list[dict[str, Any]], user: str) -> None:
    """A ClusterRole and its binding to a user."""
    group = "rbac.authorization.k8s.io"
    base = {"apiVersion": f"{group}/v1", "metadata": {"name": name}}
    await admin.post(f"/apis/{group}/v1/clusterroles", {**base, "kind": "ClusterRole", "rules": rules})
    reference = {"apiGroup": group, "kind": "ClusterRole", "name": name}
    subject = {"apiGroup": group, "kind": "User", "name": user}
    binding = {**base, "kind": "ClusterRoleBinding", "roleRef": reference, "subjects": [subject]}
    await admin.post(f"/apis/{group}/v1/clusterrolebindings", binding)


# bootstrap tokens


def token_secret(identity: str = "abcdef", **data: str) -> dict[str, Any]:
    text = {
        "token-id": identity,
        "token-secret": "0123456789abcdef",
        "usage-bootstrap-authentication": "true",
        "usage-bootstrap-signing": "true",
        **data,
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"bootstrap-token-{identity}", "namespace": "kube-system"},
        "type": "bootstrap.kubernetes.io/token",
        "stringData": text,
    }


async def whoami(rest: RestClient) -> Answer:
    review = {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}
    return await rest.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", review)


async def test_a_bootstrap_token_makes_a_bootstrapper(site: Site) -> None:
    groups = "system:bootstrappers:kubeadm:default-node-token"
    await site.admin.post(SECRETS.format("kube-system"), token_secret(**{"auth-extra-groups": groups}))
    answer = await whoami(site.server.rest("abcdef.0123456789abcdef"))
    assert answer.json["status"]["userInfo"] == {
        "username": "system:bootstrap:abcdef",
        "groups": ["system:bootstrappers", groups, "system:authenticated"],
    }
    assert (await whoami(site.server.rest("abcdef.0123456789abcdee"))).status == 401
    assert (await whoami(site.server.rest("ghijkl.0123456789abcdef"))).status == 401


@pytest.mark.parametrize(
    "data",
    [
        pytest.param({"usage-bootstrap-authentication": "false"}, id="not-for-this"),
        pytest.param({"expiration": "2020-01-01T00:00:00Z"}, id="expired"),
        pytest.param({"expiration": "soon"}, id="bad-expiration"),
        pytest.param({"auth-extra-groups": "system:masters"}, id="bad-group"),
    ],
)
async def test_bootstrap_tokens_that_do_not_count(site: Site, data: dict[str, str]) -> None:
    await site.admin.post(SECRETS.format("kube-system"), token_secret(**data))
    assert (await whoami(site.server.rest("abcdef.0123456789abcdef"))).status == 401


async def test_expired_bootstrap_tokens_are_deleted(site: Site) -> None:
    await site.admin.post(SECRETS.format("kube-system"), token_secret(expiration="2020-01-01T00:00:00Z"))

    async def gone() -> bool:
        return (await site.admin.get(SECRETS.format("kube-system") + "/bootstrap-token-abcdef")).status == 404

    await eventually(gone, "removal of the expired token")


async def test_cluster_info_is_signed_with_every_token(site: Site) -> None:
    path = "/api/v1/namespaces/kube-public/configmaps"
    info = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cluster-info"}, "data": {"kubeconfig": "k"}}
    await site.admin.post(path, info)
    await site.admin.post(SECRETS.format("kube-system"), token_secret())

    async def signature() -> Any:
        return (await site.admin.get(f"{path}/cluster-info")).json["data"].get("jws-kubeconfig-abcdef")

    first = await eventually(signature, "signature")
    header, middle, _ = first.split(".")
    assert json.loads(base64.urlsafe_b64decode(header + "==")) == {"alg": "HS256", "kid": "abcdef"}
    assert middle == ""
    await site.admin.request("PATCH", f"{path}/cluster-info", {"data": {"kubeconfig": "other"}}, MERGE)

    async def changed() -> bool:
        return await signature() not in (None, first)

    await eventually(changed, "a signature of the new content")
    await site.admin.request("DELETE", SECRETS.format("kube-system") + "/bootstrap-token-abcdef")

    async def gone() -> bool:
        return await signature() is None

    await eventually(gone, "removal of the signature")


async def test_a_node_joins_by_token_and_request(site: Site) -> None:
    """The whole way of a kubelet without a certificate: token, request, automatic approval, certificate."""
    group = "system:bootstrappers:nodes"
    await site.admin.post(SECRETS.format("kube-system"), token_secret(**{"auth-extra-groups": group}))
    base = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}
    csrs = "system:certificates.k8s.io:certificatesigningrequests"
    for name, role in (("create", "system:node-bootstrapper"), ("approve", f"{csrs}:nodeclient")):
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
        body = {**base, "metadata": {"name": name}, "subjects": [subject], "roleRef": reference}
        await site.admin.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", body)
    wish, _ = request(
        "node-1",
        "kubernetes.io/kube-apiserver-client-kubelet",
        common_name="system:node:n1",
        organizations=("system:nodes",),
    )
    joiner = site.server.rest("abcdef.0123456789abcdef")

    async def sent() -> bool:
        return (await joiner.post(CSRS, wish)).status == 201

    await eventually(sent, "the right of bootstrappers to send requests")
    approved = await condition(site.admin, "node-1", "Approved")
    assert approved["message"] == "Auto approving kubelet client certificate after SubjectAccessReview."
    subject_name = (await issued(site.admin, "node-1")).subject.rfc4514_string()
    assert "system:node:n1" in subject_name


# lasting tokens of service accounts

ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"


async def lasting_token(site: Site) -> str:
    await site.admin.post(ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}})
    meta = {"name": "robot-token", "annotations": {"kubernetes.io/service-account.name": "robot"}}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": "kubernetes.io/service-account-token"}
    assert (await site.admin.post(SECRETS.format("default"), body)).status == 201

    async def look() -> Any:
        return (await site.admin.get(SECRETS.format("default") + "/robot-token")).json.get("data")

    data = await eventually(look, "a filled secret")
    assert base64.b64decode(data["namespace"]) == b"default"
    assert base64.b64decode(data["ca.crt"]).startswith(b"-----BEGIN CERTIFICATE-----")
    return base64.b64decode(data["token"]).decode()


async def test_a_lasting_token_is_its_account_and_its_use_is_noted(site: Site) -> None:
    token = await lasting_token(site)
    info = (await whoami(site.server.rest(token))).json["status"]["userInfo"]
    assert info["username"] == "system:serviceaccount:default:robot"
    assert info["groups"] == ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]
    labels = (await site.admin.get(SECRETS.format("default") + "/robot-token")).json["metadata"]["labels"]
    assert labels == {"kubernetes.io/legacy-token-last-used": f"{datetime.now(UTC):%Y-%m-%d}"}
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    answer = await site.admin.post("/apis/authentication.k8s.io/v1/tokenreviews", review)
    assert answer.json["status"]["authenticated"] is True


async def test_a_lasting_token_ends_with_its_secret(site: Site) -> None:
    token = await lasting_token(site)
    await site.admin.request("DELETE", SECRETS.format("default") + "/robot-token")
    assert (await whoami(site.server.rest(token))).status == 401


async def test_a_lasting_token_that_was_marked_is_refused(site: Site) -> None:
    token = await lasting_token(site)
    mark = {"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": "2026-01-01"}}}
    path = SECRETS.format("default") + "/robot-token"
    assert (await site.admin.request("PATCH", path, mark, MERGE)).status == 200
    assert (await whoami(site.server.rest(token))).status == 401
    unmark = {"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": None}}}
    assert (await site.admin.request("PATCH", path, unmark, MERGE)).status == 200
    assert (await whoami(site.server.rest(token))).status == 201


class YearsLater(RealClock):
    years = 0

    def now(self) -> datetime:
        return super().now() + timedelta(days=370 * self.years)


async def test_a_token_that_nobody_uses_is_marked_and_a_year_later_deleted() -> None:
    async with running_cluster(controllers=["serviceaccount-token-controller"]) as cluster:
        client, clock = cluster.client, YearsLater()
        cleaner = LegacyTokenCleaner(dataclasses.replace(cluster.manager.environment, clock=clock))
        secrets = resources.of(core_v1.Secret)
        for name in ("made-for-it", "made-by-hand"):
            account: dict[str, Any] = {"apiVersion": "v1", "kind": "ServiceAccount"}
            account["metadata"] = {"name": name, "namespace": "default"}
            if name == "made-for-it":
                account["secrets"] = [{"name": name}]
            made = await client.create(account)
            notes = {"kubernetes.io/service-account.name": name}
            notes["kubernetes.io/service-account.uid"] = made["metadata"]["uid"]
            meta = {"name": name, "namespace": "default", "annotations": notes}
            type_ = "kubernetes.io/service-account-token"
            await client.create({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": type_})

        async def marked(name: str) -> bool:
            await cleaner.clean()
            labels = (await client.get(secrets, name, "default"))["metadata"].get("labels") or {}
            return "kubernetes.io/legacy-token-invalid-since" in labels

        async def gone() -> bool:
            await cleaner.clean()
            return [each["metadata"]["name"] for each in (await client.list(secrets, "default")).items] == [
                "made-by-hand"
            ]

        assert not await marked("made-for-it")
        clock.years = 1
        await eventually(lambda: marked("made-for-it"), "the mark")
        clock.years = 3
        await eventually(gone, "the end of the token")
        assert not await marked("made-by-hand")


async def test_a_secret_ends_with_its_account(site: Site) -> None:
    token = await lasting_token(site)
    await site.admin.request("DELETE", f"{ACCOUNTS}/robot")

    async def gone() -> bool:
        return (await site.admin.get(SECRETS.format("default") + "/robot-token")).status == 404

    await eventually(gone, "removal of the secret")
    assert (await whoami(site.server.rest(token))).status == 401


async def test_aggregated_roles_are_filled_and_follow_their_parts(site: Site) -> None:
    path = "/apis/rbac.authorization.k8s.io/v1/clusterroles"

    async def rules() -> Any:
        return (await site.admin.get(f"{path}/view")).json.get("rules")

    await eventually(rules, "rules of view")
    meta = {"name": "widgets", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}}
    rule = {"verbs": ["get"], "apiGroups": ["example.com"], "resources": ["widgets"]}
    body = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": meta, "rules": [rule]}
    await site.admin.post(path, body)

    async def present() -> bool:
        return rule in await rules()

    await eventually(present, "the new part in view")
    await site.admin.request("DELETE", f"{path}/widgets")

    async def absent() -> bool:
        return rule not in await rules()

    await eventually(absent, "the part gone from view")


@pytest.mark.conformance(
    "[sig-auth] Certificates API [Privileged:ClusterAdmin] should support CSR API operations [Conformance]"
)
async def test_the_certificates_api(site: Site) -> None:
    """Discovery, create, get, list, watch, patch, status, approval, delete and deletecollection, as upstream asks."""
    admin = site.admin
    groups = [each["name"] for each in (await admin.get("/apis")).json["groups"]]
    assert "certificates.k8s.io" in groups
    listed = {each["name"] for each in (await admin.get("/apis/certificates.k8s.io/v1")).json["resources"]}
    plural = "certificatesigningrequests"
    assert {plural, f"{plural}/approval", f"{plural}/status"} <= listed
    signer = "example.com/e2e"
    made = []
    for name in ("one", "two", "three"):
        body, _ = request(name, signer)
        body["metadata"]["labels"] = {"special": "yes"}
        answer = await admin.post(CSRS, body)
        assert answer.status == 201
        made.append(answer.json)
    assert made[0]["spec"]["username"] == "admin"
    assert (await admin.get(f"{CSRS}/one")).json["metadata"]["uid"] == made[0]["metadata"]["uid"]
    assert len((await admin.get(f"{CSRS}?fieldSelector=spec.signerName%3D{signer}")).json["items"]) == 3
    version = (await admin.get(CSRS)).json["metadata"]["resourceVersion"]
    async with admin.watch(f"{CSRS}?watch=1&resourceVersion={version}") as events:
        patch = {"metadata": {"annotations": {"patched": "true"}}}
        assert (await admin.request("PATCH", f"{CSRS}/one", patch, MERGE)).status == 200
        event = await anext(events)
        assert (event["type"], event["object"]["metadata"]["annotations"]) == ("MODIFIED", {"patched": "true"})
    found = (await admin.get(f"{CSRS}/one")).json
    found["metadata"]["annotations"]["updated"] = "true"
    assert (await admin.request("PUT", f"{CSRS}/one", found)).json["metadata"]["annotations"]["updated"] == "true"
    assert (await admin.get(f"{CSRS}/one/approval")).status == 200
    assert (await approve(admin, "one")).json["status"]["conditions"][0]["type"] == "Approved"
    status = {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"conditions": [
        {"type": "Approved", "status": "True", "reason": "KubectlApproved", "message": "by hand"},
        {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test"},
    ]}}  # fmt: skip
    answer = await admin.request("PATCH", f"{CSRS}/one/status", status, MERGE)
    assert (answer.status, len(answer.json["status"]["conditions"])) == (200, 2)
    assert (await admin.get(f"{CSRS}/one/status")).json["metadata"]["annotations"]["patchedstatus"] == "true"
    assert (await admin.request("DELETE", f"{CSRS}/one")).status == 200
    assert (await admin.get(f"{CSRS}/one")).status == 404
    assert (await admin.request("DELETE", f"{CSRS}?labelSelector=special%3Dyes")).status == 200
    assert (await admin.get(f"{CSRS}?labelSelector=special%3Dyes")).json["items"] == []
