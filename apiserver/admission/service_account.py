"""ServiceAccount: every pod runs as a service account that exists, takes its pull secrets and mounts its token."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from apiserver.admission.refusal import forbidden
from apiserver.registry.context import RequestContext
from apiserver.registry.hooks import CREATE, Obj
from apiserver.registry.naming import generated_name
from apiserver.registry.store import Registry
from apiserver.storage.entry import Entry

if TYPE_CHECKING:
    from api.resources import Resource

MIRROR = "kubernetes.io/config.mirror"
DEFAULT = "default"
TRIES, PAUSE = 10, 0.1
"""A new namespace's account is made by a controller a moment later; upstream waits for it as long (real seconds)."""

TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_SECONDS = 3607
"""An hour and a little, by which upstream tells its own tokens from those that users ask for."""


def mount_token(spec: Obj, name: str) -> None:
    """Give every container that has nothing at the usual path a volume with token, CA and namespace."""
    mounted = False
    for field in ("initContainers", "containers"):
        containers = spec.get(field)
        if not containers:
            continue
        changed = []
        for container in containers:
            mounts = container.get("volumeMounts") or []
            if not any(mount.get("mountPath") == TOKEN_PATH for mount in mounts):
                mounts = [*mounts, {"name": name, "readOnly": True, "mountPath": TOKEN_PATH}]
                container = {**container, "volumeMounts": mounts}
                mounted = True
            changed.append(container)
        spec[field] = changed
    if mounted:
        spec["volumes"] = [*(spec.get("volumes") or []), _token_volume(name)]


def _token_volume(name: str) -> Obj:
    field = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}},
    ]
    return {"name": name, "projected": {"sources": sources, "defaultMode": 420}}


class ServiceAccount:
    """Pods at creation. `token_volumes` needs a server that signs tokens and a kubelet that mounts them."""

    def __init__(self, registry: Registry, *, token_volumes: bool = False) -> None:
        self._registry = registry
        self._token_volumes = token_volumes

    def handles(self, resource: Resource) -> bool:
        return resource.plural == "pods" and not resource.group

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
        if self._token_volumes and _wants_token(spec, entry):
            mount_token(spec, generated_name("kube-api-access-"))

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


def _wants_token(spec: Obj, account: Entry) -> bool:
    """The pod's word counts before the account's."""
    own = spec.get("automountServiceAccountToken")
    if own is None and b'"automountServiceAccountToken"' in account.raw:
        own = account.decoded().get("automountServiceAccountToken")
    return own is not False
