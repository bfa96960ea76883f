"""LimitRanger: containers get the namespace's defaults; pods and claims stay within its limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiserver.admission.limits import apply_defaults, claim_findings, message, pod_findings
from apiserver.admission.refusal import forbidden
from apiserver.registry.context import RequestContext
from apiserver.registry.hooks import CREATE, UPDATE, Obj, Undo
from apiserver.registry.store import Registry

if TYPE_CHECKING:
    from api.resources import Resource


class LimitRanger:
    """Reads LimitRanges from the cache; a namespace without any costs one look-up."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def handles(self, resource: Resource) -> bool:
        return not resource.group and resource.plural in ("pods", "persistentvolumeclaims")

    def _ranges(self, namespace: str) -> list[Obj]:
        ranges = self._registry.resource("", "v1", "limitranges")
        if not len(ranges.cache):
            return []
        return [entry.decoded() for entry in ranges.entries(namespace)]

    def _concerns(self, op: str, resource: Resource, subresource: str) -> bool:
        """Pods change what they ask for only by `resize`; claims may grow."""
        if resource.plural == "pods":
            return (op, subresource) in ((CREATE, ""), (UPDATE, "resize"))
        return op in (CREATE, UPDATE) and not subresource

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
        if resource.plural != "pods" or new is None or not self._concerns(op, resource, subresource):
            return
        if isinstance(new.get("spec"), dict):
            for limit_range in self._ranges(namespace):
                apply_defaults(new, limit_range)

    async def check(
        self,
        ctx: RequestContext,
        op: str,
        resource: Resource,
        namespace: str,
        name: str,
        new: Obj | None,
        old: Obj | None,
        subresource: str,
    ) -> Undo | None:
        if new is None or not self._concerns(op, resource, subresource) or new["metadata"].get("deletionTimestamp"):
            return None
        for limit_range in self._ranges(namespace):
            if resource.plural == "pods":
                found = pod_findings(new["spec"], limit_range)
            else:
                found = claim_findings(new, limit_range)
            if found:
                raise forbidden(resource, name, new, message(found))
        return None
