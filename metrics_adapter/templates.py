"""The part of Go's text/template that rules are written in: `<<.Field>>`, `<<.Map.key>>` and `<<index .Map "key">>`.

Owns: parsing and filling. Pure. What else Go has (pipelines, conditions, loops) is refused when a rule is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_ACTION = re.compile(r"<<(-(?=\s))?(.*?)((?<=\s)-)?>>", re.DOTALL)
_FIELD = re.compile(r"\.([A-Za-z_]\w*)(?:\.([A-Za-z_]\w*))?", re.ASCII)
_INDEX = re.compile(r'index\s+\.([A-Za-z_]\w*)\s+(?:"([^"\\]*)"|`([^`]*)`)', re.ASCII)
Values = Mapping[str, str | Mapping[str, str]]


class _Part(NamedTuple):
    """A text, or a field of the values (and a key in it)."""

    text: str = ""
    field: str = ""
    key: str | None = None


class Template:
    """A template, ready to be filled."""

    def __init__(self, text: str, fields: Mapping[str, bool]) -> None:
        """`fields`: what may stand in it, and whether it is a mapping. Raises ValueError."""
        self.text = text
        self._parts = tuple(_parse(text, fields))

    def fill(self, values: Values) -> str:
        """The text with values in it; a key that a mapping lacks is empty, as Go has it for a map of strings."""
        return "".join(part.text or _value(part, values) for part in self._parts)

    def uses(self, field: str) -> bool:
        return any(part.field == field for part in self._parts)


def _value(part: _Part, values: Values) -> str:
    if not part.field:
        return ""
    found = values[part.field]
    if isinstance(found, str):
        return found
    if part.key is None:
        return "map[" + " ".join(f"{key}:{found[key]}" for key in sorted(found)) + "]"
    return found.get(part.key, "")


def _parse(text: str, fields: Mapping[str, bool]) -> list[_Part]:
    parts: list[_Part] = []
    at, trim = 0, False
    for match in _ACTION.finditer(text):
        before = text[at : match.start()]
        before = before.lstrip() if trim else before
        parts.append(_Part(before.rstrip() if match.group(1) else before))
        parts.append(_action(match.group(2).strip(), fields))
        at, trim = match.end(), bool(match.group(3))
    rest = text[at:]
    if "<<" in rest:
        raise ValueError("unclosed action")
    parts.append(_Part(rest.lstrip() if trim else rest))
    return parts


def _action(text: str, fields: Mapping[str, bool]) -> _Part:
    if not text:
        raise ValueError("missing value for command")
    if text.startswith("/*") and text.endswith("*/"):
        return _Part()
    index = _INDEX.fullmatch(text)
    if index:
        name, key = index.group(1), index.group(2) if index.group(2) is not None else index.group(3)
    else:
        field = _FIELD.fullmatch(text)
        if field is None:
            raise ValueError(f'<<{text}>>: only fields such as <<.Series>> and <<index .Map "key">> are supported')
        name, key = field.groups()
    if name not in fields:
        raise ValueError(f"<<{text}>>: can't evaluate field {name} (known: {', '.join(fields)})")
    if key is not None and not fields[name]:
        raise ValueError(f"<<{text}>>: {name} is no map")
    return _Part(field=name, key=key)
