"""Persistent volumes and claims: what the server notes in them.

Looked up through `strategy_for`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from apiserver.registry.defaults.storage import default_claim, default_volume
from apiserver.registry.strategy import Rules, StatusStrategy, Strategy
from apiserver.registry.validation import storage
from apiserver.registry.validation.metadata import Passes
from machinery.meta import rfc3339

if TYPE_CHECKING:
    from apiserver.registry.store import RequestContext

Obj = dict[str, Any]


class VolumeStrategy(Strategy):
    """v1 PersistentVolume: notes when its phase changed."""

    rules = Rules(
        has_status=True,
        default=default_volume,
        passes=Passes(1, 2),
        looks=2,
        validate=storage.validate_volume,
        validate_update=storage.validate_volume_update,
        warnings=storage.volume_warnings,
    )

    def prepare_create(self, ctx: RequestContext, obj: Obj) -> None:
        super().prepare_create(ctx, obj)
        since = obj["metadata"].get("creationTimestamp")
        obj["status"] = {"phase": "Pending", "lastPhaseTransitionTime": since}

    def make_subresource(self, name: str) -> Strategy:
        return _VolumeStatusStrategy(self)


class _VolumeStatusStrategy(StatusStrategy):
    """A new phase is dated, unless whoever wrote it has done so."""

    def prepare_update(self, ctx: RequestContext, new: Obj, old: Obj) -> None:
        super().prepare_update(ctx, new, old)
        after, before = new.get("status") or {}, old.get("status") or {}
        field = "lastPhaseTransitionTime"
        if after.get("phase") != before.get("phase") and after.get(field) == before.get(field):
            after[field] = rfc3339(datetime.now(UTC))


class ClaimStrategy(Strategy):
    """v1 PersistentVolumeClaim: dataSource and dataSourceRef are told alike."""

    rules = Rules(
        has_status=True,
        new_status={"phase": "Pending"},
        default=default_claim,
        passes=Passes(2, 2),
        looks=2,
        validate=storage.validate_claim,
        validate_update=storage.validate_claim_update,
        validate_status=storage.validate_claim_status,
        warnings=storage.claim_warnings,
    )

    def prepare_create(self, ctx: RequestContext, obj: Obj) -> None:
        super().prepare_create(ctx, obj)
        _mirror_sources(obj["spec"])

    def prepare_update(self, ctx: RequestContext, new: Obj, old: Obj) -> None:
        super().prepare_update(ctx, new, old)
        _mirror_sources(new["spec"])


def _mirror_sources(spec: Obj) -> None:
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    if source is not None and reference is None:
        spec["dataSourceRef"] = dict(source)
    elif source is None and reference is not None and not reference.get("namespace"):
        plain = {key: value for key, value in reference.items() if key != "namespace"}
        known = (("", "PersistentVolumeClaim"), ("snapshot.storage.k8s.io", "VolumeSnapshot"))
        if (reference.get("apiGroup") or "", reference.get("kind")) in known:
            spec["dataSource"] = plain
