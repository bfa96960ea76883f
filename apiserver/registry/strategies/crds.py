"""CustomResourceDefinitions: the status notes which versions are stored.

Looked up through `strategy_for`. Establishing a definition is a controller's work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apiserver.crd.tidy import tidied
from apiserver.registry.defaults.extensions import default_crd
from apiserver.registry.strategy import Rules, Strategy
from apiserver.registry.validation.crds import validate_crd, validate_crd_status, validate_crd_update
from apiserver.registry.validation.metadata import Passes

if TYPE_CHECKING:
    from apiserver.registry.store import RequestContext

Obj = dict[str, Any]


class CustomResourceDefinitionStrategy(Strategy):
    """apiextensions.k8s.io/v1 CustomResourceDefinition."""

    rules = Rules(
        generation=True,
        has_status=True,
        allow_unconditional_update=False,
        default=default_crd,
        passes=Passes(standard=False),
        validate=validate_crd,
        validate_update=validate_crd_update,
        validate_status=validate_crd_status,
    )

    def canonicalize(self, obj: Obj) -> None:
        super().canonicalize(obj)
        obj["spec"] = tidied(obj.get("spec") or {})

    def default(self, obj: Obj) -> None:
        super().default(obj)
        status = obj.get("status")
        if isinstance(status, dict) and not status.get("storedVersions") and (stored := _stored(obj)):
            obj["status"] = {**status, "storedVersions": stored}

    def prepare_create(self, ctx: RequestContext, obj: Obj) -> None:
        super().prepare_create(ctx, obj)
        obj["status"] = {
            "conditions": None,
            "acceptedNames": {"plural": "", "kind": ""},
            "storedVersions": _stored(obj) or None,
        }

    def prepare_update(self, ctx: RequestContext, new: Obj, old: Obj) -> None:
        super().prepare_update(ctx, new, old)
        status = new.setdefault("status", {})
        known = status.get("storedVersions") or []
        added = [version for version in _stored(new) if version not in known]
        if added:
            new["status"] = {**status, "storedVersions": [*known, *added]}


def _stored(obj: Obj) -> list[str]:
    return [version.get("name") or "" for version in obj["spec"].get("versions") or () if version.get("storage")]
