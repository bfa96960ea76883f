"""Certificate signing requests: who asks is the server's to say; deciding and signing are subresources.

Looked up through `strategy_for`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from apiserver.registry.strategy import Rules, StatusStrategy, Strategy
from apiserver.registry.validation.certificates import (
    validate_certificate,
    validate_conditions,
    validate_decision,
    validate_request,
)
from apiserver.registry.validation.metadata import Passes
from machinery.field_errors import FieldError
from machinery.meta import rfc3339

if TYPE_CHECKING:
    from apiserver.registry.store import RequestContext

Obj = dict[str, Any]


class CertificateRequestStrategy(Strategy):
    """certificates.k8s.io/v1 CertificateSigningRequest."""

    rules = Rules(
        has_status=True,
        new_status={},
        validate=validate_request,
        passes=Passes(2, 1),
        fields={"spec.signerName": lambda obj: str((obj.get("spec") or {}).get("signerName") or "")},
    )

    def prepare_create(self, ctx: RequestContext, obj: Obj) -> None:
        super().prepare_create(ctx, obj)
        spec = obj.setdefault("spec", {})
        for field in ("username", "uid", "groups", "extra"):
            spec.pop(field, None)
        if (user := ctx.user) is not None:
            spec.update(user.to_dict())

    def prepare_update(self, ctx: RequestContext, new: Obj, old: Obj) -> None:
        super().prepare_update(ctx, new, old)
        new["spec"] = old["spec"]  # immutable, silently

    def validate_change(self, new: Obj, old: Obj) -> list[FieldError]:
        return []

    def make_subresource(self, name: str) -> Strategy:
        return _StatusStrategy(self, approval=name == "approval")


class _StatusStrategy(StatusStrategy):
    """`…/status` (the signer's) and `…/approval` (the approver's)."""

    def __init__(self, parent: Strategy, *, approval: bool) -> None:
        super().__init__(parent)
        self._approval = approval

    def prepare_update(self, ctx: RequestContext, new: Obj, old: Obj) -> None:
        super().prepare_update(ctx, new, old)
        status, before = new.setdefault("status", {}), old.get("status") or {}
        if self._approval:  # an approver decides, nothing else
            kept = {key: value for key, value in before.items() if key != "conditions"}
            new["status"] = status = {
                **kept,
                **({"conditions": status["conditions"]} if "conditions" in status else {}),
            }
        else:
            _keep_decisions(status, before)
        known = {item.get("type"): item for item in before.get("conditions") or ()}
        now = rfc3339(datetime.now(UTC))
        for condition in status.get("conditions") or ():
            last = known.get(condition.get("type")) or {}
            condition.setdefault("lastUpdateTime", now)
            if "lastTransitionTime" not in condition:
                same = last.get("status") == condition.get("status")
                condition["lastTransitionTime"] = last.get("lastTransitionTime", now) if same else now

    def validate_status(self, new: Obj, old: Obj) -> list[FieldError]:
        status, before = new.get("status") or {}, old.get("status") or {}
        conditions = status.get("conditions") or []
        errors = validate_conditions(conditions, "status.conditions")
        errors += validate_decision(conditions, before.get("conditions") or [], approval=self._approval)
        return errors + validate_certificate(status.get("certificate") or "", before.get("certificate") or "")


def _keep_decisions(status: Obj, before: Obj) -> None:
    """A signer changes nothing of conditions that are the approver's; as many as there were stay as they were."""
    conditions = status.get("conditions") or []
    for kind in ("Approved", "Denied"):
        old = [item for item in before.get("conditions") or () if item.get("type") == kind]
        places = [index for index, item in enumerate(conditions) if item.get("type") == kind]
        if len(old) == len(places):
            for index, item in zip(places, old, strict=True):
                conditions[index] = dict(item)
