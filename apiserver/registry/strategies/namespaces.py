"""Namespaces: the name as a label, the finalizer `kubernetes`, and `…/finalize`.

Looked up through `strategy_for`. Marking a namespace Terminating belongs to the registry's deletion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apiserver.registry.defaults.core import default_namespace
from apiserver.registry.strategy import PartStrategy, Rules, StatusStrategy, Strategy
from apiserver.registry.validation.metadata import Passes, inherit_metadata, validate_finalizer_name
from apiserver.registry.validation.names import dns_label
from machinery.field_errors import FieldError

if TYPE_CHECKING:
    from apiserver.registry.store import RequestContext

Obj = dict[str, Any]
FINALIZER = "kubernetes"


def _phase(obj: Obj) -> str:
    return str((obj.get("status") or {}).get("phase") or "")


class NamespaceStrategy(Strategy):
    """v1 Namespace."""

    rules = Rules(
        has_status=True,
        name=dns_label,
        new_status={"phase": "Active"},
        default=default_namespace,
        passes=Passes(2, 1),
        fields={"status.phase": _phase, "name": lambda obj: str(obj["metadata"]["name"])},
    )

    def prepare_create(self, ctx: RequestContext, obj: Obj) -> None:
        super().prepare_create(ctx, obj)
        default_namespace(obj)  # again: generateName has become a name
        finalizers = obj["spec"].setdefault("finalizers", [])
        if FINALIZER not in finalizers:
            finalizers.append(FINALIZER)

    def prepare_update(self, ctx: RequestContext, new: Obj, old: Obj) -> None:
        super().prepare_update(ctx, new, old)
        spec = dict(new.get("spec") or {})
        spec.pop("finalizers", None)
        if "finalizers" in (old.get("spec") or {}):
            spec["finalizers"] = old["spec"]["finalizers"]
        new["spec"] = spec

    def validate(self, obj: Obj) -> list[FieldError]:
        errors: list[FieldError] = []
        for name in (obj.get("spec") or {}).get("finalizers") or ():
            errors += validate_finalizer_name(name or "", "spec.finalizers")
        return errors

    def make_subresource(self, name: str) -> Strategy:
        return NamespaceFinalizeStrategy(self) if name == "finalize" else NamespaceStatusStrategy(self)


class NamespaceStatusStrategy(StatusStrategy):
    """`…/status`: the phase follows the deletion."""

    def validate_status(self, new: Obj, old: Obj) -> list[FieldError]:
        phase, deleted = (new.get("status") or {}).get("phase") or "", bool(new["metadata"].get("deletionTimestamp"))
        wanted, when = ("Terminating", "not empty") if deleted else ("Active", "empty")
        if phase == wanted:
            return []
        detail = f"may only be '{wanted}' if `deletionTimestamp` is {when}"
        return [FieldError.invalid("status.Phase", phase, detail)]


class NamespaceFinalizeStrategy(PartStrategy):
    """`…/finalize`: spec.finalizers and nothing else."""

    def prepare_update(self, ctx: RequestContext, new: Obj, old: Obj) -> None:
        inherit_metadata(new["metadata"], old["metadata"])
        if "status" in old:
            new["status"] = old["status"]

    def validate_change(self, new: Obj, old: Obj) -> list[FieldError]:
        return [
            error
            for index, name in enumerate((new.get("spec") or {}).get("finalizers") or ())
            for error in validate_finalizer_name(name or "", f"spec.finalizers[{index}]")
        ]
