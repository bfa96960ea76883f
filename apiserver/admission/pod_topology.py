"""PodTopologyLabels: a pod that is bound gets its node's zone and region as labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiserver.registry.context import RequestContext
from apiserver.registry.hooks import CREATE, Obj
from apiserver.registry.store import Registry

if TYPE_CHECKING:
    from api.resources import Resource

LABELS = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")


class PodTopologyLabels:
    """Changes bindings; what a binding's labels do to the pod is the registry's."""

    def __init__(self, registry: Registry) -> None:
        self._nodes = registry.resource("", "v1", "nodes")

    def handles(self, resource: Resource) -> bool:
        return (resource.group, resource.plural) == ("", "pods")

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
        if op != CREATE or subresource != "binding" or new is None:
            return
        entry = self._nodes.peek("", str((new.get("target") or {}).get("name") or ""))
        found = {label: entry.labels[label] for label in LABELS if label in entry.labels} if entry is not None else {}
        if found:
            meta = new.setdefault("metadata", {})
            meta["labels"] = {**(meta.get("labels") or {}), **found}
