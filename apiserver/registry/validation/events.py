"""Events: old ones, new ones that tell a time, and what events.k8s.io/v1 demands beyond v1.

Called by the event strategy and by the conversion between both versions.
"""

from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.fields import check_immutable, invalid_each
from machinery.field_errors import FieldError

Obj = dict[str, Any]

_LONGEST, _LONGEST_NOTE = 128, 1024
_ELSEWHERE = "does not match event.namespace"
_SHOWN = {"reportingComponent": "reportingController"}
_FIXED = (
    "involvedObject", "reason", "message", "source", "firstTimestamp", "lastTimestamp", "count", "reason", "type",
    "eventTime", "action", "related", "reportingComponent", "reportingInstance",
)  # fmt: skip
_REFERENCE = {
    "kind": "Kind", "namespace": "Namespace", "name": "Name", "uid": "UID", "apiVersion": "APIVersion",
    "resourceVersion": "ResourceVersion", "fieldPath": "FieldPath",
}  # fmt: skip
_NAMES = {"involvedObject": _REFERENCE, "related": _REFERENCE, "source": {"component": "Component", "host": "Host"}}


def validate_event(obj: Obj) -> list[FieldError]:
    """What holds in both versions: the namespace is that of the object; events with a time are complete."""
    namespace, about = (
        obj["metadata"].get("namespace") or "",
        (obj.get("involvedObject") or {}).get("namespace") or "",
    )
    new = bool(obj.get("eventTime"))
    homes = ("default", "kube-system") if new else ("", "default")
    errors: list[FieldError] = []
    if (about and about != namespace and not new) or (not about and namespace not in homes):
        errors.append(FieldError.invalid("involvedObject.namespace", about, _ELSEWHERE))
    if new:
        reporter = obj.get("reportingComponent") or ""
        if not reporter:
            errors.append(FieldError.required("reportingController"))
        errors += invalid_each("reportingController", reporter, names.qualified_name(reporter))
        for field in ("reportingInstance", "action", "reason"):
            value = obj.get(field) or ""
            if not value:
                errors.append(FieldError.required(field))
            if len(value.encode()) > _LONGEST:
                errors.append(FieldError.invalid(field, "", f"can have at most {_LONGEST} characters"))
        if len((obj.get("message") or "").encode()) > _LONGEST_NOTE:
            errors.append(FieldError.invalid("message", "", f"can have at most {_LONGEST_NOTE} characters"))
    return errors + invalid_each("namespace", namespace, names.dns_subdomain(namespace))


def validate_strictly(event: Obj) -> list[FieldError]:
    """What a new event of events.k8s.io/v1 needs: a time, a known type, nothing of what it has deprecated."""
    errors = _series(event)
    if not event.get("eventTime"):
        errors.append(FieldError.required("eventTime"))
    kind = event.get("type") or ""
    if kind not in ("Normal", "Warning"):
        errors.append(FieldError.invalid("type", "", f"has invalid value: {kind}"))
    given = [field for field in ("firstTimestamp", "lastTimestamp", "count") if event.get(field)]
    source = event.get("source") or {}
    if source.get("component") or source.get("host"):
        given.append("source")
    return errors + [FieldError.invalid(field, "", "needs to be unset") for field in given]


def validate_strict_update(new: Obj, old: Obj) -> list[FieldError]:
    """Through events.k8s.io/v1 only the series of an event changes."""
    errors = _series(new) if new.get("series") != old.get("series") else []
    for field in _FIXED:
        after, before = (_internal(field, event.get(field)) for event in (new, old))
        errors += check_immutable(_SHOWN.get(field, field), after, before)
    return errors


def _internal(field: str, value: Any) -> Any:
    """A value as upstream holds it: structures with all their fields, texts and counts that are never absent."""
    if field in _NAMES and (value is not None or field != "related"):
        return {name: (value or {}).get(key) or "" for key, name in _NAMES[field].items()}
    if value is None and field not in ("related", "eventTime", "firstTimestamp", "lastTimestamp"):
        return 0 if field == "count" else ""
    return value


def _series(event: Obj) -> list[FieldError]:
    if (series := event.get("series")) is None:
        return []
    errors: list[FieldError] = []
    if (series.get("count") or 0) < 2:
        errors.append(FieldError.invalid("series.count", "", "should be at least 2"))
    if not series.get("lastObservedTime"):
        errors.append(FieldError.required("series.lastObservedTime"))
    return errors
