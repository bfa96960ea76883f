"""What makes a VerticalPodAutoscaler wrong, beyond what its schema says, in upstream's words. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from machinery import quantity
from machinery.field_errors import FieldError
from vertical_autoscaler.objects import MODES, OFF, REQUESTS_AND_LIMITS, ContainerPolicy, Spec, UpdatePolicy

IN_PLACE = "InPlace"
PER_VPA = (
    "oomBumpUpRatio",
    "oomMinBumpUp",
    "targetCPUPercentile",
    "targetMemoryPercentile",
    "memoryAggregationIntervalSeconds",
    "memoryAggregationIntervalCount",
)
NO_TARGET = "If you're using v1beta1 version of the API, please migrate to v1"


def validate(spec: Any, *, create: bool) -> list[FieldError]:
    """Of a spec as JSON. A shape that the schema would refuse is left to the schema."""
    try:
        found = msgspec.convert(spec or {}, Spec, strict=False)
    except msgspec.ValidationError:
        return []
    errors: list[FieldError] = []
    if found.targetRef is None and create:
        errors.append(FieldError.required("spec.targetRef", NO_TARGET))
    if found.updatePolicy is not None:
        errors += _update_policy(found.updatePolicy)
    for index, policy in enumerate(found.resourcePolicy.containerPolicies if found.resourcePolicy else ()):
        errors += _container(f"spec.resourcePolicy.containerPolicies[{index}]", policy)
    if len(found.recommenders) > 1:
        errors.append(FieldError.too_many("spec.recommenders", len(found.recommenders), 1))
    return errors + gated(spec)


def _update_policy(policy: UpdatePolicy) -> list[FieldError]:
    errors = []
    path = "spec.updatePolicy"
    if policy.updateMode is None:
        errors.append(FieldError.required(f"{path}.updateMode", "updateMode is required if UpdatePolicy is used"))
    elif policy.updateMode == IN_PLACE:
        why = (
            "in order to use UpdateMode InPlace, you must enable feature gate InPlace in the admission-controller args"
        )
        errors.append(FieldError.forbidden(f"{path}.updateMode", why))
    elif policy.updateMode not in MODES:
        errors.append(FieldError.not_supported(f"{path}.updateMode", policy.updateMode, [*MODES, IN_PLACE]))
    if policy.minReplicas is not None and policy.minReplicas <= 0:
        errors.append(FieldError.invalid(f"{path}.minReplicas", policy.minReplicas, "minReplicas has to be positive"))
    return errors


def _container(path: str, policy: ContainerPolicy) -> list[FieldError]:
    errors = []
    if not policy.containerName:
        errors.append(FieldError.required(f"{path}.containerName", ""))
    if policy.mode is not None and policy.mode not in ("Auto", OFF):
        errors.append(FieldError.not_supported(f"{path}.mode", policy.mode, ["Auto", OFF]))
    lowest, highest = policy.minAllowed or {}, policy.maxAllowed or {}
    for name, low in lowest.items():
        errors += _resolution(f"{path}.minAllowed[{name}]", name, low)
        high = highest.get(name)
        if high is not None and _below(high, low):
            text = f'max resource for {name} is lower than min of "{_text(low)}"'
            errors.append(FieldError.invalid(f"{path}.maxAllowed[{name}]", _text(high), text))
    for name, high in highest.items():
        errors += _resolution(f"{path}.maxAllowed[{name}]", name, high)
    if policy.off and policy.controlledValues == REQUESTS_AND_LIMITS:
        why = "controlledValues shouldn't be specified if container scaling mode is off"
        errors.append(FieldError.forbidden(f"{path}.controlledValues", why))
    return errors


def _resolution(path: str, resource: str, told: str | int | float) -> list[FieldError]:
    try:
        amount = quantity.parse(told)
    except ValueError:
        return []
    if resource == "cpu" and (amount * 1000).denominator != 1:
        return [FieldError.invalid(path, _text(told), "must be a whole number of milli CPUs")]
    if resource == "memory" and amount.denominator != 1:
        return [FieldError.invalid(path, _text(told), "must be a whole number of bytes")]
    return []


def _below(high: str | int | float, low: str | int | float) -> bool:
    try:
        return quantity.parse(high) < quantity.parse(low)
    except ValueError:
        return False


def _text(told: str | int | float) -> str:
    try:
        return quantity.canonical(told)
    except ValueError:
        return str(told)


def gated(spec: Any) -> list[FieldError]:
    """Fields that stand behind feature gates which are off."""
    if not isinstance(spec, dict):
        return []
    errors = []
    boost = (
        "in order to use startupBoost, you must enable feature gate CPUStartupBoost in the admission-controller args"
    )
    per_vpa = "not supported when feature flag PerVPAConfig is disabled"
    if spec.get("startupBoost") is not None:
        errors.append(FieldError.forbidden("spec.startupBoost", boost))
    if (spec.get("updatePolicy") or {}).get("evictAfterOOMSeconds") is not None:
        errors.append(FieldError.forbidden("spec.updatePolicy.evictAfterOOMSeconds", per_vpa))
    for index, policy in enumerate((spec.get("resourcePolicy") or {}).get("containerPolicies") or ()):
        path = f"spec.resourcePolicy.containerPolicies[{index}]"
        errors += [FieldError.forbidden(f"{path}.{name}", per_vpa) for name in PER_VPA if policy.get(name) is not None]
        if policy.get("startupBoost") is not None:
            errors.append(FieldError.forbidden(f"{path}.startupBoost", boost))
    return errors
