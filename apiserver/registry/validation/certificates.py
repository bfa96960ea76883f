"""Certificate signing requests: the request, the signer, usages, conditions, the certificate.

Called by the strategies of that kind. Reads PEM frames only; what is inside is the signer's business.
"""

import base64
import binascii
from typing import Any

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


def _decoded(encoded: str) -> str:
    try:
        return base64.b64decode(encoded).decode("ascii", "replace")
    except (binascii.Error, ValueError):
        return ""


def validate_request(obj: Obj) -> list[FieldError]:
    """A new CertificateSigningRequest."""
    spec = obj.get("spec") or {}
    errors: list[FieldError] = []
    request = spec.get("request") or ""
    if not request:
        errors.append(FieldError.required("spec.request"))
    elif not _decoded(request).lstrip().startswith("-----BEGIN CERTIFICATE REQUEST-----"):
        errors.append(FieldError.invalid("spec.request", request, "PEM block type must be CERTIFICATE REQUEST"))
    usages = spec.get("usages") or []
    if not usages:
        errors.append(FieldError.required("spec.usages"))
    for index, usage in enumerate(usages):
        path = f"spec.usages[{index}]"
        if usage not in _USAGES:
            errors.append(unsupported(path, usage, _USAGES))
        elif usage in usages[:index]:
            errors.append(FieldError.duplicate(path, usage))
    errors += validate_signer_name(spec.get("signerName") or "", "spec.signerName")
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
        if kind in seen:
            errors.append(FieldError.duplicate(f"{at}.type", kind))
        seen.add(kind)
    if set(_DECIDED) <= seen:
        detail = "Approved and Denied conditions are mutually exclusive"
        errors.append(FieldError.invalid(f"{path}.{_DECIDED[1]}", "", detail))
    return errors


def validate_decision(new: list[Obj], old: list[Obj], *, approval: bool) -> list[FieldError]:
    """Decisions are made by `approval` only, and stay."""
    path = "status.conditions"
    after, before = ({item.get("type"): item for item in items} for items in (new, old))
    errors: list[FieldError] = []
    for kind in _DECIDED:
        if kind in after and kind not in before and not approval:
            errors.append(FieldError.forbidden(path, f'updates may not add a condition of type "{kind}"'))
    for kind in (*_DECIDED, "Failed"):
        if kind in before and kind not in after:
            errors.append(FieldError.forbidden(path, f'updates may not remove a condition of type "{kind}"'))
    return errors


def validate_certificate(new: str, old: str) -> list[FieldError]:
    """Set once, and PEM."""
    path, hidden = "status.certificate", "<certificate data>"
    if new == old:
        return []
    if old:
        return [FieldError.forbidden(path, "updates may not set certificate content when one exists")]
    if "-----BEGIN CERTIFICATE-----" not in _decoded(new):
        return [FieldError.invalid(path, hidden, "must contain at least one CERTIFICATE PEM block")]
    return []
