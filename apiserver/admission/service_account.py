"""ServiceAccount: every pod runs as a service account that exists, and takes its image pull secrets from it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from apiserver.admission.refusal import forbidden
from apiserver.registry.context import RequestContext
from apiserver.registry.hooks import CREATE, Obj
from apiserver.registry.store import Registry
from apiserver.storage.entry import Entry

if TYPE_CHECKING:
    from api.resources import Resource

MIRROR = "kubernetes.io/config.mirror"
DEFAULT = "default"
TRIES, PAUSE = 10, 0.1
"""A new namespace's account is made by a controller a moment later; upstream waits for it as long (real seconds)."""


class ServiceAccount:
    """Pods at creation."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def admit(
        self,
        ctx: RequestContext,
        op: str,
        resource: Resource,
        namespace: str,
        name: str,
        new: Obj | None,
        old: Obj | None,
        subresource: str,
    ) -> None:
        if op != CREATE or subresource or resource.plural != "pods" or resource.group or new is None:
            return
        spec = new.get("spec")
        if not isinstance(spec, dict) or MIRROR in (new["metadata"].get("annotations") or {}):
            return
        account = spec.get("serviceAccountName") or spec.get("serviceAccount") or DEFAULT
        spec["serviceAccountName"] = spec["serviceAccount"] = account
        entry = await self._find(namespace, account)
        if entry is None:
            text = f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
            raise forbidden(resource, name, new, text)
        if not spec.get("imagePullSecrets") and b'"imagePullSecrets"' in entry.raw:
            secrets = entry.decoded().get("imagePullSecrets")
            if secrets:
                spec["imagePullSecrets"] = secrets

    async def _find(self, namespace: str, account: str) -> Entry | None:
        accounts = self._registry.resource("", "v1", "serviceaccounts")
        for attempt in range(TRIES):
            entry = accounts.peek(namespace, account)
            if entry is not None:
                return entry
            if attempt == 0:
                await accounts.sync()
            elif account == DEFAULT:
                await asyncio.sleep(PAUSE)
            else:
                break
        return None
