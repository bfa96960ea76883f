"""Nulls in definitions, as Go reads them: absent fields, and empty elements of lists and maps.

Pure. Called before a definition is defaulted and validated, so that nothing after it meets a null where it expects a
value. JSON that a schema carries as such (defaults, enumerations, examples) stays as it is.
"""

from __future__ import annotations

from typing import Any

_RAW = frozenset({"default", "enum", "example"})
_MAPS = frozenset({"properties", "patternProperties", "definitions", "dependencies"})
_TEXTS = frozenset({"required", "shortNames", "categories", "x-kubernetes-list-map-keys", "conversionReviewVersions"})


def tidied(value: Any, name: str = "", *, in_map: bool = False) -> Any:
    """The value without nulls; `name` is the field it stands in, `in_map` tells that its keys are free."""
    if isinstance(value, dict):
        made = {}
        for key, item in value.items():
            if not in_map and key in _RAW:
                made[key] = item
            elif item is not None:
                made[key] = tidied(item, key, in_map=not in_map and key in _MAPS)
            elif in_map:
                made[key] = {}
        return made
    if isinstance(value, list):
        empty: Any = "" if name in _TEXTS else {}
        return [empty if item is None else tidied(item, name) for item in value]
    return value
