"""Limit ranges and resource quotas. Called by the rules of those kinds in the strategy table."""

from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.fields import invalid_each
from apiserver.registry.validation.metadata import IMMUTABLE
from apiserver.registry.validation.resources import (
    check_container_resource_name,
    check_quantity,
    check_quota_resource_name,
    check_resource_name,
    is_quota_resource,
    may_overcommit,
)
from machinery import quantity
from machinery.field_errors import FieldError

Obj = dict[str, Any]

_SCOPES = (
    "Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "PriorityClass", "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
)  # fmt: skip
_POD_COMPUTE = ("cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory")
_CONFLICTING = ({"Terminating", "NotTerminating"}, {"BestEffort", "NotBestEffort"})
_POSITIVE_SCOPES = ("Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "CrossNamespacePodAffinity")


def validate_quota(obj: Obj) -> list[FieldError]:
    """Known resources, quantities, scopes that fit together."""
    spec = obj.get("spec") or {}
    errors: list[FieldError] = []
    for name, amount in (spec.get("hard") or {}).items():
        path = f"spec.hard[{name}]"
        errors += check_quota_resource_name(path, name)
        errors += check_quantity(path, name, amount)
    errors += _validate_scopes(spec.get("scopes") or [], "spec.scopes", spec.get("hard") or {})
    return errors + _validate_scope_selector(spec, "spec.scopeSelector.matchExpressions")


def _unfit(scope: str, name: str) -> bool:
    return scope in _SCOPES and is_quota_resource(name) and not _fits(scope, name)


def _fits(scope: str, name: str) -> bool:
    """Can objects in the scope be charged for the resource?"""
    if scope == "VolumeAttributesClass":
        return name in ("persistentvolumeclaims", "requests.storage")
    return name == "pods" or (scope != "BestEffort" and name in _POD_COMPUTE)


def _validate_scopes(scopes: list[str], path: str, hard: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    for scope in scopes:
        if scope not in _SCOPES:
            errors.append(FieldError.invalid(path, scopes, "unsupported scope"))
        detail = "unsupported scope applied to resource"
        errors += [FieldError.invalid(path, scopes, detail) for name in hard if _unfit(scope, name)]
    errors += [FieldError.invalid(path, scopes, "conflicting scopes") for pair in _CONFLICTING if pair <= set(scopes)]
    return errors


def _validate_scope_selector(spec: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    scopes: list[str] = []
    expressions = (spec.get("scopeSelector") or {}).get("matchExpressions") or []
    shown = {
        "MatchExpressions": [
            {
                "ScopeName": each.get("scopeName") or "",
                "Operator": each.get("operator") or "",
                "Values": each.get("values"),
            }
            for each in expressions
        ]
    }
    for expression in expressions:
        scope, operator = expression.get("scopeName") or "", expression.get("operator") or ""
        values = expression.get("values") or []
        if scope not in _SCOPES:
            errors.append(FieldError.invalid(f"{path}.scopeName", scope, "unsupported scope"))
        detail = "unsupported scope applied to resource"
        errors += [FieldError.invalid(path, shown, detail) for name in spec.get("hard") or () if _unfit(scope, name)]
        if scope in _POSITIVE_SCOPES and operator != "Exists":
            detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, "
            detail += "ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort "
            detail += "or ResourceQuotaScopeCrossNamespacePodAffinity"
            errors.append(FieldError.invalid(f"{path}.operator", operator, detail))
        if operator in ("In", "NotIn"):
            if not values:
                detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
                errors.append(FieldError.required(f"{path}.values", detail))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
                errors.append(FieldError.invalid(f"{path}.values", values, detail))
        else:
            errors.append(FieldError.invalid(f"{path}.operator", operator, "not a valid selector operator"))
        scopes.append(scope)
    listed = spec.get("scopes") or None
    errors += [FieldError.invalid(path, listed, "conflicting scopes") for pair in _CONFLICTING if pair <= set(scopes)]
    return errors


def validate_quota_update(new: Obj, old: Obj) -> list[FieldError]:
    """Scopes stay."""
    errors = validate_quota(new)
    after, before = ((each.get("spec") or {}).get("scopes") or [] for each in (new, old))
    if set(after) != set(before):
        errors.append(FieldError.invalid("spec.scopes", after or None, IMMUTABLE))
    return errors


def validate_quota_status(new: Obj, old: Obj) -> list[FieldError]:
    """Quantities."""
    errors: list[FieldError] = []
    for field in ("hard", "used"):
        for name, amount in ((new.get("status") or {}).get(field) or {}).items():
            errors += check_quota_resource_name(f"status.{field}[{name}]", name)
            errors += check_quantity(f"status.{field}[{name}]", name, amount)
    return errors


def validate_limit_range(obj: Obj) -> list[FieldError]:
    """One item per type; min ≤ defaultRequest ≤ default ≤ max."""
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, item in enumerate((obj.get("spec") or {}).get("limits") or ()):
        path = f"spec.limits[{index}]"
        kind = item.get("type") or ""
        if texts := names.qualified_name(kind):
            errors += invalid_each(f"{path}.type", kind, texts)
        elif "/" not in kind and kind not in ("Pod", "Container", "PersistentVolumeClaim"):
            detail = "must be a standard limit type or fully qualified"
            errors.append(FieldError.invalid(f"{path}.type", kind, detail))
        if kind in seen:
            errors.append(FieldError.duplicate(f"{path}.type", kind))
        seen.add(kind)
        errors += _validate_limit_item(item, kind, path)
    return errors


def _validate_limit_item(item: Obj, kind: str, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    fields: tuple[str, ...] = ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")
    amounts = {field: item.get(field) or {} for field in fields}
    if kind == "Pod":
        errors += [
            FieldError.forbidden(f"{path}.{field}", "may not be specified when `type` is 'Pod'")
            for field in ("default", "defaultRequest")
            if amounts[field]
        ]
        fields = ("max", "min", "maxLimitRequestRatio")
    if kind == "PersistentVolumeClaim" and "storage" not in amounts["min"] and "storage" not in amounts["max"]:
        errors.append(
            FieldError.required(
                f"{path}.limits", "either minimum or maximum storage value is required, but neither was provided"
            )
        )
    check = check_container_resource_name if kind in ("Pod", "Container") else check_resource_name
    for field in fields:
        for name in amounts[field]:
            errors += check(f"{path}.{field}[{name}]", name)
    for name in dict.fromkeys(name for field in fields for name in amounts[field]):
        try:
            errors += _validate_order({field: amounts[field].get(name) for field in fields}, name, path)
        except ValueError as error:  # an amount that is none
            errors.append(FieldError.invalid(f"{path}[{name}]", name, str(error)))
    return errors


def _validate_order(amounts: dict[str, Any], name: str, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    value = {field: quantity.parse(amount) for field, amount in amounts.items() if amount is not None}

    def above(left: str, right: str) -> bool:
        return left in value and right in value and value[left] > value[right]

    def add(field: str, shown: str, detail: str) -> None:
        errors.append(FieldError.invalid(f"{path}.{field}[{name}]", str(amounts[shown]), detail))

    if above("min", "max"):
        add("min", "min", f"min value {amounts['min']} is greater than max value {amounts['max']}")
    if above("min", "defaultRequest"):
        text = f"min value {amounts['min']} is greater than default request value {amounts['defaultRequest']}"
        add("defaultRequest", "defaultRequest", text)
    if above("defaultRequest", "max"):
        text = f"default request value {amounts['defaultRequest']} is greater than max value {amounts['max']}"
        add("defaultRequest", "defaultRequest", text)
    if above("defaultRequest", "default"):
        request, default = amounts["defaultRequest"], amounts["default"]
        text = f"default request value {request} is greater than default limit value {default}"
        add("defaultRequest", "defaultRequest", text)
    if above("min", "default"):
        add("default", "min", f"min value {amounts['min']} is greater than default value {amounts['default']}")
    if above("default", "max"):
        add("default", "max", f"default value {amounts['default']} is greater than max value {amounts['max']}")
    ratio = value.get("maxLimitRequestRatio")
    if ratio is not None and ratio < 1:
        add("maxLimitRequestRatio", "maxLimitRequestRatio", f"ratio {amounts['maxLimitRequestRatio']} is less than 1")
    if ratio is not None and value.get("min") and "max" in value and ratio > value["max"] / value["min"]:
        most = f"{float(value['max'] / value['min']):f}"
        text = f"ratio {amounts['maxLimitRequestRatio']} is greater than max/min = {most}"
        add("maxLimitRequestRatio", "maxLimitRequestRatio", text)
    both = "default" in value and "defaultRequest" in value
    if both and not may_overcommit(name) and value["default"] != value["defaultRequest"]:
        limit, request = amounts["default"], amounts["defaultRequest"]
        text = f"default value {limit} must equal to defaultRequest value {request} in {name}"
        add("defaultRequest", "defaultRequest", text)
    return errors
