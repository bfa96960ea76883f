"""Signs approved requests of Kubernetes' own signers with the cluster's authority.

Owns the certificate's content (`issue`) and the conditions of requests that cannot be granted. Never approves. Runs
only where the authority's key was given.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata; the models call it optional.

from __future__ import annotations

import base64
from datetime import datetime, timedelta
from typing import Any

import msgspec

from api.models import certificates_v1
from client.client import Client, PatchType
from client.controller import DONE, Controller, Result
from client.informer import Informer
from controller_manager.certificates import requests
from controller_manager.environment import Environment
from machinery.clock import Clock
from machinery.meta import ObjectKey, rfc3339

LONGEST = timedelta(days=365)
SHORTEST = timedelta(minutes=10)
BACKDATE = timedelta(minutes=5)
SHORT = timedelta(hours=8)  # certificates that live shorter are not cut by the backdate

_KEY_USAGES = {
    "digital signature": "digital_signature",
    "signing": "digital_signature",
    "content commitment": "content_commitment",
    "key encipherment": "key_encipherment",
    "data encipherment": "data_encipherment",
    "key agreement": "key_agreement",
    "cert sign": "key_cert_sign",
    "crl sign": "crl_sign",
    "encipher only": "encipher_only",
    "decipher only": "decipher_only",
}
_EXTENDED = {
    "any": "2.5.29.37.0",
    "server auth": "1.3.6.1.5.5.7.3.1",
    "client auth": "1.3.6.1.5.5.7.3.2",
    "code signing": "1.3.6.1.5.5.7.3.3",
    "email protection": "1.3.6.1.5.5.7.3.4",
    "s/mime": "1.3.6.1.5.5.7.3.4",
    "ipsec end system": "1.3.6.1.5.5.7.3.5",
    "ipsec tunnel": "1.3.6.1.5.5.7.3.6",
    "ipsec user": "1.3.6.1.5.5.7.3.7",
    "timestamping": "1.3.6.1.5.5.7.3.8",
    "ocsp signing": "1.3.6.1.5.5.7.3.9",
    "microsoft sgc": "1.3.6.1.4.1.311.10.3.3",
    "netscape sgc": "2.16.840.1.113730.4.1",
}


def lifetime(asked: int | None) -> timedelta:
    """How long a certificate lives: what was asked, within upstream's bounds."""
    return LONGEST if asked is None else min(max(timedelta(seconds=asked), SHORTEST), LONGEST)


def issue(wish: requests.Wish, ca_cert: bytes, ca_key: bytes, *, life: timedelta, now: datetime) -> bytes:
    """The certificate in PEM: subject, names and key of the request, usages as asked, never an authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    authority = x509.load_pem_x509_certificate(ca_cert)
    key: Any = serialization.load_pem_private_key(ca_key, None)
    ends = now + (life if life < SHORT else life - BACKDATE)
    parsed = wish.parsed
    builder = (
        x509.CertificateBuilder()
        .subject_name(parsed.subject)
        .issuer_name(authority.subject)
        .public_key(parsed.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(min(ends, authority.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    flags = {_KEY_USAGES[usage] for usage in wish.usages if usage in _KEY_USAGES}
    if flags:
        if "key_agreement" not in flags:
            flags -= {"encipher_only", "decipher_only"}  # they mean nothing without it
        usage = x509.KeyUsage(**{name: name in flags for name in dict.fromkeys(_KEY_USAGES.values())})
        builder = builder.add_extension(usage, critical=True)
    extended = sorted({_EXTENDED[usage] for usage in wish.usages if usage in _EXTENDED})
    if extended:
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([x509.ObjectIdentifier(each) for each in extended]), critical=False
        )
    try:
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        builder = builder.add_extension(names.value, critical=names.critical)
    except x509.ExtensionNotFound:
        pass
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class CertificateSigner:
    """All four signers: they differ in their rules only."""

    def __init__(self, env: Environment) -> None:
        self._client: Client = env.client
        self._clock: Clock = env.clock
        self._authority = (env.options.signing_cert.encode(), env.options.signing_key.encode())
        self._requests: Informer[certificates_v1.CertificateSigningRequest] = env.informers.informer(
            certificates_v1.CertificateSigningRequest
        )
        self.controller = Controller(
            "csrsigning", self.reconcile, clock=env.clock, informers=[self._requests], workers=2
        )
        self.controller.watches(self._requests)

    async def reconcile(self, key: ObjectKey) -> Result:
        request = self._requests.lister.get(key)
        if request is None or request.metadata.deletionTimestamp is not None:
            return DONE
        if request.status is None or request.status.certificate:
            return DONE
        if request.spec.signerName not in requests.SIGNERS or not requests.has(request, "Approved"):
            return DONE
        if requests.has(request, "Failed"):
            return DONE
        try:
            wish = requests.parse(request)
            requests.check(request.spec.signerName, wish)
        except requests.BadRequest as error:
            condition = {
                "type": "Failed",
                "status": "True",
                "reason": "SignerValidationFailure",
                "message": str(error),
                "lastUpdateTime": rfc3339(self._clock.now()),
            }
            known = msgspec.to_builtins(request.status.conditions or [])
            await self._write(request, {"conditions": [*known, condition]})
            return DONE
        life = lifetime(request.spec.expirationSeconds)
        signed = issue(wish, *self._authority, life=life, now=self._clock.now())
        await self._write(request, {"certificate": base64.b64encode(signed).decode()})
        return DONE

    async def _write(self, request: certificates_v1.CertificateSigningRequest, status: dict[str, Any]) -> None:
        await self._client.patch(
            certificates_v1.CertificateSigningRequest,
            request.metadata.name or "",
            {"status": status},
            type=PatchType.MERGE,
            resource_version=request.metadata.resourceVersion,
            subresource="status",
        )


def build(env: Environment) -> list[Controller]:
    return [CertificateSigner(env).controller] if env.options.signing_key else []
