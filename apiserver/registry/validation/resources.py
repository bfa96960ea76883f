"""Compute resources: names, quantities, requests against limits.

Owns the rules for ResourceRequirements and resource lists. Called for containers, claims, quotas and limit ranges.
"""

from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.fields import NOT_NEGATIVE, invalid_each
from machinery import quantity
from machinery.caching import keep_short
from machinery.field_errors import FieldError

Obj = dict[str, Any]

_CONTAINER = frozenset({"cpu", "memory", "ephemeral-storage"})
STANDARD = frozenset(
    {
        "cpu", "memory", "ephemeral-storage", "pods", "storage", "services", "replicationcontrollers",
        "resourcequotas", "secrets", "configmaps", "persistentvolumeclaims", "services.nodeports",
        "services.loadbalancers", "requests.cpu", "requests.memory", "requests.storage",
        "requests.ephemeral-storage", "limits.cpu", "limits.memory", "limits.ephemeral-storage",
    }
)  # fmt: skip
_COUNTS = frozenset(
    {
        "pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps",
        "persistentvolumeclaims", "services.nodeports", "services.loadbalancers",
    }
)  # fmt: skip
_HUGE = "hugepages-"


def is_native(name: str) -> bool:
    """Kubernetes' own resource (may be overcommitted), not an extended one."""
    return "/" not in name or "kubernetes.io/" in name


def is_extended(name: str) -> bool:
    """A device plugin's resource: whole numbers only."""
    return not is_native(name) and not name.startswith("requests.")


def check_resource_name(path: str, name: str) -> list[FieldError]:
    """A qualified name; without a slash a known one."""
    errors = invalid_each(path, name, names.qualified_name(name))
    if not errors and "/" not in name and name not in STANDARD and not name.startswith((_HUGE, "requests.hugepages-")):
        errors.append(FieldError.invalid(path, name, "must be a standard resource type or fully qualified"))
    return errors


def check_container_resource_name(path: str, name: str) -> list[FieldError]:
    """A resource that a container can ask for."""
    if name in _CONTAINER:
        return []
    errors = check_resource_name(path, name)
    if "/" not in name and not name.startswith(_HUGE):
        errors.append(FieldError.invalid(path, name, "must be a standard resource for containers"))
    return errors


def check_quantity(path: str, name: str, amount: Any) -> list[FieldError]:
    """Not negative; whole for extended resources and counts of objects."""
    problem = _quantity_problem(str(amount), name in _COUNTS or is_extended(name))
    return [FieldError.invalid(path, str(amount), problem)] if problem else []


@keep_short(4096)
def _quantity_problem(amount: str, whole: bool) -> str:
    try:
        value = quantity.parse(amount)
    except ValueError as error:
        return str(error)
    if value < 0:
        return NOT_NEGATIVE
    return "must be an integer" if whole and value.denominator != 1 else ""


def _hugepages(path: str, asked: set[str]) -> list[FieldError]:
    """Huge pages are backed by memory that something has to account for."""
    if any(name.startswith(_HUGE) for name in asked) and not asked & {"cpu", "memory"}:
        return [FieldError.forbidden(path, "HugePages require cpu or memory")]
    return []


def check_requirements(path: str, resources: Obj, *, pod_level: bool = False) -> list[FieldError]:
    """requests and limits of a container (or of a whole pod)."""
    errors: list[FieldError] = []
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for field, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            at = f"{path}.{field}[{name}]"
            if pod_level and name not in ("cpu", "memory") and not name.startswith(_HUGE):
                errors.append(FieldError.invalid(at, name, "unsupported resource for pod-level resources"))
                continue
            errors += check_container_resource_name(at, name)
            errors += check_quantity(at, name, amount)
    if not pod_level:
        errors += _hugepages(path, {*limits, *requests})
    for name, amount in requests.items():
        overcommit = is_native(name) and not name.startswith(_HUGE)
        if name not in limits:
            if not overcommit:
                detail = "Limit must be set for non overcommitable resources"
                errors.append(FieldError.required(f"{path}.limits", detail))
            continue
        limit = limits[name]
        if amount == limit:
            continue
        try:
            asked, allowed = quantity.parse(amount), quantity.parse(limit)
        except ValueError:
            continue  # told above
        if not overcommit and asked != allowed:
            detail = f"must be equal to {name} limit of {limit}"
            errors.append(FieldError.invalid(f"{path}.requests", str(amount), detail))
        elif overcommit and asked > allowed:
            detail = f"must be less than or equal to {name} limit of {limit}"
            errors.append(FieldError.invalid(f"{path}.requests", str(amount), detail))
    return errors
