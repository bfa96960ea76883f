"""Event rows. Core and events.k8s.io events are one resource in two spellings; both are read."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from apiserver.tables.columns import Object, Printer, columns_of
from apiserver.tables.durations import UNKNOWN, since
from apiserver.tables.texts import mapping, name, number, part, text


def event(obj: Object, now: datetime) -> list[Any]:
    first = since(part(obj, "firstTimestamp") or part(obj, "deprecatedFirstTimestamp"), now)
    if first == UNKNOWN:
        first = since(part(obj, "eventTime"), now)
    last = since(part(obj, "lastTimestamp") or part(obj, "deprecatedLastTimestamp"), now)
    if last == UNKNOWN:
        last = first
    count = number(obj, "count") or number(obj, "deprecatedCount") or 1
    series = mapping(obj, "series")
    if series:
        last, count = since(part(series, "lastObservedTime"), now), number(series, "count")
    about = mapping(obj, "involvedObject") or mapping(obj, "regarding")
    target = text(about, "kind").lower() + (f"/{text(about, 'name')}" if text(about, "name") else "")
    message = text(obj, "message") or text(obj, "note")
    return [
        last,
        text(obj, "type"),
        text(obj, "reason"),
        target,
        text(about, "fieldPath"),
        source(obj),
        message.strip(),
        first,
        count,
        name(obj),
    ]


def source(obj: Object) -> str:
    """`kubelet, node-1`: who reported, and on which host."""
    reporter = mapping(obj, "source") or mapping(obj, "deprecatedSource")
    component, instance = text(reporter, "component"), text(reporter, "host")
    if not component:
        component = text(obj, "reportingComponent") or text(obj, "reportingController")
        instance = text(obj, "reportingInstance")
    return f"{component}, {instance}" if instance else component


_COLUMNS = columns_of(
    "Last Seen, Type, Reason, Object, Subobject+, Source+, Message, First Seen+, Count+, Name:string:name+"
)
_PRINTER = Printer(_COLUMNS, event)
PRINTERS: dict[tuple[str, str], Printer] = {("", "events"): _PRINTER, ("events.k8s.io", "events"): _PRINTER}
