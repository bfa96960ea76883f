"""Rows of custom resources: columns come from the CustomResourceDefinition, cells from simple JSON paths.

Only what definitions may use is understood: members, list indexes, wildcards and ``[?(@.key=="value")]`` filters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from apiserver.tables.columns import Column, Object, Printer
from apiserver.tables.durations import since
from apiserver.tables.texts import name

_AGE = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
_STEP = re.compile(
    r"""\.(?P<member>(?:\\.|[^.\[\]\\])+)
      | \[(?P<index>-?\d+)\]
      | \[(?P<star>\*)\]
      | \['(?P<quoted>[^']*)'\]
      | \[\?\(@\.(?P<key>[^=)\s]+)\s*==\s*["'](?P<value>[^"']*)["']\)\]""",
    re.VERBOSE,
)
Step = Callable[[Any], list[Any]]


def custom_printer(columns: Sequence[Mapping[str, Any]]) -> Printer:
    chosen = columns or [_AGE]
    parsed = [(column, json_path(str(column.get("jsonPath", "")))) for column in chosen]

    def cells(obj: Object, now: datetime) -> list[Any]:
        return [name(obj), *(_cell(str(column.get("type", "string")), path(obj), now) for column, path in parsed)]

    made = [
        Column(
            str(column.get("name", "")),
            str(column.get("type", "string")),
            str(column.get("format", "")),
            int(column.get("priority", 0)),
            str(column.get("description", "")),
        )
        for column in chosen
    ]
    return Printer((Column("Name", format="name"), *made), cells)


def json_path(path: str) -> Step:
    """A function from an object to all values at the path; a path that is not understood finds nothing."""
    steps: list[Step] = []
    at = 0
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None:
            return lambda value: []
        steps.append(_step(match))
        at = match.end()

    def walk(value: Any) -> list[Any]:
        found = [value]
        for step in steps:
            found = [item for each in found for item in step(each)]
        return found

    return walk


def _step(match: re.Match[str]) -> Step:
    parts = match.groupdict()
    member = parts["quoted"] if parts["quoted"] is not None else parts["member"]
    if member is not None:
        key = re.sub(r"\\(.)", r"\1", member)
        if key == "*":
            return _children
        return lambda value: [value[key]] if isinstance(value, dict) and key in value else []
    if parts["index"] is not None:
        index = int(parts["index"])
        return lambda value: value[index:][:1] if isinstance(value, list) and -len(value) <= index else []
    if parts["star"] is not None:
        return _children
    field, wanted = parts["key"], parts["value"]
    return lambda value: [
        item for item in _children(value) if isinstance(item, dict) and str(item.get(field)) == wanted
    ]


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _cell(type_: str, found: list[Any], now: datetime) -> Any:
    """The first value, checked against the column's type; nothing found is null."""
    if not found or found[0] is None:
        return None
    value = found[0]
    match type_:
        case "date":
            return since(value, now) if isinstance(value, str) else "<unknown>"
        case "integer":
            return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
        case "number":
            return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
        case "boolean":
            return value if isinstance(value, bool) else None
    if isinstance(value, (dict, list)):
        return msgspec.json.encode(value).decode()
    return value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
