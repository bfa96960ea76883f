"""Who asks, and may they?

Owns: authentication (the API server speaking for a user, a client certificate, a bearer token) and the questions to the
API server that decide the rest, kept for some seconds. As upstream's delegated authentication and authorization. Called
by `aggregated.handlers`.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from aggregated.door import Asked, Certificate
from client.client import Client
from machinery.clock import Clock
from machinery.errors import Forbidden, Unauthorized

MASTERS = "system:masters"
AUTHENTICATED, UNAUTHENTICATED = "system:authenticated", "system:unauthenticated"
KEPT_SECONDS = 10.0
KEPT_LIMIT = 4096
_EXTRA = b"x-remote-extra-"
Obj = dict[str, Any]
Name = tuple[tuple[tuple[str, str], ...], ...]
"""A distinguished name as the ssl module tells it."""


@dataclass(frozen=True)
class User:
    """authentication.k8s.io UserInfo."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)


ANONYMOUS = User("system:anonymous", (UNAUTHENTICATED,))


@dataclass(frozen=True)
class Authorities:
    """Whose certificates count, as PEM. The front proxy's speak for others, so both must have names of their own."""

    client: str
    front_proxy: str
    allowed_names: tuple[str, ...] = ("front-proxy-client",)

    @cached_property
    def front_proxy_subjects(self) -> frozenset[Name]:
        """Raises ValueError when the authorities cannot be told apart."""
        found = _subjects(self.front_proxy)
        if not found or found & _subjects(self.client):
            raise ValueError("the authorities of clients and of the front proxy need names of their own")
        return found


def _subjects(pem: str) -> frozenset[Name]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_verify_locations(cadata=pem)
    return frozenset(each["subject"] for each in context.get_ca_certs())  # type: ignore[misc]


def user_of(asked: Asked, authorities: Authorities) -> User | None:
    """The user that the connection and the headers prove; None when only a token could."""
    certificate = asked.certificate
    if certificate is None:
        return None
    name, organizations = _subject(certificate)
    # The chain is verified and neither authority may sign others, so the issuer's name tells which of them it was.
    if certificate.get("issuer") not in authorities.front_proxy_subjects:
        return User(name, (*organizations, AUTHENTICATED)) if name else None
    if authorities.allowed_names and name not in authorities.allowed_names:
        return None
    return _spoken_for(asked)


def _spoken_for(asked: Asked) -> User | None:
    name, uid = asked.header(b"x-remote-user"), asked.header(b"x-remote-uid")
    if not name:
        return None
    groups, extra = [], dict[str, tuple[str, ...]]()
    for key, value in asked.headers:
        text = value.decode("utf-8", "replace")
        if key == b"x-remote-group":
            groups.append(text)
        elif key.startswith(_EXTRA):
            extra_key = unquote_to_bytes(key[len(_EXTRA) :]).decode("utf-8", "replace").lower()
            extra[extra_key] = (*extra.get(extra_key, ()), text)
    return User(name, tuple(groups), uid, extra)


def _subject(certificate: Certificate) -> tuple[str, list[str]]:
    pairs = [pair for rdn in certificate.get("subject", ()) for pair in rdn]
    names = [value for key, value in pairs if key == "commonName"]
    return (names[-1] if names else ""), [value for key, value in pairs if key == "organizationName"]


class Reviews(Protocol):
    """The API server's part."""

    async def token(self, token: str) -> User | None: ...
    async def allowed(self, user: User, attributes: Mapping[str, str], path: str) -> tuple[bool, str]: ...


class ApiReviews:
    """`Reviews` by TokenReview and SubjectAccessReview."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def token(self, token: str) -> User | None:
        review: Obj = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "metadata": {},
            "spec": {"token": token},
        }
        status = (await self._client.create(review)).get("status") or {}
        if not status.get("authenticated"):
            return None
        found = status.get("user") or {}
        extra = {key: tuple(values) for key, values in (found.get("extra") or {}).items()}
        return User(found.get("username") or "", tuple(found.get("groups") or ()), found.get("uid") or "", extra)

    async def allowed(self, user: User, attributes: Mapping[str, str], path: str) -> tuple[bool, str]:
        spec: Obj = {"user": user.name, "groups": list(user.groups)}
        if user.uid:
            spec["uid"] = user.uid
        if user.extra:
            spec["extra"] = {key: list(values) for key, values in user.extra.items()}
        if path:
            spec["nonResourceAttributes"] = {"path": path, "verb": "get"}
        else:
            spec["resourceAttributes"] = {key: value for key, value in attributes.items() if value}
        review: Obj = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "metadata": {},
            "spec": spec,
        }
        status = (await self._client.create(review)).get("status") or {}
        return bool(status.get("allowed")), status.get("reason") or ""


class Access:
    """The gate of every request. Raises Unauthorized and Forbidden."""

    def __init__(self, authorities: Authorities, reviews: Reviews, clock: Clock) -> None:
        self._authorities = authorities
        self._reviews = reviews
        self._clock = clock
        self._tokens: dict[str, tuple[float, User | None]] = {}
        self._decisions: dict[tuple[Any, ...], tuple[float, bool, str]] = {}

    async def authenticate(self, asked: Asked) -> User:
        """The user of a request."""
        user = user_of(asked, self._authorities)
        if user is not None:
            return user
        scheme, _, token = asked.header(b"authorization").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return ANONYMOUS
        found = await self._token(token.strip())
        if found is None:
            raise Unauthorized
        return found

    async def _token(self, token: str) -> User | None:
        now = self._clock.monotonic()
        kept = self._tokens.get(token)
        if kept is not None and now < kept[0]:
            return kept[1]
        found = await self._reviews.token(token)
        if len(self._tokens) >= KEPT_LIMIT:
            self._tokens.clear()
        self._tokens[token] = (now + KEPT_SECONDS, found)
        return found

    async def authorize(self, user: User, attributes: Mapping[str, str], path: str = "") -> None:
        """May the user do this to a resource, or read this path? Raises Forbidden."""
        if MASTERS in user.groups:
            return
        now, key = self._clock.monotonic(), (user, tuple(attributes.items()), path)
        kept = self._decisions.get(key)
        if kept is None or now >= kept[0]:
            allowed, reason = await self._reviews.allowed(user, attributes, path)
            if len(self._decisions) >= KEPT_LIMIT:
                self._decisions.clear()
            kept = self._decisions[key] = (now + KEPT_SECONDS, allowed, reason)
        if not kept[1]:
            raise _forbidden(user, attributes, path)


def _forbidden(user: User, attributes: Mapping[str, str], path: str) -> Forbidden:
    if path:
        text = f'forbidden: User "{user.name}" cannot get path "{path}"'
        return Forbidden(text, details={})
    resource, group, namespace = attributes["resource"], attributes["group"], attributes.get("namespace", "")
    name, subresource = attributes.get("name", ""), attributes.get("subresource", "")
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    quoted = f' "{name}"' if name else ""
    asked = f"{resource}/{subresource}" if subresource else resource
    may_not = f'User "{user.name}" cannot {attributes["verb"]} resource "{asked}" in API group "{group}" {where}'
    text = f"{resource}.{group}{quoted} is forbidden: {may_not}"
    details = {"group": group, "kind": resource}
    return Forbidden(text, details={"name": name, **details} if name else details)
