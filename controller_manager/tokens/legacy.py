"""Lasting tokens that nobody uses: marks those that were made for accounts of old as invalid, later deletes them.

Owns the label `kubernetes.io/legacy-token-invalid-since`. Kubernetes before 1.24 made such a Secret for every account
and named it in `secrets` of the account; those that people made are not named there and are left alone. Looks once a
day; both steps need a year without use, and a year in which the API server has noted uses.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata; the models call it optional.

from __future__ import annotations

import datetime as dates
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from enum import Enum
from typing import Final

from api import resources
from api.models import core_v1
from client.client import Client, key_of
from client.informer import Informer
from controller_manager.environment import Environment, Runnable
from controller_manager.tokens.service_accounts import ACCOUNT_UID, TYPE, account_of
from machinery import log
from machinery.clock import Clock
from machinery.errors import NotFound, StatusError
from machinery.log import kv
from machinery.meta import ObjectKey

LAST_USED: Final = "kubernetes.io/legacy-token-last-used"
INVALID_SINCE: Final = "kubernetes.io/legacy-token-invalid-since"
TRACKING: Final = "kube-apiserver-legacy-service-account-token-tracking"
PERIOD: Final = timedelta(days=365)
LOOKS: Final = 24 * 3600.0
"""Cluster seconds."""
_log = log.get(__name__)


class Step(Enum):
    """What is due for a token."""

    KEEP = "keep"
    INVALIDATE = "invalidate"
    DELETE = "delete"


def _day(text: str | None) -> date | None:
    try:
        return dates.datetime.strptime(text or "", "%Y-%m-%d").date()
    except ValueError:
        return None


def plan_step(secret: core_v1.Secret, account: core_v1.ServiceAccount | None, now: datetime, *, mounted: bool) -> Step:
    """What is due for the Secret of a token. A label that is no date says nothing about use: the token stays."""
    meta = secret.metadata
    labels, since = meta.labels or {}, (now - PERIOD).date()
    if secret.type != TYPE or meta.deletionTimestamp is not None or meta.creationTimestamp is None:
        return Step.KEEP
    if meta.creationTimestamp >= now - PERIOD:
        return Step.KEEP
    if LAST_USED in labels:
        used = _day(labels[LAST_USED])
        if used is None or used >= since:
            return Step.KEEP
    if account is None or (meta.annotations or {}).get(ACCOUNT_UID) != account.metadata.uid:
        return Step.KEEP
    if meta.name not in {each.name for each in account.secrets or ()} or mounted:
        return Step.KEEP
    invalid = _day(labels.get(INVALID_SINCE))
    if invalid is None:
        return Step.INVALIDATE
    return Step.KEEP if invalid >= since else Step.DELETE


def mounted_secrets(pods: Iterable[core_v1.Pod]) -> set[ObjectKey]:
    """The Secrets that pods have as volumes, or take environment or image credentials from."""
    found: set[ObjectKey] = set()
    for pod in pods:
        spec = pod.spec
        names: set[str | None] = {each.name for each in spec.imagePullSecrets or ()}
        for volume in spec.volumes or ():
            if volume.secret is not None:
                names.add(volume.secret.secretName)
            for source in (volume.projected.sources if volume.projected is not None else None) or ():
                if source.secret is not None:
                    names.add(source.secret.name)
        for container in (*(spec.containers or ()), *(spec.initContainers or ())):
            names |= {each.secretRef.name for each in container.envFrom or () if each.secretRef is not None}
            for variable in container.env or ():
                if variable.valueFrom is not None and variable.valueFrom.secretKeyRef is not None:
                    names.add(variable.valueFrom.secretKeyRef.name)
        found |= {ObjectKey(pod.metadata.namespace or "", name) for name in names if name}
    return found


class LegacyTokenCleaner:
    """Reads Secrets, accounts and pods; labels and deletes Secrets."""

    name = "legacy-service-account-token-cleaner"

    def __init__(self, env: Environment) -> None:
        self._client: Client = env.client
        self._clock: Clock = env.clock
        self._secrets: Informer[core_v1.Secret] = env.informers.informer(core_v1.Secret, field_selector=f"type={TYPE}")
        self._accounts: Informer[core_v1.ServiceAccount] = env.informers.informer(core_v1.ServiceAccount)
        self._pods: Informer[core_v1.Pod] = env.informers.informer(core_v1.Pod)

    async def run(self) -> None:
        """Look every day until cancelled."""
        for informer in (self._secrets, self._accounts, self._pods):
            await informer.wait_synced()
        while True:
            try:
                await self.clean()
            except StatusError as error:
                _log.warning("Could not clean up tokens", extra=kv(error=error.message))
            await self._clock.sleep(LOOKS)

    async def clean(self) -> None:
        """One look. Raises StatusError."""
        now = self._clock.now()
        tracked = _day((await self._tracking()).get("since"))
        if tracked is None or now.date() < tracked + PERIOD:
            return
        mounted = mounted_secrets(self._pods.lister.list())
        for secret in self._secrets.lister.list():
            key = key_of(secret)
            step = plan_step(secret, self._accounts.lister.get(account_of(secret)), now, mounted=key in mounted)
            if step is not Step.KEEP:
                await self._take(step, key, secret, now)

    async def _tracking(self) -> dict[str, str]:
        try:
            found = await self._client.get(resources.of(core_v1.ConfigMap), TRACKING, "kube-system")
        except NotFound:
            return {}
        return found.get("data") or {}

    async def _take(self, step: Step, key: ObjectKey, secret: core_v1.Secret, now: datetime) -> None:
        meta = secret.metadata
        try:
            if step is Step.DELETE:
                await self._client.delete(
                    core_v1.Secret, key.name, key.namespace, uid=meta.uid, resource_version=meta.resourceVersion
                )
                _log.info("Deleted an unused token", extra=kv(secret=key))
                return
            label = {"metadata": {"labels": {INVALID_SINCE: f"{now:%Y-%m-%d}"}}}
            await self._client.patch(
                core_v1.Secret, key.name, label, key.namespace, resource_version=meta.resourceVersion
            )
            _log.info("Marked an unused token as invalid", extra=kv(secret=key))
        except StatusError as error:
            # It has changed or gone meanwhile; tomorrow is another day.
            _log.debug("Left an unused token", extra=kv(secret=key, error=error.message))


def build(env: Environment) -> list[Runnable]:
    return [LegacyTokenCleaner(env)]
