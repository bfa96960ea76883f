"""Who a request comes from.

Owns: the chain of authenticators (client certificate, static token, bootstrap token, tokens of service accounts), what
each makes of a credential, and the cache of verified tokens. Never decides what the user may do. Called by both doors:
per connection for certificates, per request for bearer tokens.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from apiserver.auth.secret_tokens import LEGACY_ISSUER, BootstrapTokens, LegacyTokens
from apiserver.auth.service_accounts import ServiceAccountTokens
from apiserver.auth.user import ALL_AUTHENTICATED, UserInfo
from machinery.clock import Clock
from machinery.errors import Unauthorized
from machinery.jwt import BadToken, unverified_issuer

CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"
CACHE_SECONDS = 10.0
CACHE_LIMIT = 10_000


def user_from_subject(common_name: str, organizations: Sequence[str], der: bytes = b"") -> UserInfo | None:
    """x509: CN is the user, O are the groups; the certificate itself (DER) is the credential's identity."""
    if not common_name:
        return None
    groups = (*organizations, ALL_AUTHENTICATED) if ALL_AUTHENTICATED not in organizations else tuple(organizations)
    extra = {CREDENTIAL_ID: (f"X509SHA256={hashlib.sha256(der).hexdigest()}",)} if der else {}
    return UserInfo(common_name, groups, extra=extra)


def user_from_peer_cert(cert: Mapping[str, Any] | None, der: bytes | None = None) -> UserInfo | None:
    """The user of a verified certificate as the ssl module describes it (and, in DER, gives it)."""
    if not cert:
        return None
    name, groups = "", []
    for rdn in cert.get("subject", ()):
        for key, value in rdn:
            if key == "commonName":
                name = value
            elif key == "organizationName":
                groups.append(value)
    return user_from_subject(name, groups, der or b"")


def user_from_pem(pem: bytes) -> UserInfo | None:
    """The user of a verified certificate in PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    certificate = x509.load_pem_x509_certificate(pem)
    subject = certificate.subject
    names = [str(part.value) for part in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = [str(part.value) for part in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    return user_from_subject(names[-1] if names else "", groups, certificate.public_bytes(Encoding.DER))


def load_static_tokens(path: Path) -> dict[str, UserInfo]:
    """The file of `token,user,uid,"group1,group2"` lines. Raises ValueError on a line that is none."""
    tokens: dict[str, UserInfo] = {}
    with path.open(newline="", encoding="utf-8") as lines:
        for number, row in enumerate(csv.reader(lines), start=1):
            if not row or (len(row) == 1 and not row[0].strip()):
                continue
            if len(row) < 3 or not row[0] or not row[1]:
                raise ValueError(f"{path}:{number}: expected token,user,uid[,groups]")
            groups = tuple(group.strip() for group in row[3].split(",") if group.strip()) if len(row) > 3 else ()
            tokens[row[0]] = UserInfo(row[1], (*groups, ALL_AUTHENTICATED), row[2])
    return tokens


class Authenticator:
    """The chain for bearer tokens, with a cache of what was verified in the last seconds."""

    def __init__(
        self,
        clock: Clock,
        static: Mapping[str, UserInfo],
        accounts: ServiceAccountTokens | None = None,
        bootstrap: BootstrapTokens | None = None,
        legacy: LegacyTokens | None = None,
    ) -> None:
        self._clock = clock
        self._static = static
        self._accounts = accounts
        self._bootstrap = bootstrap
        self._legacy = legacy
        self._verified: dict[str, tuple[UserInfo, float]] = {}
        self._now: Callable[[], float] = clock.monotonic

    def known(self, token: str) -> UserInfo | None:
        """A token that needs no verification now: static, or verified a moment ago."""
        user = self._static.get(token)
        if user is not None:
            return user
        cached = self._verified.get(token)
        if cached is not None and self._now() < cached[1]:
            return cached[0]
        return None

    async def token(self, token: str) -> UserInfo:
        """The user of a bearer token. Raises Unauthorized."""
        user = self.known(token)
        if user is not None:
            return user
        user = await self.agnostic(token)
        if user is None:
            if self._accounts is None:
                raise Unauthorized
            user = await self._accounts.authenticate(token)
        if len(self._verified) >= CACHE_LIMIT:
            self._verified.clear()
        self._verified[token] = (user, self._now() + CACHE_SECONDS)
        return user

    async def agnostic(self, token: str) -> UserInfo | None:
        """The user of a token that knows no audiences; None when it is of another kind. Raises Unauthorized."""
        if token in self._static:
            return self._static[token]
        try:
            if self._bootstrap is not None and self._bootstrap.looks_like(token):
                return await self._bootstrap.authenticate(token)
            if self._legacy is not None and unverified_issuer(token) == LEGACY_ISSUER:
                return await self._legacy.authenticate(token)
        except BadToken as error:
            raise Unauthorized from error
        return None

    async def header(self, authorization: str) -> UserInfo | None:
        """The user of an Authorization header; None when it is no bearer credential (then others may apply)."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return None
        return await self.token(token.strip())
