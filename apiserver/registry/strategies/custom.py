"""Custom resources: what every kind has in common when its schema is data.

Owns generation and status of custom objects. Never validates against the CRD's schema (whoever serves the kind does
that before). Looked up through `strategy_for` for every resource that is not built in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apiserver.registry.strategy import Rules, StatusStrategy, Strategy

if TYPE_CHECKING:
    from api.resources import Resource
    from apiserver.registry.store import RequestContext

Obj = dict[str, Any]

_WITH_STATUS = Rules(generation=True, desired_state=(), has_status=True, allow_unconditional_update=False)
_WITHOUT_STATUS = Rules(generation=True, desired_state=(), allow_unconditional_update=False)


class CustomResourceStrategy(Strategy):
    """Any kind of a CustomResourceDefinition; `status` is apart only where the definition says so."""

    def __init__(self, resource: Resource, rules: Rules | None = None) -> None:
        super().__init__(resource, rules or (_WITH_STATUS if "status" in resource.subresources else _WITHOUT_STATUS))

    def canonicalize(self, obj: Obj) -> None:
        """Custom objects are stored as they come."""

    def desired_state_changed(self, new: Obj, old: Obj) -> bool:
        skip = {"metadata", "apiVersion", "kind"} | ({"status"} if self.rules.has_status else set())
        return any(new.get(field) != old.get(field) for field in {*new, *old} - skip)

    def make_subresource(self, name: str) -> Strategy:
        return CustomStatusStrategy(self) if name == "status" else super().make_subresource(name)


class CustomStatusStrategy(StatusStrategy):
    """`…/status` of a custom resource: metadata stays too."""

    def prepare_update(self, ctx: RequestContext, new: Obj, old: Obj) -> None:
        version = new["metadata"].get("resourceVersion")
        super().prepare_update(ctx, new, old)
        new["metadata"] = dict(old["metadata"])
        if version:
            new["metadata"]["resourceVersion"] = version
