"""Who may approve and sign certificate requests: the verbs `approve` and `sign` on the signer's name.

Owns three admission rules of upstream (CertificateApproval, CertificateSigning, CertificateSubjectRestriction). Called
by the registry for writes of certificates.k8s.io, whatever door they came by.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from apiserver.admission.refusal import forbidden
from apiserver.auth.attributes import Attributes
from apiserver.auth.gate import Gate
from apiserver.auth.user import MASTERS, UserInfo
from apiserver.registry.context import RequestContext

if TYPE_CHECKING:
    from api.resources import Resource

GROUP = "certificates.k8s.io"
CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"


class SignerCheck:
    """The admission plugin."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def admit(
        self,
        ctx: RequestContext,
        op: str,
        resource: Resource,
        namespace: str,
        name: str,
        new: dict[str, Any] | None,
        old: dict[str, Any] | None,
        subresource: str,
    ) -> None:
        """Raises Forbidden."""
        if resource.group != GROUP or resource.plural != "certificatesigningrequests" or new is None:
            return
        signer = str((new.get("spec") or {}).get("signerName") or "")
        why = ""
        if old is None:
            if signer == CLIENT_SIGNER and MASTERS in _organizations(new):
                why = f"use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed"
        elif subresource == "approval":
            if not self._may(ctx.user, "approve", signer):
                why = f'user not permitted to approve requests with signerName "{signer}"'
        elif subresource == "status" and _signed(new) != _signed(old) and not self._may(ctx.user, "sign", signer):
            why = f'user not permitted to sign requests with signerName "{signer}"'
        if why:
            raise forbidden(resource, name, new, why)

    def _may(self, user: UserInfo, verb: str, signer: str) -> bool:
        """By the signer's own name, or by `domain/*`."""
        for name in (signer, f"{signer.partition('/')[0]}/*"):
            asked = Attributes(verb=verb, is_resource=True, group=GROUP, version="*", resource="signers", name=name)
            if self._gate.decide(user, asked).allowed:
                return True
        return False


def _signed(obj: dict[str, Any]) -> tuple[Any, Any]:
    status = obj.get("status") or {}
    return status.get("certificate") or "", status.get("conditions") or []


def _organizations(obj: dict[str, Any]) -> list[str]:
    """The groups a request asks for; none when it cannot be read (validation has its own word on that)."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        parsed = x509.load_pem_x509_csr(base64.b64decode((obj.get("spec") or {}).get("request") or ""))
        return [str(part.value) for part in parsed.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    except (ValueError, TypeError):
        return []
