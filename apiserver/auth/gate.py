"""The gate every request passes: who is it, may they act for somebody else, may they do this.

Owns: the order of authenticators and authorizers and the rules of impersonation. Called by the REST and the gRPC door
with what their transport knows (certificate, headers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from urllib.parse import unquote

from apiserver.auth.attributes import ALLOWED, NO_OPINION, Attributes, Authorizes, Decision, forbidden
from apiserver.auth.authentication import Authenticator
from apiserver.auth.user import (
    ALL_AUTHENTICATED,
    ALL_SERVICE_ACCOUNTS,
    ALL_UNAUTHENTICATED,
    ANONYMOUS,
    ANONYMOUS_USER,
    MASTERS,
    SERVICE_ACCOUNT_PREFIX,
    UserInfo,
)
from machinery.errors import BadRequest, Forbidden, ServiceUnavailable

USER = b"impersonate-user"
GROUP = b"impersonate-group"
UID = b"impersonate-uid"
EXTRA = b"impersonate-extra-"


class Gate:
    """Authentication and authorization in one place, shared by both doors."""

    def __init__(self, authenticator: Authenticator, authorizers: Sequence[Authorizes]) -> None:
        self._authenticator = authenticator
        self._authorizers = tuple(authorizers)
        self.synced = True  # False while the authorizers do not know the roles yet

    async def authenticate(self, peer: UserInfo | None, authorization: bytes | None) -> UserInfo:
        """The user of a request: by certificate, else by bearer token, else anonymous. Raises Unauthorized."""
        if peer is not None:
            return peer
        if authorization is not None:
            user = await self._authenticator.header(authorization.decode("latin-1"))
            if user is not None:
                return user
        return ANONYMOUS_USER

    def decide(self, user: UserInfo, asked: Attributes) -> Decision:
        """The first authorizer that allows; the refusals' reasons otherwise."""
        if MASTERS in user.groups:
            return ALLOWED
        if not self.synced:
            raise ServiceUnavailable("the server has not read its roles yet")
        reasons = []
        for authorizer in self._authorizers:
            decision = authorizer.decide(user, asked)
            if decision.allowed:
                return decision
            if decision.reason:
                reasons.append(decision.reason)
        return Decision(False, ", ".join(reasons)) if reasons else NO_OPINION

    def authorize(self, user: UserInfo, asked: Attributes) -> None:
        """Raises Forbidden unless the user may do this."""
        if MASTERS in user.groups:
            return
        decision = self.decide(user, asked)
        if not decision.allowed:
            raise forbidden(user, asked, decision.reason)

    def creates(self, user: UserInfo, asked: Attributes) -> Callable[[], None] | None:
        """Asked when a PUT or an apply finds nothing to change and would create: raises Forbidden without the right.

        None where every right is given anyway.
        """
        if MASTERS in user.groups:
            return None

        def check() -> None:
            wanted = replace(asked, verb="create")
            decision = self.decide(user, wanted)
            if not decision.allowed:
                raise Forbidden.of(wanted.resource, wanted.name, wanted.group, decision.reason)

        return check

    def impersonate(self, user: UserInfo, headers: Iterable[tuple[bytes, bytes]]) -> UserInfo:
        """The user that the Impersonate-* headers ask for, if the real one may. Raises Forbidden or BadRequest."""
        name, uid = "", ""
        groups: list[str] = []
        extra: dict[str, list[str]] = {}
        for key, value in headers:
            if key == USER:
                name = value.decode("utf-8", "replace")
            elif key == GROUP:
                groups.append(value.decode("utf-8", "replace"))
            elif key == UID:
                uid = value.decode("utf-8", "replace")
            elif key.startswith(EXTRA):
                extra_key = unquote(key[len(EXTRA) :].decode("latin-1")).lower()
                extra.setdefault(extra_key, []).append(value.decode("utf-8", "replace"))
        if not name:
            if not (groups or uid or extra):
                return user
            raise BadRequest(f"requested {_go_user(uid, groups, extra)} without impersonating a user name")
        service_account = _service_account(name)
        if service_account is not None:
            self._may(user, "serviceaccounts", service_account[1], namespace=service_account[0])
        else:
            self._may(user, "users", name)
        for wanted in groups:
            self._may(user, "groups", wanted)
        for extra_key, values in extra.items():
            for item in values:
                self._may(user, "userextras", item, group="authentication.k8s.io", subresource=extra_key)
        if uid:
            self._may(user, "uids", uid, group="authentication.k8s.io")
        if service_account is not None and not groups:
            groups = [ALL_SERVICE_ACCOUNTS, f"{ALL_SERVICE_ACCOUNTS}:{service_account[0]}"]
        everybody = ALL_UNAUTHENTICATED if name == ANONYMOUS else ALL_AUTHENTICATED
        if ALL_AUTHENTICATED not in groups and ALL_UNAUTHENTICATED not in groups:
            groups.append(everybody)
        return UserInfo(name, tuple(groups), uid, {key: tuple(values) for key, values in extra.items()})

    def _may(
        self, user: UserInfo, resource: str, name: str, *, group: str = "", subresource: str = "", namespace: str = ""
    ) -> None:
        asked = Attributes(
            verb="impersonate",
            is_resource=True,
            group=group,
            version="v1" if group else "",
            resource=resource,
            namespace=namespace,
            name=name,
            subresource=subresource,
        )
        self.authorize(user, asked)


def _service_account(name: str) -> tuple[str, str] | None:
    if not name.startswith(SERVICE_ACCOUNT_PREFIX):
        return None
    namespace, colon, account = name[len(SERVICE_ACCOUNT_PREFIX) :].partition(":")
    return (namespace, account) if colon and namespace and account and ":" not in account else None


def _go_user(uid: str, groups: Sequence[str], extra: dict[str, list[str]]) -> str:
    quoted = ", ".join(f'"{group}"' for group in groups)
    shown = f"[]string{{{quoted}}}" if groups else "[]string(nil)"
    more = ", ".join(f'"{key}":[]string{{{", ".join(map(repr, values))}}}' for key, values in extra.items())
    extras = f"map[string][]string{{{more}}}" if extra else "map[string][]string(nil)"
    return f'&user.DefaultInfo{{Name:"", UID:"{uid}", Groups:{shown}, Extra:{extras}}}'
