"""Bearer tokens that live in Secrets: bootstrap tokens, and the lasting tokens of service accounts.

Owns what makes such a token count: the Secret as it is now. Never makes one. Called by the authenticator and by
TokenReview.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from apiserver.auth.user import ALL_AUTHENTICATED, ALL_SERVICE_ACCOUNTS, SERVICE_ACCOUNT_PREFIX, UserInfo
from machinery.clock import Clock
from machinery.errors import StatusError
from machinery.jwt import BadToken, TokenKey
from machinery.meta import parse_time

BOOTSTRAP_TYPE = "bootstrap.kubernetes.io/token"
BOOTSTRAP_GROUP = "system:bootstrappers"
BOOTSTRAP_USER = "system:bootstrap:"
LEGACY_ISSUER = "kubernetes/serviceaccount"
LAST_USED = "kubernetes.io/legacy-token-last-used"
INVALID_SINCE = "kubernetes.io/legacy-token-invalid-since"
_BOOTSTRAP = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")

# (plural, namespace, name) -> the object, or None when there is none.
ObjectReader = Callable[[str, str, str], Awaitable[Mapping[str, Any] | None]]
# (namespace, name of a Secret, label value): note when a lasting token was last used.
NoteUse = Callable[[str, str, str], Awaitable[None]]


def secret_text(secret: Mapping[str, Any], key: str) -> str:
    """One value of a Secret, decoded; "" when there is none."""
    try:
        return base64.b64decode((secret.get("data") or {}).get(key) or "").decode()
    except ValueError:
        return ""


class BootstrapTokens:
    """`abcdef.0123456789abcdef`: what machines join with."""

    def __init__(self, clock: Clock, read: ObjectReader) -> None:
        self._clock = clock
        self._read = read

    @staticmethod
    def looks_like(token: str) -> bool:
        return _BOOTSTRAP.fullmatch(token) is not None

    async def authenticate(self, token: str) -> UserInfo:
        """The user of a token. Raises BadToken."""
        parts = _BOOTSTRAP.fullmatch(token)
        if parts is None:
            raise BadToken("not a bootstrap token")
        identity, value = parts.groups()
        secret = await _found(self._read, "secrets", "kube-system", f"bootstrap-token-{identity}")
        if secret["metadata"].get("deletionTimestamp"):
            raise BadToken("the token is being deleted")
        if secret.get("type") != BOOTSTRAP_TYPE or secret_text(secret, "token-id") != identity:
            raise BadToken("the secret holds another token")
        if not hmac.compare_digest(secret_text(secret, "token-secret").encode(), value.encode()):
            raise BadToken("wrong secret")
        if self._expired(secret_text(secret, "expiration")):
            raise BadToken("the token has expired")
        if secret_text(secret, "usage-bootstrap-authentication") != "true":
            raise BadToken("the token is not for authentication")
        groups = [BOOTSTRAP_GROUP]
        for group in filter(None, secret_text(secret, "auth-extra-groups").split(",")):
            if not _GROUP.fullmatch(group):
                raise BadToken(f"invalid extra group {group!r}")
            if group not in groups:
                groups.append(group)
        return UserInfo(f"{BOOTSTRAP_USER}{identity}", (*sorted(groups), ALL_AUTHENTICATED))

    def _expired(self, text: str) -> bool:
        """A time that cannot be read counts as past."""
        if not text:
            return False
        try:
            return self._clock.now() >= parse_time(text)
        except ValueError:
            return True


class LegacyTokens:
    """Lasting tokens: signed, but good only while their Secret and their account exist."""

    def __init__(self, clock: Clock, key: TokenKey, read: ObjectReader, note: NoteUse) -> None:
        self._clock = clock
        self._key = key
        self._read = read
        self._note = note

    async def authenticate(self, token: str) -> UserInfo:
        """The user of a token. Raises BadToken."""
        claims = self._key.verify(token)
        wanted = ("namespace", "secret.name", "service-account.name", "service-account.uid")
        namespace, secret_name, name, uid = (str(claims.get(f"{LEGACY_ISSUER}/{field}") or "") for field in wanted)
        username = f"{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}"
        if claims.get("iss") != LEGACY_ISSUER or claims.get("sub") != username or not (namespace and secret_name):
            raise BadToken("malformed claims")
        secret = await _found(self._read, "secrets", namespace, secret_name)
        if secret["metadata"].get("deletionTimestamp"):
            raise BadToken("Token has been invalidated")
        if not hmac.compare_digest(secret_text(secret, "token").encode(), token.encode()):
            raise BadToken("Token does not match server's copy")
        if (secret["metadata"].get("labels") or {}).get(INVALID_SINCE):
            raise BadToken(f"the token in secret {namespace}/{secret_name} has been marked invalid")
        account = await _found(self._read, "serviceaccounts", namespace, name)
        if account["metadata"].get("deletionTimestamp") or account["metadata"].get("uid") != uid:
            raise BadToken("ServiceAccount UID does not match claim")
        today = f"{self._clock.now():%Y-%m-%d}"
        if (secret["metadata"].get("labels") or {}).get(LAST_USED) != today:
            await self._note(namespace, secret_name, today)
        groups = (ALL_SERVICE_ACCOUNTS, f"{ALL_SERVICE_ACCOUNTS}:{namespace}", ALL_AUTHENTICATED)
        return UserInfo(username, groups, uid)


async def _found(read: ObjectReader, plural: str, namespace: str, name: str) -> Mapping[str, Any]:
    try:
        found = await read(plural, namespace, name)
    except StatusError as error:
        raise BadToken(f"cannot look up {plural}: {error.message}") from error
    if found is None:
        raise BadToken(f"{plural[:-1]} {namespace}/{name} does not exist")
    return found
