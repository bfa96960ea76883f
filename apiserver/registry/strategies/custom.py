"""Custom resources: what every kind has in common when its schema is data.

Owns generation and status of custom objects. Never validates against the CRD's schema (whoever serves the kind does
that before). Looked up through `strategy_for` for every resource that is not built in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apiserver.registry.strategy import Rules, StatusStrategy, Strategy
from apiserver.registry.validation.metadata import Passes, standard_finalizer

if TYPE_CHECKING:
    from api.resources import Resource
    from apiserver.registry.store import RequestContext

Obj = dict[str, Any]

_PREFER_QUALIFIED = (
    "prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer "
    "writers"
)
_LENIENT = Passes(standard=False)
_WITH_STATUS = Rules(
    passes=_LENIENT, generation=True, desired_state=(), has_status=True, allow_unconditional_update=False
)
_WITHOUT_STATUS = Rules(passes=_LENIENT, generation=True, desired_state=(), allow_unconditional_update=False)


class CustomResourceStrategy(Strategy):
    """Any kind of a CustomResourceDefinition; `status` is apart only where the definition says so."""

    def __init__(self, resource: Resource, rules: Rules | None = None) -> None:
        super().__init__(resource, rules or (_WITH_STATUS if "status" in resource.subresources else _WITHOUT_STATUS))

    def canonicalize(self, obj: Obj) -> None:
        """Custom objects are stored as they come."""

    def desired_state_changed(self, new: Obj, old: Obj) -> bool:
        skip = {"metadata", "apiVersion", "kind"} | ({"status"} if self.rules.has_status else set())
        return any(new.get(field) != old.get(field) for field in {*new, *old} - skip)

    def warnings(self, obj: Obj, old: Obj | None = None) -> list[str]:
        known = (old or {}).get("metadata", {}).get("finalizers") or ()
        added = sorted({name for name in obj["metadata"].get("finalizers") or () if name not in known})
        return [
            f'metadata.finalizers: "{name}": {_PREFER_QUALIFIED}'
            for name in added
            if standard_finalizer(name, "") and name != "kubernetes"
        ]

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
