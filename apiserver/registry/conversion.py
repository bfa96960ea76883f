"""Kinds that are served in two versions and stored in one: events.k8s.io/v1 Events, autoscaling/v1 autoscalers.

Pure translations between documents. What the other version cannot say is kept from the stored object on updates, so
that nothing is lost by reading and writing back. Used by `converted.ConvertedStore`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from machinery.field_errors import FieldError

Obj = dict[str, Any]


class Translate(Protocol):
    """A function from one form to the other; `current` is the stored object, if there is one."""

    def __call__(self, obj: Obj, current: Obj | None) -> Obj: ...


@dataclass(frozen=True, slots=True)
class Conversion:
    """How one version is made of the stored one and back."""

    to_storage: Translate
    from_storage: Translate
    fields: Mapping[str, str]
    """Field selectors of this version and what they are called in the stored one."""
    check_new: Callable[[Obj], list[FieldError]] | None = None
    """Rules for new objects that hold in this version only; looks at the stored form."""


_EVENT_NAMES = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
_EVENT_NAMES_BACK = {stored: shown for shown, stored in _EVENT_NAMES.items()}
_REFERENCE = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_OWN = {"metadata.name": "metadata.name", "metadata.namespace": "metadata.namespace"}


def _renamed(obj: Obj, names: Mapping[str, str]) -> Obj:
    return {names.get(key, key): value for key, value in obj.items()}


def event_to_storage(obj: Obj, current: Obj | None) -> Obj:
    """events.k8s.io/v1 → v1."""
    return _renamed(obj, _EVENT_NAMES)


def event_from_storage(obj: Obj, current: Obj | None) -> Obj:
    """v1 → events.k8s.io/v1."""
    return _renamed(obj, _EVENT_NAMES_BACK)


def check_new_event(event: Obj) -> list[FieldError]:
    """What events.k8s.io demands beyond v1: a time, a known type, nothing of what it has deprecated."""
    errors = [] if event.get("eventTime") else [FieldError.required("eventTime")]
    kind = event.get("type") or ""
    if kind not in ("Normal", "Warning"):
        errors.append(FieldError.invalid("type", "", f"has invalid value: {kind}"))
    given = [field for field in ("firstTimestamp", "lastTimestamp", "count") if event.get(field)]
    source = event.get("source") or {}
    if source.get("component") or source.get("host"):
        given.append("source")
    return errors + [FieldError.invalid(field, "", "needs to be unset") for field in given]


EVENTS = Conversion(
    event_to_storage,
    event_from_storage,
    {
        **_OWN,
        **{f"regarding.{field}": f"involvedObject.{field}" for field in _REFERENCE},
        "reason": "reason",
        "reportingController": "reportingComponent",
        "type": "type",
    },
    check_new_event,
)


def _is_cpu(metric: Obj) -> bool:
    resource = metric.get("resource") or {}
    target = resource.get("target") or {}
    return metric.get("type") == "Resource" and resource.get("name") == "cpu" and target.get("type") == "Utilization"


def autoscaler_to_storage(obj: Obj, current: Obj | None) -> Obj:
    """autoscaling/v1 → autoscaling/v2: one CPU target becomes a metric among those that are stored already."""
    spec = dict(obj.get("spec") or {})
    percentage = spec.pop("targetCPUUtilizationPercentage", None)
    kept = (current or {}).get("spec") or {}
    metrics = [metric for metric in kept.get("metrics") or () if not _is_cpu(metric)]
    if percentage is not None:
        target = {"type": "Utilization", "averageUtilization": percentage}
        metrics = [*metrics, {"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    if metrics:
        spec["metrics"] = metrics
    if "behavior" in kept:
        spec["behavior"] = kept["behavior"]
    out = {**obj, "spec": spec}
    if obj.get("status") is not None:
        status = dict(obj["status"])
        status.pop("currentCPUUtilizationPercentage", None)
        stored = (current or {}).get("status") or {}
        out["status"] = {**{key: stored[key] for key in ("conditions", "currentMetrics") if key in stored}, **status}
    return out


def autoscaler_from_storage(obj: Obj, current: Obj | None) -> Obj:
    """autoscaling/v2 → autoscaling/v1: what one CPU target can tell."""
    spec = {key: value for key, value in (obj.get("spec") or {}).items() if key not in ("metrics", "behavior")}
    for metric in (obj.get("spec") or {}).get("metrics") or ():
        if _is_cpu(metric):
            spec["targetCPUUtilizationPercentage"] = metric["resource"]["target"].get("averageUtilization")
    stored = obj.get("status") or {}
    status = {key: value for key, value in stored.items() if key not in ("conditions", "currentMetrics")}
    for metric in stored.get("currentMetrics") or ():
        resource = metric.get("resource") or {}
        usage = (resource.get("current") or {}).get("averageUtilization")
        if resource.get("name") == "cpu" and usage is not None:
            status["currentCPUUtilizationPercentage"] = usage
    # The older version has no omitted counts.
    counts = {"currentReplicas": 0, "desiredReplicas": 0}
    return {**obj, "spec": spec, "status": {**counts, **status}}


AUTOSCALERS = Conversion(autoscaler_to_storage, autoscaler_from_storage, _OWN)

CONVERSIONS: Mapping[tuple[str, str, str], Conversion] = {
    ("events.k8s.io", "v1", "events"): EVENTS,
    ("autoscaling", "v1", "horizontalpodautoscalers"): AUTOSCALERS,
}
