"""Rows of batch, autoscaling and policy."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from apiserver.tables.columns import Object, Printer, printer
from apiserver.tables.durations import age, human_duration, moment, since
from apiserver.tables.texts import (
    NONE,
    UNSET,
    condition,
    containers,
    cut,
    items,
    label_selector,
    mapping,
    name,
    number,
    part,
    text,
    truth,
)

_METRICS_ANNOTATION = "autoscaling.alpha.kubernetes.io/metrics"
_CURRENT_METRICS_ANNOTATION = "autoscaling.alpha.kubernetes.io/current-metrics"
_UNKNOWN = "<unknown>"


def job(obj: Object, now: datetime) -> list[Any]:
    started, ended = moment(part(obj, "status", "startTime")), moment(part(obj, "status", "completionTime"))
    lasted = human_duration(((ended or now) - started).total_seconds()) if started else ""
    return [
        name(obj),
        job_status(obj),
        completions(obj),
        lasted,
        age(obj, now),
        *containers(mapping(obj, "spec", "template", "spec")),
        label_selector(mapping(obj, "spec", "selector")),
    ]


def job_status(obj: Object) -> str:
    """The first that holds, in this order."""
    conditions = items(obj, "status", "conditions")

    def holds(type_: str) -> bool:
        return text(condition(conditions, type_), "status") == "True"

    if holds("Complete"):
        return "Complete"
    if holds("Failed"):
        return "Failed"
    if part(obj, "metadata", "deletionTimestamp"):
        return "Terminating"
    if holds("Suspended"):
        return "Suspended"
    return "FailureTarget" if holds("FailureTarget") else "Running"


def completions(obj: Object) -> str:
    succeeded, wanted = number(obj, "status", "succeeded"), part(obj, "spec", "completions")
    if wanted is not None:
        return f"{succeeded}/{wanted}"
    parallelism = number(obj, "spec", "parallelism")
    return f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"


def cron_job(obj: Object, now: datetime) -> list[Any]:
    last = part(obj, "status", "lastScheduleTime")
    template = mapping(obj, "spec", "jobTemplate", "spec")
    return [
        name(obj),
        text(obj, "spec", "schedule"),
        text(obj, "spec", "timeZone") or NONE,
        truth(part(obj, "spec", "suspend")),
        len(items(obj, "status", "active")),
        since(last, now) if last else NONE,
        age(obj, now),
        *containers(mapping(template, "template", "spec")),
        label_selector(mapping(template, "selector")),
    ]


def horizontal_pod_autoscaler(obj: Object, now: datetime) -> list[Any]:
    target = mapping(obj, "spec", "scaleTargetRef")
    least = part(obj, "spec", "minReplicas")
    return [
        name(obj),
        f"{text(target, 'kind')}/{text(target, 'name')}",
        metrics(obj),
        UNSET if least is None else str(least),
        number(obj, "spec", "maxReplicas"),
        number(obj, "status", "currentReplicas"),
        age(obj, now),
    ]


def metrics(obj: Object) -> str:
    """Current and wanted value of the first two metrics."""
    if text(obj, "apiVersion") == "autoscaling/v1":
        wanted, current = _metrics_v1(obj)
    else:
        wanted, current = items(obj, "spec", "metrics"), items(obj, "status", "currentMetrics")
    if not wanted:
        return NONE
    found = [_metric(spec, current[i] if i < len(current) else {}) for i, spec in enumerate(wanted)]
    return cut(found, 2, ", ")


def _metric(spec: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    type_ = text(spec, "type")
    field = type_[:1].lower() + type_[1:]
    target, current = mapping(spec, field, "target"), mapping(status, field, "current")
    average = target.get("averageValue")
    if type_ in ("External", "Object"):
        if average is not None:
            return f"{current.get('averageValue', _UNKNOWN)}/{average} (avg)"
        return f"{current.get('value', _UNKNOWN)}/{target.get('value', _UNKNOWN)}"
    if type_ == "Pods":
        return f"{current.get('averageValue', _UNKNOWN)}/{average}"
    if type_ in ("Resource", "ContainerResource"):
        resource = text(spec, field, "name")
        if average is not None:
            return f"{resource}: {current.get('averageValue', _UNKNOWN)}/{average}"
        used, wanted = current.get("averageUtilization"), target.get("averageUtilization")
        return f"{resource}: {_UNKNOWN if used is None else f'{used}%'}/{'<auto>' if wanted is None else f'{wanted}%'}"
    return "<unknown type>"


def _metrics_v1(obj: Object) -> tuple[list[Any], list[Any]]:
    """The v1 form has a field for CPU and keeps all other metrics in annotations, in the older spelling."""
    annotations = mapping(obj, "metadata", "annotations")
    wanted = [_from_v1(m, "target") for m in _json_list(annotations.get(_METRICS_ANNOTATION))]
    current = [_from_v1(m, "current") for m in _json_list(annotations.get(_CURRENT_METRICS_ANNOTATION))]
    percent = part(obj, "spec", "targetCPUUtilizationPercentage")
    if percent is not None:
        cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": percent}}}
        wanted.insert(0, cpu)
        used = part(obj, "status", "currentCPUUtilizationPercentage")
        now = {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": used}}}
        if used is not None and not any(text(m, "resource", "name") == "cpu" for m in current):
            current.insert(0, now)
    return wanted, current


def _from_v1(metric: Any, role: str) -> dict[str, Any]:
    type_ = text(metric, "type")
    field = type_[:1].lower() + type_[1:]
    source = mapping(metric, field)
    spelled = {
        f"{role}AverageUtilization": "averageUtilization",
        f"{role}AverageValue": "averageValue",
        f"{role}Value": "value",
        "averageValue": "averageValue",
    }
    values = {new: source[old] for old, new in spelled.items() if old in source}
    return {"type": type_, field: {"name": source.get("name", ""), role: values}}


def _json_list(raw: Any) -> list[Any]:
    if not isinstance(raw, str):
        return []
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return []
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def pod_disruption_budget(obj: Object, now: datetime) -> list[Any]:
    bounds = [part(obj, "spec", field) for field in ("minAvailable", "maxUnavailable")]
    shown = ["N/A" if bound is None else str(bound) for bound in bounds]
    return [name(obj), *shown, number(obj, "status", "disruptionsAllowed"), age(obj, now)]


PRINTERS: dict[tuple[str, str], Printer] = {
    ("batch", "jobs"): printer("Status, Completions, Duration, Age, Containers+, Images+, Selector+", job),
    ("batch", "cronjobs"): printer(
        "Schedule, Timezone, Suspend:boolean, Active:integer, Last Schedule, Age, Containers+, Images+, Selector+",
        cron_job,
    ),
    ("autoscaling", "horizontalpodautoscalers"): printer(
        "Reference, Targets, MinPods, MaxPods, Replicas, Age", horizontal_pod_autoscaler
    ),
    ("policy", "poddisruptionbudgets"): printer(
        "Min Available, Max Unavailable, Allowed Disruptions:integer, Age", pod_disruption_budget
    ),
}
