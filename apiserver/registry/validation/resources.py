"""Compute resources: names, quantities, requests against limits.

Owns the rules for ResourceRequirements and resource lists. Called for containers, claims, quotas and limit ranges.
"""

from collections.abc import Callable, Sequence
from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.fields import NOT_NEGATIVE, invalid_each, unsupported
from machinery import quantity
from machinery.caching import keep_short
from machinery.field_errors import FieldError

Obj = dict[str, Any]
NameRule = Callable[[str, str], list[FieldError]]

_POD_LEVEL = ("cpu", "memory")
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
    return not is_native(name) and not name.startswith("requests.") and not names.qualified_name(f"requests.{name}")


def is_huge(name: str) -> bool:
    """Memory in pages of one size."""
    return name.startswith(_HUGE)


def may_overcommit(name: str) -> bool:
    """May limits exceed what there is?"""
    return is_native(name) and not is_huge(name)


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
    if "/" not in name:
        if not is_huge(name):
            errors.append(FieldError.invalid(path, name, "must be a standard resource for containers"))
    elif not is_native(name) and not is_extended(name):
        errors.append(FieldError.invalid(path, name, "doesn't follow extended resource name standard"))
    return errors


def check_pod_resource_name(path: str, name: str) -> list[FieldError]:
    """A resource that a whole pod can ask for."""
    errors = check_resource_name(path, name)
    if not errors and name not in _POD_LEVEL and not is_huge(name):
        errors.append(unsupported(path, name, _POD_LEVEL))
    return errors


def check_quota_resource_name(path: str, name: str) -> list[FieldError]:
    """A resource that a quota can bound."""
    errors = check_resource_name(path, name)
    if "/" not in name and not is_quota_resource(name):
        errors.append(FieldError.invalid(path, name, "must be a standard resource for quota"))
    return errors


def is_quota_resource(name: str) -> bool:
    """A standard resource of quotas."""
    return (name in STANDARD and name != "storage") or name.startswith((_HUGE, "requests.hugepages-"))


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


def _huge_problem(name: str, amount: Any) -> str:
    """Huge pages come in whole pages."""
    try:
        size, value = quantity.parse(name.removeprefix(_HUGE)), quantity.value(amount)
        divisible = size > 0 and size.denominator == 1 and value % size == 0
    except ValueError:
        divisible = False
    if divisible:
        return ""
    return f"{amount} is not positive integer multiple of {name}"


def check_requirements(
    path: str, resources: Obj, claims: Sequence[str] = (), check_name: NameRule = check_container_resource_name
) -> list[FieldError]:
    """requests and limits of a container (or, with another rule for names, of a whole pod).

    `claims` are the names of the pod's resource claims, sorted.
    """
    errors: list[FieldError] = []
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for field, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            at = f"{path}.{field}[{name}]"
            errors += check_name(at, name)
            errors += check_quantity(at, name, amount)
            if field == "requests":
                errors += _against_limit(path, name, amount, limits)
            if is_huge(name) and (problem := _huge_problem(name, amount)):
                errors.append(FieldError.invalid(at, str(amount), problem))
    asked = {*limits, *requests}
    if any(is_huge(name) for name in asked) and not asked & {"cpu", "memory"}:
        errors.append(FieldError.forbidden(path, "HugePages require cpu or memory"))
    if used := resources.get("claims"):
        errors += _check_claims(used, claims, f"{path}.claims")
    return errors


def _against_limit(path: str, name: str, amount: Any, limits: Obj) -> list[FieldError]:
    if name not in limits:
        if may_overcommit(name):
            return []
        return [FieldError.required(f"{path}.limits", "Limit must be set for non overcommitable resources")]
    limit = limits[name]
    if amount == limit:
        return []
    try:
        asked, allowed = quantity.parse(amount), quantity.parse(limit)
    except ValueError:
        return []  # told by the rule for quantities
    if not may_overcommit(name) and asked != allowed:
        return [FieldError.invalid(f"{path}.requests", str(amount), f"must be equal to {name} limit of {limit}")]
    if asked > allowed:
        detail = f"must be less than or equal to {name} limit of {limit}"
        return [FieldError.invalid(f"{path}.requests", str(amount), detail)]
    return []


def _check_claims(used: list[Obj], claims: Sequence[str], path: str) -> list[FieldError]:
    """Each claim of the pod, or each request of it, at most once."""
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, claim in enumerate(used):
        at, name, request = f"{path}[{index}]", claim.get("name") or "", claim.get("request") or ""
        if not name:
            errors.append(FieldError.required(at))
            continue
        if name in seen:  # with all of its requests
            errors.append(FieldError.duplicate(at, name))
        else:
            key = f"{name}/{request}" if request else name
            if request:
                errors += invalid_each(f"{at}.request", request, names.dns_label(request))
            if key in seen:
                errors.append(FieldError.duplicate(at, key))
            elif not request:
                errors += [FieldError.duplicate(at, name) for other in seen if other.partition("/")[0] == name]
            seen.add(key)
        if name not in claims:
            detail = "must be one of the names in pod.spec.resourceClaims"
            detail += f": {', '.join(claims)}" if claims else " which is empty"
            missing = FieldError.not_found(at, name)
            errors.append(missing._replace(text=f"{missing.text}: {detail}"))
    return errors
