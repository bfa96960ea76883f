"""Which taints follow from a node's conditions and its unschedulable flag.

Pure. Called by controller.py; the names are what tolerations of pods are written for.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from api.models import core_v1
from controller_manager.objects import condition
from machinery.meta import rfc3339

NOT_READY: Final = "node.kubernetes.io/not-ready"
UNREACHABLE: Final = "node.kubernetes.io/unreachable"
UNSCHEDULABLE: Final = "node.kubernetes.io/unschedulable"
OUT_OF_SERVICE: Final = "node.kubernetes.io/out-of-service"
NO_SCHEDULE: Final = "NoSchedule"
NO_EXECUTE: Final = "NoExecute"

_BY_CONDITION: Final = {
    ("Ready", "False"): NOT_READY,
    ("Ready", "Unknown"): UNREACHABLE,
    ("MemoryPressure", "True"): "node.kubernetes.io/memory-pressure",
    ("DiskPressure", "True"): "node.kubernetes.io/disk-pressure",
    ("NetworkUnavailable", "True"): "node.kubernetes.io/network-unavailable",
    ("PIDPressure", "True"): "node.kubernetes.io/pid-pressure",
}
_MANAGED: Final = frozenset(_BY_CONDITION.values()) | {UNSCHEDULABLE}


def no_schedule_keys(node: core_v1.Node) -> set[str]:
    """The NoSchedule taints that the node should carry."""
    keys = {
        key
        for (type_, status), key in _BY_CONDITION.items()
        if (found := condition(node, type_)) is not None and found.status == status
    }
    if node.spec is not None and node.spec.unschedulable:
        keys.add(UNSCHEDULABLE)
    return keys


def no_execute_key(node: core_v1.Node) -> str | None:
    """The NoExecute taint that the node should carry; None when it is Ready."""
    ready = condition(node, "Ready")
    if ready is None:
        return UNREACHABLE
    return {"False": NOT_READY, "Unknown": UNREACHABLE}.get(ready.status)


def plan_taints(
    node: core_v1.Node, now: datetime, *, no_schedule: Iterable[str], no_execute: Iterable[str]
) -> list[dict[str, Any]] | None:
    """All taints of the node with ours replaced, or None if nothing changes. Other people's taints are kept."""
    current = list(node.spec.taints or ()) if node.spec is not None else []
    wanted = {(key, NO_SCHEDULE) for key in no_schedule} | {(key, NO_EXECUTE) for key in no_execute}
    managed = {(key, NO_SCHEDULE) for key in _MANAGED} | {(key, NO_EXECUTE) for key in (NOT_READY, UNREACHABLE)}
    kept = [taint for taint in current if (taint.key, taint.effect) not in managed - wanted]
    missing = sorted(wanted - {(taint.key, taint.effect) for taint in kept})
    if not missing and len(kept) == len(current):
        return None
    planned = [_as_dict(taint) for taint in kept]
    planned += [{"key": key, "effect": effect, "timeAdded": rfc3339(now)} for key, effect in missing]
    return planned


def present_no_execute(node: core_v1.Node) -> set[str]:
    """Our NoExecute taints that the node carries now."""
    taints = (node.spec.taints if node.spec is not None else None) or ()
    return {t.key for t in taints if t.effect == NO_EXECUTE and t.key in (NOT_READY, UNREACHABLE)}


def _as_dict(taint: core_v1.Taint) -> dict[str, Any]:
    fields = {"key": taint.key, "effect": taint.effect, "value": taint.value}
    if taint.timeAdded is not None:
        fields["timeAdded"] = rfc3339(taint.timeAdded)
    return {name: value for name, value in fields.items() if value is not None}
