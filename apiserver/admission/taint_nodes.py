"""TaintNodesByCondition: a new node takes no pods until it has reported that it is ready."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiserver.registry.context import RequestContext
from apiserver.registry.hooks import CREATE, Obj

if TYPE_CHECKING:
    from api.resources import Resource

TAINT = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}


class TaintNodesByCondition:
    """The taint is taken away by the node lifecycle controller."""

    def handles(self, resource: Resource) -> bool:
        return resource.plural == "nodes" and not resource.group

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
        if op != CREATE or resource.plural != "nodes" or resource.group or new is None:
            return
        spec = new.get("spec") or {}
        taints = spec.get("taints") or []
        if not any(taint.get("key") == TAINT["key"] and taint.get("effect") == TAINT["effect"] for taint in taints):
            new["spec"] = {**spec, "taints": [*taints, dict(TAINT)]}
