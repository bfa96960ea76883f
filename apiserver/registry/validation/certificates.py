"""Certificate signing requests: the request, the signer, usages, conditions, the certificate.

Called by the strategies of that kind. Owns that requests and certificates are what they say; whether a request deserves
a certificate is the signer's business.
"""

import base64
import binascii
import re
from collections import Counter
from typing import Any, NamedTuple

from apiserver.registry.validation.fields import unsupported
from apiserver.registry.validation.signers import validate_signer_name
from machinery.field_errors import FieldError

Obj = dict[str, Any]
_USAGES = (
    "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment",
    "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel",
    "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime",
    "server auth", "signing", "timestamping",
)  # fmt: skip
_DECIDED = ("Approved", "Denied")
_LEGACY_SIGNER = "kubernetes.io/legacy-unknown"
_PEM = re.compile(rb"-----BEGIN ([^\n]*?)-----\s*\n(.*?)-----END \1-----", re.DOTALL)


class _Block(NamedTuple):
    kind: str
    headers: bool
    content: bytes


def _blocks(encoded: str) -> list[_Block]:
    """The PEM blocks of what is base64 once more; text between them does not matter."""
    try:
        text = base64.b64decode(encoded)
    except (binascii.Error, ValueError):
        return []
    found: list[_Block] = []
    for match in _PEM.finditer(text):
        head, _, body = match[2].rpartition(b"\n\n") if b":" in match[2] else (b"", b"", match[2])
        try:
            found.append(_Block(match[1].decode(), bool(head), base64.b64decode(b"".join(body.split()), validate=True)))
        except (binascii.Error, ValueError):
            continue
    return found


def _request_error(encoded: str) -> str:
    """What is wrong with the request: no such block, not parseable or not signed by its own key."""
    block = next(iter(_blocks(encoded)), None)
    if block is None or block.kind != "CERTIFICATE REQUEST":
        return "PEM block type must be CERTIFICATE REQUEST"
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    key: object = None
    try:
        request = x509.load_der_x509_csr(block.content)
        key = request.public_key()
        if request.is_signature_valid:
            return ""
    except UnsupportedAlgorithm:
        return "x509: cannot verify signature: algorithm unimplemented"
    except InvalidSignature:
        pass
    except ValueError:
        return "asn1: structure error: not a certificate request"
    if isinstance(key, rsa.RSAPublicKey):
        return "crypto/rsa: verification error"
    return f"x509: {'ECDSA' if isinstance(key, ec.EllipticCurvePublicKey) else 'Ed25519'} verification failure"


def validate_request(obj: Obj) -> list[FieldError]:
    """A new CertificateSigningRequest."""
    spec = obj.get("spec") or {}
    errors: list[FieldError] = []
    request = spec.get("request") or ""
    if detail := _request_error(request):
        errors.append(FieldError.invalid("spec.request", request or None, detail))
    usages = spec.get("usages") or []
    if not usages:
        errors.append(FieldError.required("spec.usages"))
    errors += [
        unsupported(f"spec.usages[{index}]", usage, _USAGES)
        for index, usage in enumerate(usages)
        if usage not in _USAGES
    ]
    errors += [
        FieldError.duplicate(f"spec.usages[{index}]", usage)
        for index, usage in enumerate(usages)
        if usage in usages[:index]
    ]
    path, signer = "spec.signerName", spec.get("signerName") or ""
    if signer == _LEGACY_SIGNER:
        errors.append(FieldError.invalid(path, signer, "the legacy signerName is not allowed via this API version"))
    else:
        errors += validate_signer_name(signer, path)
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < 600:
        detail = "may not specify a duration less than 600 seconds (10 minutes)"
        errors.append(FieldError.invalid("spec.expirationSeconds", seconds, detail))
    return errors


def validate_conditions(conditions: list[Obj], path: str) -> list[FieldError]:
    """Known states, at most one decision."""
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        at = f"{path}[{index}]"
        kind, status = condition.get("type") or "", condition.get("status") or ""
        if not kind:
            errors.append(FieldError.required(f"{at}.type"))
        valid = ("True",) if kind in (*_DECIDED, "Failed") else ("False", "True", "Unknown")
        if not status:
            errors.append(FieldError.required(f"{at}.status"))
        elif status not in valid:
            errors.append(unsupported(f"{at}.status", status, valid))
        if kind in _DECIDED and seen & (set(_DECIDED) - {kind}):
            detail = "Approved and Denied conditions are mutually exclusive"
            errors.append(FieldError.invalid(f"{at}.type", kind, detail))
        if kind in seen:
            errors.append(FieldError.duplicate(f"{at}.type", kind))
        seen.add(kind)
    return errors


def validate_decision(new: list[Obj], old: list[Obj], *, approval: bool) -> list[FieldError]:
    """Decisions are made by `approval` only, and stay."""
    path = "status.conditions"
    after, before = (Counter(item.get("type") or "" for item in items) for items in (new, old))
    errors = [
        FieldError.forbidden(path, f'updates may not remove a condition of type "{kind}"')
        for kind in (*_DECIDED, "Failed")
        if after[kind] < before[kind]
    ]
    return errors + [
        FieldError.forbidden(path, f'updates may not add a condition of type "{kind}"')
        for kind in _DECIDED
        if after[kind] > before[kind] and not approval
    ]


def validate_certificate(new: str, old: str) -> list[FieldError]:
    """Set once: PEM blocks of certificates and nothing else."""
    path = "status.certificate"
    if new == old:
        return []
    errors: list[FieldError] = []
    if new and (detail := _certificate_error(new)):
        errors.append(FieldError.invalid(path, "<certificate data>", detail))
    if old:
        errors.append(FieldError.forbidden(path, "updates may not modify existing certificate content"))
    return errors


def _certificate_error(encoded: str) -> str:
    from cryptography import x509

    blocks = _blocks(encoded)
    for block in blocks:
        if block.kind != "CERTIFICATE":
            return f'only CERTIFICATE PEM blocks are allowed, found "{block.kind}"'
        if block.headers:
            return "no PEM block headers are permitted"
        try:
            x509.load_der_x509_certificate(block.content)
        except ValueError:
            return "x509: malformed certificate"
    return "" if blocks else "must contain at least one CERTIFICATE PEM block"
