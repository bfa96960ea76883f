"""CertificateApproval, CertificateSigning, CertificateSubjectRestriction, ClusterTrustBundleAttest.

Own who may approve and sign for a signer (the virtual resource `signers`), and that nobody becomes an administrator by
a certificate of the API server's own signer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apiserver.admission.policies.expressions import Authorize
from apiserver.admission.refusal import forbidden
from apiserver.auth.attributes import Attributes
from apiserver.auth.user import MASTERS, UserInfo
from apiserver.registry.context import RequestContext
from apiserver.registry.hooks import CREATE, UPDATE, Obj, Undo

if TYPE_CHECKING:
    from api.resources import Resource

GROUP = "certificates.k8s.io"
CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"


def may_act_for(authorize: Authorize, user: UserInfo, verb: str, signer: str) -> bool:
    """May the user act for a signer: named as such, or by its domain (`example.com/*`)?"""
    for name in (signer, f"{signer.partition('/')[0]}/*"):
        asked = Attributes(verb=verb, is_resource=True, group=GROUP, version="*", resource="signers", name=name)
        if authorize(user, asked).allowed:
            return True
    return False


class CertificateRights:
    """Judges decisions about requests, certificates, and bundles of trust."""

    def __init__(self, authorize: Authorize) -> None:
        self._authorize = authorize

    def handles(self, resource: Resource) -> bool:
        return resource.group == GROUP and resource.plural in ("certificatesigningrequests", "clustertrustbundles")

    async def check(
        self,
        ctx: RequestContext,
        op: str,
        resource: Resource,
        namespace: str,
        name: str,
        new: Obj | None,
        old: Obj | None,
        subresource: str,
    ) -> Undo | None:
        if new is None:
            return None
        if resource.plural == "clustertrustbundles":
            self._attest(ctx, resource, name, new, old, subresource)
        elif op == UPDATE and old is not None:
            self._decide(ctx, resource, name, new, old, subresource)
        elif op == CREATE and not subresource:
            _restrict(resource, name, new)
        return None

    def _decide(self, ctx: RequestContext, resource: Resource, name: str, new: Obj, old: Obj, subresource: str) -> None:
        verb, doing = {"approval": ("approve", "approve"), "status": ("sign", "sign")}.get(subresource, ("", ""))
        if not verb or (verb == "sign" and _signed(new) == _signed(old)):
            return
        signer = str((old.get("spec") or {}).get("signerName") or "")
        if not may_act_for(self._authorize, ctx.user, verb, signer):
            why = f'user not permitted to {doing} requests with signerName "{signer}"'
            raise forbidden(resource, name, old, why)

    def _attest(
        self, ctx: RequestContext, resource: Resource, name: str, new: Obj, old: Obj | None, subresource: str
    ) -> None:
        signer = str((new.get("spec") or {}).get("signerName") or "")
        if subresource or not signer or (old is not None and old.get("spec") == new.get("spec")):
            return
        if not may_act_for(self._authorize, ctx.user, "attest", signer):
            raise forbidden(resource, name, new, f'user not permitted to attest for signerName "{signer}"')


def _signed(obj: Obj) -> Any:
    status = obj.get("status") or {}
    return status.get("certificate"), status.get("conditions")


def _restrict(resource: Resource, name: str, new: Obj) -> None:
    spec = new.get("spec") or {}
    if spec.get("signerName") != CLIENT_SIGNER:
        return
    if MASTERS in organizations(str(spec.get("request") or "")):
        raise forbidden(resource, name, new, f"use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed")


def organizations(request: str) -> list[str]:
    """The organizations that a request (base64 of PEM) names; none for what cannot be read, which validation tells."""
    import base64
    import binascii

    from cryptography import x509

    try:
        pem = base64.b64decode(request, validate=True)
        subject = x509.load_pem_x509_csr(pem).subject
    except (binascii.Error, ValueError):
        return []
    return [str(each.value) for each in subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)]
