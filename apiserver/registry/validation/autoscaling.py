"""Autoscalers and disruption budgets. Called by the rules of those kinds in the strategy table."""

from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.conditions import validate_conditions
from apiserver.registry.validation.fields import (
    check_enum,
    check_label_selector,
    check_not_negative,
    invalid_each,
    unsupported,
)
from apiserver.registry.validation.resources import check_quantity
from machinery import quantity
from machinery.field_errors import FieldError

Obj = dict[str, Any]
_SOURCES = {  # in the order in which upstream looks for them
    "Object": "object",
    "External": "external",
    "Pods": "pods",
    "Resource": "resource",
    "ContainerResource": "containerResource",
}
_TARGETS = ("AverageValue", "Utilization", "Value")


def validate_autoscaler_status(new: Obj, old: Obj) -> list[FieldError]:
    """Counts of replicas."""
    status = new.get("status") or {}
    errors: list[FieldError] = []
    for field in ("currentReplicas", "desiredReplicas"):
        errors += check_not_negative(f"status.{field}", status.get(field))
    return errors


def validate_autoscaler(obj: Obj) -> list[FieldError]:
    """autoscaling/v2 HorizontalPodAutoscaler."""
    spec = obj.get("spec") or {}
    errors: list[FieldError] = []
    low, high = spec.get("minReplicas"), spec.get("maxReplicas") or 0
    if low is not None and low < 1:
        errors.append(FieldError.invalid("spec.minReplicas", low, "must be greater than or equal to 1"))
    if high < 1:
        errors.append(FieldError.required("spec.maxReplicas", "must be set and greater than 0"))
    if low is not None and high < low:
        errors.append(FieldError.invalid("spec.maxReplicas", high, "must be greater than or equal to `minReplicas`"))
    errors += _validate_target_ref(spec.get("scaleTargetRef") or {}, "spec.scaleTargetRef")
    metrics = spec.get("metrics") or []
    for index, metric in enumerate(metrics):
        errors += _validate_metric(metric, f"spec.metrics[{index}]")
    if low == 0 and not any(metric.get("type") in ("Object", "External") for metric in metrics):
        detail = "must specify at least one Object or External metric to support scaling to zero replicas"
        errors.append(FieldError.forbidden("spec.metrics", detail))
    for direction in ("scaleUp", "scaleDown"):
        if rules := (spec.get("behavior") or {}).get(direction):
            errors += _validate_behavior(rules, f"spec.behavior.{direction}")
    return errors


def _validate_target_ref(reference: Obj, path: str, *, group: bool = True) -> list[FieldError]:
    errors: list[FieldError] = []
    for field in ("kind", "name"):
        value = reference.get(field)
        if not value:
            errors.append(FieldError.required(f"{path}.{field}"))
        else:
            errors += invalid_each(f"{path}.{field}", value, names.path_segment(value))
    version = reference.get("apiVersion") or ""
    if version.count("/") > 1:
        detail = f"unexpected GroupVersion string: {version}"
        errors.append(FieldError.invalid(f"{path}.apiVersion", version, detail))
    elif group and not version and reference.get("kind") != "ReplicationController":
        detail = "apiVersion must specify API group"
        errors.append(FieldError.invalid(f"{path}.apiVersion", version, detail))
    return errors


def _validate_metric(metric: Obj, path: str) -> list[FieldError]:
    kind = metric.get("type") or ""
    errors: list[FieldError] = []
    if not kind:
        errors.append(FieldError.required(f"{path}.type", "must specify a metric source type"))
    if kind not in _SOURCES:
        errors.append(unsupported(f"{path}.type", kind, tuple(sorted(_SOURCES))))
    present = [field for field in _SOURCES.values() if metric.get(field) is not None]
    if present:  # upstream looks at the first of them
        errors += _validate_metric_source(metric[present[0]], present[0], f"{path}.{present[0]}")
    expected = _SOURCES.get(kind, "")
    if not expected:  # upstream finds it twice
        errors.append(unsupported(f"{path}.type", kind, tuple(sorted(_SOURCES))))
    elif expected not in present:
        detail = "must populate information for the given metric source"
        errors.append(FieldError.required(f"{path}.{expected}", detail))
    if len(present) > 1:
        detail = "must populate the given metric source only"
        errors += [FieldError.forbidden(f"{path}.{field}", detail) for field in present if field != expected]
    return errors


def _validate_metric_source(source: Obj, field: str, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if field in ("resource", "containerResource"):
        if not source.get("name"):
            errors.append(FieldError.required(f"{path}.name", "must specify a resource name"))
        if field == "containerResource" and not source.get("container"):
            errors.append(FieldError.required(f"{path}.container", "must specify a container"))
    else:
        if field == "object":
            errors += _validate_target_ref(source.get("describedObject") or {}, f"{path}.describedObject", group=False)
        if not (name := (source.get("metric") or {}).get("name")):
            errors.append(FieldError.required(f"{path}.metric.name", "must specify a metric name"))
        else:
            errors += invalid_each(f"{path}.metric.name", name, names.path_segment(name))
    return errors + _validate_target(source.get("target") or {}, field, f"{path}.target")


def _validate_target(target: Obj, field: str, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if not (kind := target.get("type") or ""):
        errors.append(FieldError.required(f"{path}.type", "must specify a metric target type"))
    if kind not in _TARGETS:
        detail = "must be either Utilization, Value, or AverageValue"
        errors.append(FieldError.invalid(f"{path}.type", kind, detail))
    utilization, value, average = (target.get(name) for name in ("averageUtilization", "value", "averageValue"))
    for name, amount in (("value", value), ("averageValue", average)):
        if amount is not None and quantity.parse(amount) <= 0:
            errors.append(FieldError.invalid(f"{path}.{name}", str(amount), "must be positive"))
    if utilization is not None and utilization < 1:
        errors.append(FieldError.invalid(f"{path}.averageUtilization", utilization, "must be greater than 0"))
    if field in ("resource", "containerResource"):
        if utilization is None and average is None:
            detail = "must set either a target raw value or a target utilization"
            errors.append(FieldError.required(f"{path}.averageUtilization", detail))
        if utilization is not None and average is not None:
            detail = "may not set both a target raw value and a target utilization"
            errors.append(FieldError.forbidden(f"{path}.averageValue", detail))
    elif field == "pods":
        if average is None or quantity.parse(average) <= 0:
            detail = "must specify a positive target averageValue"
            errors.append(FieldError.required(f"{path}.averageValue", detail))
    else:
        if value is None and average is None:
            detail = "must set either a target value for metric or a per-pod target"
            errors.append(FieldError.required(f"{path}.averageValue", detail))
        if value is not None and average is not None and field == "external":
            detail = "may not set both a target value for metric and a per-pod target"
            errors.append(FieldError.forbidden(f"{path}.value", detail))
    return errors


def _validate_behavior(rules: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    window = rules.get("stabilizationWindowSeconds")
    if window is not None:
        if window < 0:
            detail = "must be greater than or equal to zero"
            errors.append(FieldError.invalid(f"{path}.stabilizationWindowSeconds", window, detail))
        if window > 3600:
            detail = "must be less than or equal to 3600"
            errors.append(FieldError.invalid(f"{path}.stabilizationWindowSeconds", window, detail))
    valid = ("Disabled", "Max", "Min")
    if (select := rules.get("selectPolicy")) is not None and select not in valid:
        errors.append(unsupported(f"{path}.selectPolicy", select, valid))
    policies = rules.get("policies") or []
    if not policies:
        errors.append(FieldError.required(f"{path}.policies", "must specify at least one Policy"))
    for index, policy in enumerate(policies):
        at = f"{path}.policies[{index}]"
        if (kind := policy.get("type") or "") not in ("Percent", "Pods"):
            errors.append(unsupported(f"{at}.type", kind, ("Percent", "Pods")))
        for field in ("value", "periodSeconds"):
            if (policy.get(field) or 0) <= 0:
                errors.append(FieldError.invalid(f"{at}.{field}", policy.get(field) or 0, "must be greater than zero"))
        if (policy.get("periodSeconds") or 0) > 1800:
            detail = "must be less than or equal to 1800"
            errors.append(FieldError.invalid(f"{at}.periodSeconds", policy["periodSeconds"], detail))
    if (tolerance := rules.get("tolerance")) is not None:
        errors += check_quantity(f"{path}.tolerance", "tolerance", tolerance)
    return errors


def validate_budget(obj: Obj) -> list[FieldError]:
    """policy/v1 PodDisruptionBudget."""
    spec = obj.get("spec") or {}
    errors: list[FieldError] = []
    available, unavailable = spec.get("minAvailable"), spec.get("maxUnavailable")
    if available is not None and unavailable is not None:
        shown = {
            "MinAvailable": available,
            "Selector": spec.get("selector"),
            "MaxUnavailable": unavailable,
            "UnhealthyPodEvictionPolicy": spec.get("unhealthyPodEvictionPolicy"),
        }
        errors.append(FieldError.invalid("spec", shown, "minAvailable and maxUnavailable cannot be both set"))
    for field, value in (("minAvailable", available), ("maxUnavailable", unavailable)):
        path = f"spec.{field}"
        if isinstance(value, str):
            texts = names.percent(value)
            errors += invalid_each(path, value, texts)
            if not texts and int(value[:-1]) > 100:
                errors.append(FieldError.invalid(path, value, "must not be greater than 100%"))
        else:
            errors += check_not_negative(path, value)
    errors += check_label_selector("spec.selector", spec.get("selector"))
    policy = spec.get("unhealthyPodEvictionPolicy")
    return errors + check_enum("spec.unhealthyPodEvictionPolicy", policy, ("AlwaysAllow", "IfHealthyBudget"))


def validate_budget_status(new: Obj, old: Obj) -> list[FieldError]:
    """Counts."""
    status = new.get("status") or {}
    fields = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")
    errors = validate_conditions(status.get("conditions") or [], "status.conditions")
    return errors + [error for field in fields for error in check_not_negative(f"status.{field}", status.get(field))]
