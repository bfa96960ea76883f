"""Certificates, growing claims, topology labels."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from api.resources import lookup
from apiserver.admission.certificates import CLIENT_SIGNER, CertificateRights, organizations
from apiserver.auth.attributes import Attributes, Decision
from apiserver.auth.user import UserInfo
from apiserver.registry.context import RequestContext
from machinery.errors import Forbidden, StatusError
from tests.unit.apiserver.admission.conftest import Cluster, a_pod

Obj = dict[str, Any]
REQUESTS = lookup("certificates.k8s.io", "v1", "certificatesigningrequests")


def a_request(*groups: str, signer: str = CLIENT_SIGNER, **status: Any) -> Obj:
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.NameAttribute(x509.NameOID.COMMON_NAME, "jane")]
    names += [x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, group) for group in groups]
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names)).sign(key, hashes.SHA256())
    encoded = base64.b64encode(request.public_bytes(Encoding.PEM)).decode()
    return {"metadata": {"name": "jane"}, "spec": {"signerName": signer, "request": encoded}, "status": status}


async def judged(op: str, new: Obj, old: Obj | None, subresource: str = "", *allowed: tuple[str, str]) -> None:
    def authorize(user: UserInfo, asked: Attributes) -> Decision:
        return Decision(asked.resource == "signers" and (asked.verb, asked.name) in allowed)

    assert REQUESTS is not None
    ctx = RequestContext(UserInfo("tester"))
    await CertificateRights(authorize).check(ctx, op, REQUESTS, "", "jane", new, old, subresource)


async def test_nobody_becomes_an_administrator_by_a_request() -> None:
    with pytest.raises(Forbidden, match="signer with system:masters group is not allowed"):
        await judged("CREATE", a_request("dev", "system:masters"), None)
    await judged("CREATE", a_request("dev"), None)
    await judged("CREATE", a_request("system:masters", signer="example.com/own"), None)
    assert organizations("no base64") == []


@pytest.mark.parametrize(
    ("subresource", "verb"), [pytest.param("approval", "approve", id="a"), pytest.param("status", "sign", id="b")]
)
async def test_who_may_act_for_a_signer(subresource: str, verb: str) -> None:
    old = a_request(signer="example.com/own")
    new = {**old, "status": {"certificate": "x"}}
    why = f'user not permitted to {verb} requests with signerName "example.com/own"'
    with pytest.raises(Forbidden, match=why):
        await judged("UPDATE", new, old, subresource, (verb, "example.com/other"))
    for name in ("example.com/own", "example.com/*"):
        await judged("UPDATE", new, old, subresource, (verb, name))
    if subresource == "status":
        await judged("UPDATE", old, old, subresource)  # neither certificate nor conditions have changed


def a_claim(size: str, phase: str = "Bound", storage_class: str = "big") -> Obj:
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}},
        "storageClassName": storage_class,
        "volumeName": "v",
    }
    return {"metadata": {"name": "data"}, "spec": spec, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("grows", "phase", "why"),
    [
        pytest.param(True, "Bound", "", id="it may"),
        pytest.param(False, "Bound", "only dynamically provisioned pvc can be resized", id="the class cannot"),
        pytest.param(True, "Pending", "spec is immutable after creation", id="not bound"),  # validation comes first
    ],
)
async def test_growing_claims(cluster: Cluster, grows: bool, phase: str, why: str) -> None:
    kind = {"metadata": {"name": "big"}, "provisioner": "example.com/p", "allowVolumeExpansion": grows}
    await cluster.create("storageclasses", kind, "", group="storage.k8s.io")
    await cluster.create("persistentvolumeclaims", a_claim("1Gi"))
    await cluster.patch("persistentvolumeclaims", "data", {"status": {"phase": phase}}, sub="status")
    wanted = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    if why:
        with pytest.raises(StatusError, match=why):
            await cluster.patch("persistentvolumeclaims", "data", wanted)
        return
    grown = await cluster.patch("persistentvolumeclaims", "data", wanted)
    assert grown["spec"]["resources"]["requests"]["storage"] == "2Gi"


async def test_bound_pods_get_their_nodes_topology(cluster: Cluster) -> None:
    labels = {"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "other": "x"}
    await cluster.create("nodes", {"metadata": {"name": "n1", "labels": labels}}, "")
    await cluster.create("pods", a_pod("web"))
    pods = cluster.registry.resource("", "v1", "pods")
    binding = {"metadata": {"name": "web"}, "target": {"name": "n1"}}
    await pods.create(RequestContext(UserInfo("tester")), "team", binding, name="web", subresource="binding")
    await pods.sync()
    pod = await cluster.get("pods", "web")
    assert pod["spec"]["nodeName"] == "n1"
    assert pod["metadata"]["labels"] == {"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r"}


async def test_nodes_evict_only_their_own_pods(cluster: Cluster) -> None:
    await cluster.create("pods", a_pod("web", nodeName="n1"))
    pods = cluster.registry.resource("", "v1", "pods")
    node = UserInfo("system:node:n2", groups=("system:nodes",))
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web"}}
    with pytest.raises(Forbidden, match='node "n2" can only evict pods with'):
        await pods.create(RequestContext(node), "team", eviction, name="web", subresource="eviction")
