"""Lasting tokens of service accounts: fills Secrets of type kubernetes.io/service-account-token.

Owns the data `token`, `ca.crt` and `namespace` and the uid annotation of such Secrets, and their deletion with their
account. Pods do not use them (theirs are projected); programs outside the cluster do.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata; the models call it optional.

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any, Final

from api.models import core_v1
from client.client import Client, key_of
from client.controller import DONE, Controller, Result
from client.informer import Informer
from controller_manager.environment import Environment
from machinery import log
from machinery.errors import Conflict, NotFound
from machinery.jwt import TokenKey
from machinery.log import kv
from machinery.meta import ObjectKey

TYPE: Final = "kubernetes.io/service-account-token"
ACCOUNT_NAME: Final = "kubernetes.io/service-account.name"
ACCOUNT_UID: Final = "kubernetes.io/service-account.uid"
ISSUER: Final = "kubernetes/serviceaccount"
_log = log.get(__name__)


def plan_claims(secret: core_v1.Secret, account: core_v1.ServiceAccount) -> dict[str, str]:
    """What the token of a Secret says; it never expires, it ends with the Secret or the account."""
    namespace, name = secret.metadata.namespace or "", account.metadata.name or ""
    return {
        "iss": ISSUER,
        f"{ISSUER}/namespace": namespace,
        f"{ISSUER}/secret.name": secret.metadata.name or "",
        f"{ISSUER}/service-account.name": name,
        f"{ISSUER}/service-account.uid": account.metadata.uid or "",
        "sub": f"system:serviceaccount:{namespace}:{name}",
    }


def account_of(secret: core_v1.Secret) -> ObjectKey:
    """The account a Secret belongs to."""
    annotations = secret.metadata.annotations or {}
    return ObjectKey(secret.metadata.namespace or "", annotations.get(ACCOUNT_NAME, ""))


class TokenController:
    """Reads Secrets and accounts, fills or deletes Secrets."""

    def __init__(self, env: Environment, key: TokenKey) -> None:
        self._client: Client = env.client
        self._key = key
        self._ca = env.options.root_ca
        self._secrets: Informer[core_v1.Secret] = env.informers.informer(core_v1.Secret, field_selector=f"type={TYPE}")
        self._accounts: Informer[core_v1.ServiceAccount] = env.informers.informer(core_v1.ServiceAccount)
        self.controller = Controller(
            "serviceaccount-token", self.reconcile, clock=env.clock, informers=[self._secrets, self._accounts]
        )
        self.controller.watches(self._secrets)
        self.controller.watches(self._accounts, self._secrets_of)

    def _secrets_of(self, account: core_v1.ServiceAccount) -> Iterable[ObjectKey]:
        wanted = key_of(account)
        return [key_of(each) for each in self._secrets.lister.list() if account_of(each) == wanted]

    async def reconcile(self, key: ObjectKey) -> Result:
        secret = self._secrets.lister.get(key)
        if secret is None or secret.metadata.deletionTimestamp is not None:
            return DONE
        account = self._accounts.lister.get(account_of(secret))
        known = (secret.metadata.annotations or {}).get(ACCOUNT_UID)
        if account is None or (known and known != account.metadata.uid):
            await self._delete_orphan(key, secret, known)
            return DONE
        changes = self._plan(secret, account)
        if changes:
            await self._client.patch(
                core_v1.Secret, key.name, changes, key.namespace, resource_version=secret.metadata.resourceVersion
            )
        return DONE

    async def _delete_orphan(self, key: ObjectKey, secret: core_v1.Secret, known: str | None) -> None:
        """Delete a Secret whose account is gone; the cache may lag behind an account that was just made."""
        try:
            live = await self._client.get(core_v1.ServiceAccount, account_of(secret).name, key.namespace)
            if not known or live.metadata.uid == known:
                self.controller.enqueue_after(key, 1.0)
                return
        except NotFound:
            pass
        try:
            await self._client.delete(core_v1.Secret, key.name, key.namespace, uid=secret.metadata.uid)
        except (NotFound, Conflict):
            return
        _log.info("Deleted the token of a service account that is gone", extra=kv(secret=key))

    def _plan(self, secret: core_v1.Secret, account: core_v1.ServiceAccount) -> dict[str, Any]:
        data = secret.data or {}
        namespace = secret.metadata.namespace or ""
        wanted = {"namespace": _encoded(namespace)}
        if self._ca:
            wanted["ca.crt"] = _encoded(self._ca)
        if not data.get("token"):
            wanted["token"] = _encoded(self._key.sign(plan_claims(secret, account)))
        changed = {name: value for name, value in wanted.items() if data.get(name) != value}
        patch: dict[str, Any] = {"data": changed} if changed else {}
        if (secret.metadata.annotations or {}).get(ACCOUNT_UID) != account.metadata.uid:
            patch["metadata"] = {"annotations": {ACCOUNT_UID: account.metadata.uid}}
        return patch


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def build(env: Environment) -> list[Controller]:
    key = env.options.service_account_key
    return [TokenController(env, TokenKey(key)).controller] if key is not None else []
