"""The quality-of-service class of a pod, from its containers' requests and limits.

A pure function of the spec; used by the pod strategy at creation and on resize.
"""

from typing import Any

from machinery import quantity
from machinery.caching import keep_short

Obj = dict[str, Any]
_COUNTED = ("cpu", "memory")


def _positive(resources: Obj | None, field: str) -> dict[str, str]:
    amounts = (resources or {}).get(field) or {}
    found: dict[str, str] = {}
    for name in _COUNTED:
        if name in amounts and _is_positive(amounts[name]):
            found[name] = amounts[name]
    return found


@keep_short(4096)
def _is_positive(amount: str) -> bool:
    try:
        return quantity.parse(amount) > 0
    except ValueError:  # validation tells
        return False


def _same(left: str, right: str) -> bool:
    return left == right or quantity.parse(left) == quantity.parse(right)


def qos_class(spec: Obj) -> str:
    """Guaranteed: cpu and memory limits everywhere, requests equal; BestEffort: none at all; else Burstable."""
    if (pod_level := spec.get("resources")) and (pod_level.get("requests") or pod_level.get("limits")):
        parts = [pod_level]
    else:
        containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
        parts = [container.get("resources") or {} for container in containers]
    any_given = False
    guaranteed = True
    for resources in parts:
        if not resources:
            guaranteed = False
            continue
        requests, limits = _positive(resources, "requests"), _positive(resources, "limits")
        if requests or limits:
            any_given = True
        if len(limits) != len(_COUNTED) or any(
            name not in requests or not _same(requests[name], limits[name]) for name in _COUNTED
        ):
            guaranteed = False
    if not any_given:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"
