"""Devices that claims ask for: ResourceClaim, ResourceClaimTemplate and DeviceClass of resource.k8s.io.

Owns the rules of their specs; `claim_status` has those of what was allocated, `resource_slices` those of what drivers
offer. Rules, limits and texts are those of Kubernetes 1.36.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from apiserver.registry.validation import names
from apiserver.registry.validation.core import validate_template_metadata
from apiserver.registry.validation.device_names import (
    check_driver,
    check_label,
    check_qualified,
    check_set,
    check_slice,
    itself,
    named,
)
from apiserver.registry.validation.expressions import check_expression
from apiserver.registry.validation.fields import check_immutable, check_label_name, invalid_each
from apiserver.registry.validation.resources import is_extended
from machinery.field_errors import FieldError

Obj = dict[str, Any]
Check = Callable[[Any, str], list[FieldError]]

LIST_LIMIT: Final = 32
"""Requests, constraints, configurations, selectors, results: of each so many."""
ALTERNATIVES: Final = 8
TOLERATIONS: Final = 16
EXPRESSION_LIMIT = PARAMETERS_LIMIT = 10 * 1024
MODES: Final = ("All", "ExactCount")
EFFECTS: Final = ("NoExecute", "NoSchedule", "None")
_REFERENCE: Final = (
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
)


def validate_claim(obj: Obj) -> list[FieldError]:
    """ResourceClaim."""
    return _claim_spec(obj.get("spec") or {}, "spec")


def validate_claim_update(new: Obj, old: Obj) -> list[FieldError]:
    """ResourceClaim: what was asked for stays."""
    return check_immutable("spec", new.get("spec") or {}, old.get("spec") or {})


def validate_template(obj: Obj) -> list[FieldError]:
    """ResourceClaimTemplate."""
    spec = obj.get("spec") or {}
    return validate_template_metadata(spec, "spec.metadata") + _claim_spec(spec.get("spec") or {}, "spec.spec")


validate_template_update = validate_claim_update


def _claim_spec(spec: Obj, path: str) -> list[FieldError]:
    devices, at = spec.get("devices") or {}, f"{path}.devices"
    known = request_names(devices)
    return [
        *check_set(devices.get("requests"), LIST_LIMIT, _request, named, f"{at}.requests"),
        *check_slice(devices.get("constraints"), LIST_LIMIT, _constraint(known), f"{at}.constraints"),
        *check_slice(devices.get("config"), LIST_LIMIT, claim_configuration(known), f"{at}.config"),
    ]


def request_names(devices: Obj) -> dict[str, set[str]]:
    """Names of the requests, each with those of its alternatives."""
    return {
        str(request.get("name") or ""): {str(each.get("name") or "") for each in request.get("firstAvailable") or ()}
        for request in devices.get("requests") or ()
    }


def _request(request: Obj, path: str) -> list[FieldError]:
    errors = check_label(request.get("name") or "", f"{path}.name")
    exactly: Obj | None = request.get("exactly")
    first = request.get("firstAvailable")
    wanted = "exactly one of `exactly` or `firstAvailable` is required"
    if exactly is None and not first:
        errors.append(FieldError.required(path, wanted))
    elif exactly is not None and first:
        errors.append(FieldError.invalid(path, None, f"{wanted}, but multiple fields are set"))
    elif exactly is None:
        errors += check_set(first, ALTERNATIVES, _alternative, named, f"{path}.firstAvailable")
    else:
        errors += _devices_wanted(exactly, f"{path}.exactly")
    return errors


def _alternative(wanted: Obj, path: str) -> list[FieldError]:
    return check_label(wanted.get("name") or "", f"{path}.name") + _devices_wanted(wanted, path)


def _devices_wanted(wanted: Obj, path: str) -> list[FieldError]:
    name = wanted.get("deviceClassName") or ""
    at = f"{path}.deviceClassName"
    errors = invalid_each(at, name, names.dns_subdomain(name)) if name else [FieldError.required(at)]
    errors += check_selectors(wanted.get("selectors"), f"{path}.selectors")
    mode, count = wanted.get("allocationMode") or "", wanted.get("count") or 0
    if mode == "All":
        if count:
            detail = "must not be specified when allocationMode is 'All'"
            errors.append(FieldError.invalid(f"{path}.count", count, detail))
    elif mode == "ExactCount":
        if count <= 0:
            errors.append(FieldError.invalid(f"{path}.count", count, "must be greater than zero"))
    else:
        errors.append(FieldError.not_supported(f"{path}.allocationMode", mode, MODES))
    return errors + check_slice(wanted.get("tolerations"), TOLERATIONS, _toleration, f"{path}.tolerations")


def _toleration(toleration: Obj, path: str) -> list[FieldError]:
    key, value = toleration.get("key") or "", toleration.get("value") or ""
    operator, effect = toleration.get("operator") or "", toleration.get("effect") or ""
    errors = check_label_name(f"{path}.key", key) if key else []
    if operator == "Exists":
        if value:
            errors.append(FieldError.invalid(f"{path}.value", value, "must be empty for operator `Exists`"))
    elif operator == "Equal":
        errors += invalid_each(f"{path}.value", value, names.label_value(value))
    elif not operator:
        errors.append(FieldError.required(f"{path}.operator"))
    else:
        errors.append(FieldError.not_supported(f"{path}.operator", operator, ("Equal", "Exists")))
    if effect and effect not in EFFECTS:
        errors.append(FieldError.not_supported(f"{path}.effect", effect, EFFECTS))
    return errors


def check_selectors(selectors: list[Obj] | None, path: str) -> list[FieldError]:
    return check_slice(selectors, LIST_LIMIT, _selector, path)


def _selector(selector: Obj, path: str) -> list[FieldError]:
    cel = selector.get("cel")
    if cel is None:
        return [FieldError.required(f"{path}.cel")]
    expression, at = cel.get("expression") or "", f"{path}.cel.expression"
    if len(expression.encode()) > EXPRESSION_LIMIT:
        return [FieldError.too_long(at, EXPRESSION_LIMIT)]
    return check_expression(at, expression, "bool", ("device",))


def _constraint(known: Mapping[str, set[str]]) -> Check:
    def check(constraint: Obj, path: str) -> list[FieldError]:
        errors = check_set(constraint.get("requests"), LIST_LIMIT, check_reference(known), itself, f"{path}.requests")
        match, distinct = constraint.get("matchAttribute"), constraint.get("distinctAttribute")
        if match is not None:
            errors += check_qualified(match, f"{path}.matchAttribute")
        elif distinct is not None:
            errors += check_qualified(distinct, f"{path}.distinctAttribute")
        else:
            detail = 'exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set'
            errors.append(FieldError.required(path, detail))
        return errors

    return check


def check_reference(known: Mapping[str, set[str]]) -> Callable[[str, str], list[FieldError]]:
    def check(name: str, path: str) -> list[FieldError]:
        parts = name.split("/")
        if len(parts) > 2:
            return [FieldError.invalid(path, name, _REFERENCE)]
        errors = [error for part in parts for error in check_label(part, path)]
        if parts[0] not in known or not set(parts[1:]) <= known[parts[0]]:
            errors.append(FieldError.invalid(path, name, _REFERENCE))
        return errors

    return check


def claim_configuration(known: Mapping[str, set[str]]) -> Check:
    def check(config: Obj, path: str) -> list[FieldError]:
        errors = check_set(config.get("requests"), LIST_LIMIT, check_reference(known), itself, f"{path}.requests")
        return errors + _configuration(config, path)

    return check


def _configuration(config: Obj, path: str) -> list[FieldError]:
    opaque = config.get("opaque")
    if opaque is None:
        return [FieldError.required(f"{path}.opaque")]
    errors = check_driver(opaque.get("driver") or "", f"{path}.opaque.driver")
    return errors + check_raw(opaque.get("parameters"), f"{path}.opaque.parameters")


def check_raw(value: Any, path: str) -> list[FieldError]:
    """An object of whatever a driver understands."""
    if value is None:
        return [FieldError.required(path)]
    if len(msgspec.json.encode(value)) > PARAMETERS_LIMIT:
        return [FieldError.too_long(path, PARAMETERS_LIMIT)]
    if not isinstance(value, dict):
        return [FieldError.invalid(path, "<value omitted>", "must be a valid JSON object")]
    return []


def validate_class(obj: Obj) -> list[FieldError]:
    """DeviceClass."""
    spec = obj.get("spec") or {}
    errors = check_selectors(spec.get("selectors"), "spec.selectors")
    errors += check_slice(spec.get("config"), LIST_LIMIT, _configuration, "spec.config")
    name = spec.get("extendedResourceName")
    if name is not None and not is_extended(name):
        detail = "must be a valid extended resource name"
        errors.append(FieldError.invalid("spec.extendedResourceName", name, detail))
    return errors
