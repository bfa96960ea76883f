"""autoscaling/v1 and autoscaling/v2 of HorizontalPodAutoscalers: what the older version cannot say is an annotation.

Pure translations between documents. Upstream writes further metrics, their current values and the conditions in the
spelling of autoscaling/v1's own (unserved) metric types, and the behavior in its internal spelling; an annotation that
cannot be read is ignored. Used by `conversion`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from machinery.golang import go_text

Obj = dict[str, Any]

METRICS = "autoscaling.alpha.kubernetes.io/metrics"
CURRENT_METRICS = "autoscaling.alpha.kubernetes.io/current-metrics"
CONDITIONS = "autoscaling.alpha.kubernetes.io/conditions"
BEHAVIOR = "autoscaling.alpha.kubernetes.io/behavior"
ANNOTATIONS = frozenset({METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR})

_SOURCES = {
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "External": "external",
}
_CPU_UTILIZATION = 80
_REFERENCE = ("kind", "name", "apiVersion")
_CONDITION = ("type", "status", "lastTransitionTime", "reason", "message")
_RULES = (
    ("StabilizationWindowSeconds", "stabilizationWindowSeconds"),
    ("SelectPolicy", "selectPolicy"),
    ("Policies", "policies"),
    ("Tolerance", "tolerance"),
)
_TERM = ("key", "operator", "values")
_POLICY = (("Type", "type"), ("Value", "value"), ("PeriodSeconds", "periodSeconds"))


def _set(out: Obj, **fields: Any) -> Obj:
    """Add the fields that have a value, in the order of the call."""
    out.update({name: value for name, value in fields.items() if value is not None})
    return out


def _is_cpu(metric: Obj) -> bool:
    """Can spec.targetCPUUtilizationPercentage say it?"""
    resource = metric.get("resource") or {}
    percentage = (resource.get("target") or {}).get("averageUtilization")
    return metric.get("type") == "Resource" and resource.get("name") == "cpu" and percentage is not None


# -- v2 → v1 ----------------------------------------------------------------------------------------------------------


def _metric_source(kind: str, source: Obj, values: Obj, role: str) -> Obj:
    """One metric's source or current value; `role` is `target` or `current`."""
    name = f"{role}{{}}".format
    if kind in ("Resource", "ContainerResource"):
        out = _set(
            {"name": source.get("name", "")},
            **{
                name("AverageUtilization"): values.get("averageUtilization"),
                name("AverageValue"): values.get("averageValue", "0" if role == "current" else None),
            },
        )
        return out if kind == "Resource" else {**out, "container": source.get("container", "")}
    metric = source.get("metric") or {}
    metric_name, selector = metric.get("name", ""), _selector(metric.get("selector"))
    if kind == "Pods":
        out = {"metricName": metric_name, name("AverageValue"): values.get("averageValue", "0")}
        return _set(out, selector=selector)
    if kind == "Object":
        described = source.get("describedObject") or {}
        out = {"target": {field: described[field] for field in _REFERENCE if field in described}}
        out |= {"metricName": metric_name, name("Value"): values.get("value", "0")}
        return _set(out, selector=selector, averageValue=values.get("averageValue"))
    out = _set({"metricName": metric_name}, metricSelector=selector)
    if role == "current":
        out[name("Value")] = values.get("value", "0")
    else:
        _set(out, **{name("Value"): values.get("value")})
    return _set(out, **{name("AverageValue"): values.get("averageValue")})


def _selector(given: Obj | None) -> Obj | None:
    """A label selector as Go writes it."""
    if given is None:
        return None
    out: Obj = {}
    if labels := given.get("matchLabels"):
        out["matchLabels"] = dict(sorted(labels.items()))
    if terms := given.get("matchExpressions"):
        out["matchExpressions"] = [{name: term[name] for name in _TERM if name in term} for term in terms]
    return out


def _older_metric(metric: Obj, part: str, role: str) -> Obj:
    kind = metric.get("type", "")
    field = _SOURCES.get(kind)
    source = metric.get(field) if field else None
    if field is None or not isinstance(source, dict):
        return {"type": kind}
    return {"type": kind, field: _metric_source(kind, source, source.get(part) or {}, role)}


def _internal_behavior(behavior: Obj) -> Obj:
    def rules(given: Obj | None) -> Obj | None:
        if given is None:
            return None
        shown: Obj = {new: given.get(old) for new, old in _RULES}
        if shown["Policies"] is not None:
            shown["Policies"] = [{new: policy.get(old) for new, old in _POLICY} for policy in shown["Policies"]]
        return shown

    return {"ScaleUp": rules(behavior.get("scaleUp")), "ScaleDown": rules(behavior.get("scaleDown"))}


def from_storage(obj: Obj, current: Obj | None) -> Obj:
    """autoscaling/v2 → autoscaling/v1."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    annotations = _kept(obj)
    metrics = spec.get("metrics") or ()
    if others := [metric for metric in metrics if not _is_cpu(metric)]:
        annotations[METRICS] = go_text([_older_metric(metric, "target", "target") for metric in others])
    if used := status.get("currentMetrics"):
        annotations[CURRENT_METRICS] = go_text([_older_metric(metric, "current", "current") for metric in used])
    if conditions := status.get("conditions"):
        shown = [{field: each[field] for field in _CONDITION if field in each} for each in conditions]
        annotations[CONDITIONS] = go_text(shown)
    if behavior := spec.get("behavior"):
        annotations[BEHAVIOR] = go_text(_internal_behavior(behavior))
    older_spec = {key: value for key, value in spec.items() if key not in ("metrics", "behavior")}
    for metric in metrics:
        if _is_cpu(metric):
            older_spec["targetCPUUtilizationPercentage"] = metric["resource"]["target"]["averageUtilization"]
            break
    older_status = {"currentReplicas": 0, "desiredReplicas": 0}  # never omitted in this version
    older_status |= {key: value for key, value in status.items() if key not in ("conditions", "currentMetrics")}
    for metric in status.get("currentMetrics") or ():
        resource = metric.get("resource") or {}
        usage = (resource.get("current") or {}).get("averageUtilization")
        if metric.get("type") == "Resource" and resource.get("name") == "cpu" and usage is not None:
            older_status["currentCPUUtilizationPercentage"] = usage
    return {**_with_annotations(obj, annotations), "spec": older_spec, "status": older_status}


# -- v1 → v2 ----------------------------------------------------------------------------------------------------------


def _newer_metric(metric: Obj, part: str, role: str) -> Obj:
    """Raises KeyError, TypeError or AttributeError for what is no metric."""
    kind = metric["type"]
    field = _SOURCES[kind]
    source: Obj = metric[field]
    values = _set(
        {},
        averageUtilization=source.get(f"{role}AverageUtilization"),
        averageValue=source.get("averageValue") if kind == "Object" else source.get(f"{role}AverageValue"),
        value=source.get(f"{role}Value"),
    )
    if role == "target":
        if values.get("averageUtilization") is not None:
            type_ = "Utilization"
        else:
            type_ = "AverageValue" if "averageValue" in values else "Value"
        values = {"type": type_, **values}
        if kind == "Object" and type_ == "AverageValue":
            values.pop("value", None)
    out: Obj = {}
    if kind in ("Resource", "ContainerResource"):
        out["name"] = source["name"]
        if kind == "ContainerResource":
            out["container"] = source["container"]
    else:
        selector = source.get("metricSelector" if kind == "External" else "selector")
        out["metric"] = _set({"name": source["metricName"]}, selector=selector)
        if kind == "Object":
            out["describedObject"] = dict(source["target"])
    out[part] = values
    return {"type": kind, field: out}


def _newer_behavior(behavior: Obj) -> Obj:
    def rules(given: Obj) -> Obj:
        found = {old: given[new] for new, old in _RULES if given.get(new) is not None}
        if "policies" in found:
            found["policies"] = [{old: policy[new] for new, old in _POLICY} for policy in found["policies"]]
        return found

    pairs = (("ScaleUp", "scaleUp"), ("ScaleDown", "scaleDown"))
    return {old: rules(behavior[new]) for new, old in pairs if behavior.get(new) is not None}


def _read(annotations: Mapping[str, Any], name: str, translate: Callable[[Any], Any]) -> Any:
    """The annotation's content, None where it is missing or cannot be read."""
    text = annotations.get(name)
    if not isinstance(text, str):
        return None
    try:
        return translate(msgspec.json.decode(text))
    except (msgspec.DecodeError, RecursionError, KeyError, TypeError, AttributeError, ValueError):
        return None


def to_storage(obj: Obj, current: Obj | None) -> Obj:
    """autoscaling/v1 → autoscaling/v2."""
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    if not isinstance(annotations, dict):
        return obj
    spec, status = dict(obj.get("spec") or {}), obj.get("status")
    metrics: list[Obj] = []
    percentage = spec.pop("targetCPUUtilizationPercentage", None)
    if percentage is not None:
        target = {"type": "Utilization", "averageUtilization": percentage}
        metrics.append({"type": "Resource", "resource": {"name": "cpu", "target": target}})
    metrics += _read(annotations, METRICS, lambda found: [_newer_metric(m, "target", "target") for m in found]) or []
    if not metrics:
        target = {"type": "Utilization", "averageUtilization": _CPU_UTILIZATION}
        metrics = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    spec["metrics"] = metrics
    if behavior := _read(annotations, BEHAVIOR, _newer_behavior):
        spec["behavior"] = behavior
    out = {**_with_annotations(obj, _kept(obj)), "spec": spec}
    used = _read(annotations, CURRENT_METRICS, lambda found: [_newer_metric(m, "current", "current") for m in found])
    conditions = _read(annotations, CONDITIONS, lambda found: [dict(each) for each in found])
    if status is not None or used or conditions:
        out["status"] = _newer_status(dict(status or {}), used, conditions)
    return out


def _newer_status(status: Obj, used: list[Obj] | None, conditions: list[Obj] | None) -> Obj:
    usage = status.pop("currentCPUUtilizationPercentage", None)
    if used:
        status["currentMetrics"] = used
    elif usage is not None:
        current = {"averageUtilization": usage, "averageValue": "0"}
        status["currentMetrics"] = [{"type": "Resource", "resource": {"name": "cpu", "current": current}}]
    if conditions:
        status["conditions"] = conditions
    return status


def _kept(obj: Obj) -> Obj:
    """The annotations without those that this module writes."""
    given = (obj.get("metadata") or {}).get("annotations") or {}
    return {key: value for key, value in given.items() if key not in ANNOTATIONS}


def _with_annotations(obj: Obj, annotations: Obj) -> Obj:
    meta = obj.get("metadata") or {}
    if annotations == (meta.get("annotations") or {}):
        return obj
    meta = {key: value for key, value in meta.items() if key != "annotations"}
    return {**obj, "metadata": {**meta, "annotations": annotations} if annotations else meta}
