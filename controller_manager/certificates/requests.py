"""What a certificate signing request asks for, and whether its signer may grant it. Pure.

Owns the rules of the four signers of Kubernetes (names, subjects, usages) in upstream's words. `cryptography` is
imported with the first request: a cluster without requests never pays for it.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from api.models import certificates_v1

if TYPE_CHECKING:
    from cryptography.x509 import CertificateSigningRequest as Parsed

CLIENT: Final = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT: Final = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING: Final = "kubernetes.io/kubelet-serving"
LEGACY: Final = "kubernetes.io/legacy-unknown"
SIGNERS: Final = (CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY)

NODES, NODE_PREFIX = "system:nodes", "system:node:"
DIGITAL, ENCIPHER, CLIENT_AUTH, SERVER_AUTH = "digital signature", "key encipherment", "client auth", "server auth"


class BadRequest(ValueError):
    """The request cannot be read, or its signer does not grant such a thing."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A request taken apart. `parsed` is what gets signed."""

    common_name: str
    organizations: tuple[str, ...]
    dns: tuple[str, ...]
    addresses: tuple[str, ...]
    emails: tuple[str, ...]
    uris: tuple[str, ...]
    usages: frozenset[str]
    parsed: Parsed


def parse(request: certificates_v1.CertificateSigningRequest) -> Wish:
    """Read the PEM of a request. Raises BadRequest."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        parsed = x509.load_pem_x509_csr(base64.b64decode(request.spec.request))
        if not parsed.is_signature_valid:
            raise BadRequest("the signature of the request is not valid")
        subject = parsed.subject
        names = [str(part.value) for part in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        groups = tuple(str(part.value) for part in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))
        try:
            sans: Iterable[x509.GeneralName] = parsed.extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            ).value
        except x509.ExtensionNotFound:
            sans = ()
    except (ValueError, TypeError) as error:
        raise BadRequest(str(error)) from error
    listed = list(sans)
    return Wish(
        common_name=names[-1] if names else "",
        organizations=groups,
        dns=tuple(each.value for each in listed if isinstance(each, x509.DNSName)),
        addresses=tuple(str(each.value) for each in listed if isinstance(each, x509.IPAddress)),
        emails=tuple(each.value for each in listed if isinstance(each, x509.RFC822Name)),
        uris=tuple(each.value for each in listed if isinstance(each, x509.UniformResourceIdentifier)),
        usages=frozenset(request.spec.usages or ()),
        parsed=parsed,
    )


def check(signer: str, wish: Wish) -> None:
    """Whether a signer grants this. Raises BadRequest with upstream's reason."""
    if signer == CLIENT:
        _check_client_usages(wish.usages)
    elif signer == KUBELET_CLIENT:
        check_kubelet_client(wish)
    elif signer == KUBELET_SERVING:
        _check_kubelet_serving(wish)


def _check_client_usages(usages: Collection[str]) -> None:
    for usage in sorted(usages):
        if usage not in (DIGITAL, ENCIPHER, CLIENT_AUTH):
            raise BadRequest(f"invalid usage for client certificate: {usage}")
    if CLIENT_AUTH not in usages:
        raise BadRequest(f"missing required usage for client certificate: {CLIENT_AUTH}")


def _check_node(wish: Wish) -> None:
    if wish.organizations != (NODES,):
        raise BadRequest("subject organization is not system:nodes")
    if not wish.common_name.startswith(NODE_PREFIX):
        raise BadRequest("subject common name does not begin with system:node:")


def _check_usages(wish: Wish, *required: str) -> None:
    """All of them, or all but key encipherment (keys other than RSA have none)."""
    if wish.usages not in (frozenset(required), frozenset(required) - {ENCIPHER}):
        raise BadRequest(f"usages did not match [{' '.join(sorted(required))}]")


def check_kubelet_client(wish: Wish) -> None:
    """The certificate a kubelet shows to the API server. Raises BadRequest."""
    _check_node(wish)
    named = (
        (wish.dns, "DNS subjectAltNames"),
        (wish.emails, "Email subjectAltNames"),
        (wish.addresses, "IP subjectAltNames"),
        (wish.uris, "URI subjectAltNames"),
    )
    for found, what in named:
        if found:
            raise BadRequest(f"{what} are not allowed")
    _check_usages(wish, DIGITAL, ENCIPHER, CLIENT_AUTH)


def _check_kubelet_serving(wish: Wish) -> None:
    _check_node(wish)
    if not wish.dns and not wish.addresses:
        raise BadRequest("DNS or IP subjectAltName is required")
    for found, what in ((wish.emails, "Email subjectAltNames"), (wish.uris, "URI subjectAltNames")):
        if found:
            raise BadRequest(f"{what} are not allowed")
    _check_usages(wish, DIGITAL, ENCIPHER, SERVER_AUTH)


def has(request: certificates_v1.CertificateSigningRequest, kind: str) -> bool:
    """Whether a condition (Approved, Denied, Failed) is true."""
    conditions = (request.status.conditions if request.status else None) or ()
    return any(each.type == kind and each.status == "True" for each in conditions)
