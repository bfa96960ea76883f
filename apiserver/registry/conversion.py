"""Kinds that are served in two versions and stored in one: events.k8s.io/v1 Events, autoscaling/v1 autoscalers.

Pure translations between documents, by which nothing is lost: what the other version cannot say, it carries in
annotations. Used by `converted.ConvertedStore`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from apiserver.registry import autoscaler_versions
from apiserver.registry.validation.events import validate_strictly
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
_UNSAID = ("reportingController", "reportingInstance")
_REFERENCE = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_OWN = {"metadata.name": "metadata.name", "metadata.namespace": "metadata.namespace"}


def _renamed(obj: Obj, names: Mapping[str, str]) -> Obj:
    return {names.get(key, key): value for key, value in obj.items()}


def event_to_storage(obj: Obj, current: Obj | None) -> Obj:
    """events.k8s.io/v1 → v1."""
    return _renamed(obj, _EVENT_NAMES)


def event_from_storage(obj: Obj, current: Obj | None) -> Obj:
    """v1 → events.k8s.io/v1, which leaves out who reports where v1 shows an empty text."""
    shown = _renamed(obj, _EVENT_NAMES_BACK)
    return {key: value for key, value in shown.items() if value != "" or key not in _UNSAID}


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
    validate_strictly,
)


AUTOSCALERS = Conversion(autoscaler_versions.to_storage, autoscaler_versions.from_storage, _OWN)

CONVERSIONS: Mapping[tuple[str, str, str], Conversion] = {
    ("events.k8s.io", "v1", "events"): EVENTS,
    ("autoscaling", "v1", "horizontalpodautoscalers"): AUTOSCALERS,
}
