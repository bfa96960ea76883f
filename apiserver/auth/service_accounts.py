"""Tokens of service accounts: what they claim, when they count.

Owns: the claims of a bound token (`plan_claims`), and their verification against what exists now: a token dies with
its service account, and with the pod or secret it is bound to. Never signs (`jwt.py`). Called by the authenticator,
by TokenReview and by the `serviceaccounts/token` subresource.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apiserver.auth.user import ALL_AUTHENTICATED, ALL_SERVICE_ACCOUNTS, SERVICE_ACCOUNT_PREFIX, UserInfo
from machinery.clock import Clock
from machinery.errors import StatusError, Unauthorized
from machinery.jwt import BadToken, TokenKey, unverified_issuer

DEFAULT_ISSUER = "https://kubernetes.default.svc.cluster.local"
PRIVATE_CLAIM = "kubernetes.io"
MIN_EXPIRATION = 600
MAX_EXPIRATION = 1 << 32
DEFAULT_EXPIRATION = 3600
LEEWAY = 10.0

_EXTRA = "authentication.kubernetes.io/"

# (plural, namespace, name) -> the object's metadata, or None when there is none.
MetadataReader = Callable[[str, str, str], Awaitable[Mapping[str, Any] | None]]


@dataclass(frozen=True, slots=True)
class Bound:
    """The object a token lives and dies with."""

    kind: str  # Pod, Secret or Node
    name: str
    uid: str

    @property
    def plural(self) -> str:
        return f"{self.kind.lower()}s"


def plan_claims(
    *,
    issuer: str,
    namespace: str,
    name: str,
    uid: str,
    audiences: Sequence[str],
    issued: float,
    seconds: int,
    token_id: str,
    bound: Bound | None = None,
    node: Bound | None = None,
) -> dict[str, Any]:
    """The claims of a token."""
    private: dict[str, Any] = {"namespace": namespace}
    for each in (node, bound):
        if each is not None:
            private[each.kind.lower()] = {"name": each.name, "uid": each.uid}
    private["serviceaccount"] = {"name": name, "uid": uid}
    return {
        "aud": list(audiences),
        "exp": int(issued) + seconds,
        "iat": int(issued),
        "iss": issuer,
        "jti": token_id,
        PRIVATE_CLAIM: private,
        "nbf": int(issued),
        "sub": f"{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}",
    }


def user_of(claims: Mapping[str, Any]) -> UserInfo:
    """The user that claims speak of."""
    private = claims[PRIVATE_CLAIM]
    namespace, account = private["namespace"], private["serviceaccount"]
    extra: dict[str, tuple[str, ...]] = {}
    if claims.get("jti"):
        extra[f"{_EXTRA}credential-id"] = (f"JTI={claims['jti']}",)
    for kind in ("pod", "node"):
        if kind in private:
            extra[f"{_EXTRA}{kind}-name"] = (private[kind]["name"],)
            extra[f"{_EXTRA}{kind}-uid"] = (private[kind]["uid"],)
    groups = (ALL_SERVICE_ACCOUNTS, f"{ALL_SERVICE_ACCOUNTS}:{namespace}", ALL_AUTHENTICATED)
    return UserInfo(f"{SERVICE_ACCOUNT_PREFIX}{namespace}:{account['name']}", groups, account["uid"], extra)


def check_claims(claims: Mapping[str, Any], *, issuer: str, now: float) -> None:
    """What can be judged without looking anything up. Raises BadToken."""
    try:
        if claims["iss"] != issuer:
            raise BadToken("unknown issuer")
        if now > float(claims["exp"]) + LEEWAY:
            raise BadToken("service account token has expired")
        if now < float(claims.get("nbf", 0)) - LEEWAY:
            raise BadToken("service account token is not valid yet")
        private = claims[PRIVATE_CLAIM]
        if claims["sub"] != f"{SERVICE_ACCOUNT_PREFIX}{private['namespace']}:{private['serviceaccount']['name']}":
            raise BadToken("service account token has an inconsistent subject")
    except (KeyError, TypeError, ValueError) as exc:
        if isinstance(exc, BadToken):
            raise
        raise BadToken("malformed claims") from exc


class ServiceAccountTokens:
    """Issues and verifies tokens. `read` looks objects up without authorization."""

    def __init__(self, clock: Clock, key: TokenKey, read: MetadataReader, issuer: str = DEFAULT_ISSUER) -> None:
        self.issuer = issuer
        self.key = key
        self._clock = clock
        self._read = read

    async def claims(self, token: str) -> Mapping[str, Any]:
        """The claims of a token that counts now, whatever its audience. Raises BadToken."""
        if unverified_issuer(token) != self.issuer:
            raise BadToken("unknown issuer")
        claims = self.key.verify(token)
        check_claims(claims, issuer=self.issuer, now=self._clock.now().timestamp())
        private = claims[PRIVATE_CLAIM]
        namespace = private["namespace"]
        await self._exists("serviceaccounts", namespace, private["serviceaccount"])
        for kind in ("pod", "secret"):
            if kind in private:
                await self._exists(f"{kind}s", namespace, private[kind])
        if "node" in private and "pod" not in private:
            await self._exists("nodes", "", private["node"])
        return claims

    async def _exists(self, plural: str, namespace: str, reference: Mapping[str, str]) -> None:
        try:
            meta = await self._read(plural, namespace, reference["name"])
        except StatusError as exc:
            raise BadToken(f"cannot look up {plural}: {exc.message}") from exc
        if meta is None or meta.get("uid") != reference.get("uid"):
            raise BadToken(f"the {plural[:-1]} of the token has been deleted")
        if plural in ("pods", "secrets") and meta.get("deletionTimestamp") and self._long_gone(meta):
            raise BadToken(f"the {plural[:-1]} of the token is being deleted")

    def _long_gone(self, meta: Mapping[str, Any]) -> bool:
        from machinery.meta import parse_time

        return self._clock.now().timestamp() > parse_time(meta["deletionTimestamp"]).timestamp() + 60

    async def authenticate(self, token: str, audiences: Sequence[str] = ()) -> UserInfo:
        """The user of a token for this API server (or one of `audiences`). Raises Unauthorized."""
        try:
            claims = await self.claims(token)
        except BadToken as exc:
            raise Unauthorized from exc
        if not set(claims.get("aud") or ()) & set(audiences or (self.issuer,)):
            raise Unauthorized
        return user_of(claims)
