"""Bootstrap tokens: signs `cluster-info` with each, and removes those that have expired.

Owns the `jws-kubeconfig-<id>` entries of the ConfigMap kube-public/cluster-info, by which a machine that knows a token
can trust the cluster's address and authority before it trusts anything else. Tokens themselves are made by people.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata; the models call it optional.

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from api.models import core_v1
from client.client import Client, key_of
from client.controller import DONE, Controller, Result
from client.informer import Informer
from controller_manager.environment import Environment
from machinery import log
from machinery.clock import Clock
from machinery.errors import Conflict, NotFound
from machinery.jwt import detached_signature
from machinery.log import kv
from machinery.meta import ObjectKey, parse_time

TYPE: Final = "bootstrap.kubernetes.io/token"
PREFIX: Final = "bootstrap-token-"
CLUSTER_INFO: Final = ObjectKey("kube-public", "cluster-info")
KUBECONFIG: Final = "kubeconfig"
SIGNATURE: Final = "jws-kubeconfig-"
_ID = re.compile(r"[a-z0-9]{6}")
_log = log.get(__name__)


class Token(NamedTuple):
    """What a token's Secret says. `expires` is None for one that never does."""

    id: str
    secret: str
    expires: datetime | None
    signs: bool


def read_token(secret: core_v1.Secret) -> Token | None:
    """The token of a Secret; None when it is none, or its parts do not fit together."""
    name = secret.metadata.name or ""
    if secret.type != TYPE or not name.startswith(PREFIX):
        return None

    def text(key: str) -> str:
        try:
            return base64.b64decode((secret.data or {}).get(key) or "").decode()
        except ValueError:
            return ""

    identity, value = text("token-id"), text("token-secret")
    if not _ID.fullmatch(identity) or name != PREFIX + identity or not value:
        return None
    expires = None
    if text("expiration"):
        try:
            expires = parse_time(text("expiration"))
        except ValueError:
            return None
    return Token(identity, value, expires, text("usage-bootstrap-signing") == "true")


def plan_signatures(data: Mapping[str, str], tokens: Iterable[Token], now: datetime) -> dict[str, str | None]:
    """Changes of cluster-info's data: signatures that are missing or wrong, and (None) those that must go."""
    content = data.get(KUBECONFIG)
    wanted: dict[str, str] = {}
    if content is not None:
        for token in tokens:
            if token.signs and (token.expires is None or token.expires > now):
                wanted[SIGNATURE + token.id] = detached_signature(content.encode(), token.id, token.secret)
    gone: dict[str, str | None] = {key: None for key in data if key.startswith(SIGNATURE) and key not in wanted}
    return {**gone, **{key: value for key, value in wanted.items() if data.get(key) != value}}


def _secrets(env: Environment) -> Informer[core_v1.Secret]:
    return env.informers.informer(core_v1.Secret, namespace="kube-system", field_selector=f"type={TYPE}")


class BootstrapSigner:
    """Keeps cluster-info signed."""

    def __init__(self, env: Environment) -> None:
        self._client: Client = env.client
        self._clock: Clock = env.clock
        self._secrets = _secrets(env)
        self._maps: Informer[core_v1.ConfigMap] = env.informers.informer(
            core_v1.ConfigMap, namespace="kube-public", field_selector=f"metadata.name={CLUSTER_INFO.name}"
        )
        self.controller = Controller(
            "bootstrapsigner", self.reconcile, clock=env.clock, informers=[self._secrets, self._maps]
        )
        self.controller.watches(self._secrets, self._cluster_info)
        self.controller.watches(self._maps, self._cluster_info)

    @staticmethod
    def _cluster_info(_: Any) -> Iterable[ObjectKey]:
        return (CLUSTER_INFO,)

    async def reconcile(self, key: ObjectKey) -> Result:
        found = self._maps.lister.get(key)
        if found is None:
            return DONE
        now = self._clock.now()
        tokens = [token for each in self._secrets.lister.list() if (token := read_token(each)) is not None]
        changes = plan_signatures(found.data or {}, tokens, now)
        if changes:
            await self._client.patch(
                core_v1.ConfigMap,
                key.name,
                {"data": changes},
                key.namespace,
                resource_version=found.metadata.resourceVersion,
            )
        return DONE


class TokenCleaner:
    """Deletes expired tokens."""

    def __init__(self, env: Environment) -> None:
        self._client: Client = env.client
        self._clock: Clock = env.clock
        self._secrets = _secrets(env)
        self.controller = Controller("tokencleaner", self.reconcile, clock=env.clock, informers=[self._secrets])
        self.controller.watches(self._secrets, lambda secret: (key_of(secret),))

    async def reconcile(self, key: ObjectKey) -> Result:
        secret = self._secrets.lister.get(key)
        token = read_token(secret) if secret is not None else None
        if secret is None or token is None or token.expires is None or secret.metadata.deletionTimestamp is not None:
            return DONE
        left = -self._clock.elapsed(token.expires)
        if left > 0:
            return Result(requeue_after=left)
        try:
            await self._client.delete(core_v1.Secret, key.name, key.namespace, uid=secret.metadata.uid)
        except (NotFound, Conflict):
            return DONE
        _log.info("Deleted an expired bootstrap token", extra=kv(secret=key))
        return DONE


def build_signer(env: Environment) -> list[Controller]:
    return [BootstrapSigner(env).controller]


def build_cleaner(env: Environment) -> list[Controller]:
    return [TokenCleaner(env).controller]
