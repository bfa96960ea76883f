"""NamespaceLifecycle: nothing is created in a namespace that is missing or going; the first namespaces stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apiserver.admission.refusal import forbidden
from apiserver.registry.context import RequestContext
from apiserver.registry.hooks import CREATE, DELETE, Obj
from apiserver.registry.store import Registry
from apiserver.storage.entry import Entry
from machinery.errors import Cause, NotFound

if TYPE_CHECKING:
    from api.resources import Resource

REVIEWS = "authorization.k8s.io"
"""Whoever asks about rights in a namespace shall not learn from the answer whether there is one."""
IMMORTAL = frozenset({"default", "kube-system", "kube-public"})


class NamespaceLifecycle:
    """Reads namespaces from the cache; one that is not there is looked for again in a cache brought up to date."""

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
        if op == CREATE and namespace and resource.group != REVIEWS:
            await self._check_alive(resource, namespace, name, new)
        elif op == DELETE and name in IMMORTAL and resource.key() == ("", "v1", "namespaces"):
            raise forbidden(resource, name, None, "this namespace may not be deleted")

    async def _check_alive(self, resource: Resource, namespace: str, name: str, new: Obj | None) -> None:
        namespaces = self._registry.resource("", "v1", "namespaces")
        entry = namespaces.peek("", namespace)
        if entry is None:
            await namespaces.sync()
            entry = namespaces.peek("", namespace)
            if entry is None:
                raise NotFound.of("namespaces", namespace)
        if _terminating(entry):
            text = f"unable to create new content in namespace {namespace} because it is being terminated"
            error = forbidden(resource, name, new, text)
            cause = Cause("NamespaceTerminating", f"namespace {namespace} is being terminated", "metadata.namespace")
            details: dict[str, Any] = {**(error.details or {}), "causes": [cause.as_dict()]}
            error.details = details
            raise error


def _terminating(entry: Entry) -> bool:
    return b'"Terminating"' in entry.raw and entry.decoded().get("status", {}).get("phase") == "Terminating"
