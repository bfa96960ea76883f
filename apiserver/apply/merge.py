"""Merging an applied configuration into an object, and taking fields out of one.

Owns the order of merged lists and what a removed field leaves behind. Never changes its arguments; parts that stay are
shared with them. Called by `server_side`.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from apiserver.apply.fieldset import MEMBER, SELF, FieldSet, is_member, value_element
from apiserver.apply.shapes import DEDUCED, DEDUCED_SHAPE, KEYED, SET, STRUCT, WHOLE, Shape
from apiserver.apply.walk import element_of

Obj = dict[str, Any]


def merged(shape: Shape, live: Any, config: Any) -> Any:
    """The live value with what the configuration states; a null states nothing about objects and lists."""
    kind = shape.kind
    if kind == WHOLE or live is None:
        return config
    if kind in (KEYED, SET):
        if not isinstance(config, list) or not isinstance(live, list):
            return live if config is None else config
        if not live and not config:
            return config
        return _merged_list(shape, live, config)
    if not isinstance(config, dict) or not isinstance(live, dict):
        return live if config is None and kind != DEDUCED else config
    if not config:
        return live
    result = dict(live)
    for name, value in config.items():
        below = shape.child(name) or DEDUCED_SHAPE
        result[name] = merged(below, live[name], value) if name in live else value
    return result


def _merged_list(shape: Shape, live: list[Any], config: list[Any]) -> list[Any]:
    """Items of both in an order that keeps the configuration's, with the others where they stood."""
    element = shape.element or DEDUCED_SHAPE
    ours, theirs = _identified(shape, live), _identified(shape, config)
    of_live = dict(reversed(ours))
    of_config = dict(theirs)
    shared = [path for path, _ in theirs if path in of_live]
    result: list[Any] = []
    done: set[Hashable] = set()
    left = right = awaited = 0

    def take(path: Hashable) -> None:
        done.add(path)
        value = of_config[path]
        result.append(merged(element, of_live[path], value) if path in of_live else value)

    while left < len(ours) or right < len(theirs):
        expected = shared[awaited] if awaited < len(shared) else None
        if left < len(ours) and right < len(theirs):
            path = ours[left][0]
            if path == theirs[right][0]:
                take(path)
                left, right, awaited = left + 1, right + 1, awaited + 1
                continue
            if path in of_config and expected is not None and path != expected:
                left += 1  # shared, but its turn comes later
                continue
        if left < len(ours):
            path, item = ours[left]
            if path not in of_config:
                result.append(item)
                left += 1
                continue
            if path in done:
                left += 1
        if right < len(theirs):
            path = theirs[right][0]
            take(path)
            right += 1
            if path == expected:
                awaited += 1
    return result


def _identified(shape: Shape, items: list[Any]) -> list[tuple[Hashable, Any]]:
    if shape.kind == SET:
        return [(value_element(item), item) for item in items]
    return [(element_of(item, shape), item) for item in items]


def removed(shape: Shape, value: Any, fields: FieldSet) -> Any:
    """The value without the fields of a set; None when nothing of it is left."""
    if not fields or not value:
        return value
    kind = shape.kind
    if isinstance(value, list):
        if kind not in (KEYED, SET):
            return None if kind == WHOLE else value
        kept = _removed_items(shape, value, fields)
        return kept or None
    if not isinstance(value, dict):
        return value
    if kind == WHOLE:
        return None
    result: Obj = {}
    same = True
    for name, inner in value.items():
        node = fields.get(f"f:{name}")
        if node is None:
            result[name] = inner
            continue
        if is_member(node):
            same = False
            continue
        left = removed(shape.child(name) or DEDUCED_SHAPE, inner, node)
        same = same and left is inner
        if left is not None:
            result[name] = left
    if same:
        return value
    return result or None


def _removed_items(shape: Shape, items: list[Any], fields: FieldSet) -> list[Any]:
    element = shape.element or DEDUCED_SHAPE
    kept = []
    for item in items:
        path = value_element(item) if shape.kind == SET else element_of(item, shape)
        node = fields.get(path) if path is not None else None
        if node is not None:
            if is_member(node):
                continue
            item = removed(element, item, node)
        kept.append(item)
    return kept


def with_structs(shape: Shape, fields: FieldSet) -> FieldSet:
    """The set in which every struct field that has members below it is a member too.

    Whoever owned fields of a struct and gives all of them up gives up the struct, with what was defaulted inside.
    """
    if not fields:
        return fields
    result: FieldSet = {}
    declares = shape.fields if shape.kind == STRUCT else {}
    for path, node in fields.items():
        if path == SELF or not node:
            result[path] = node
            continue
        kind = path[0]
        if kind == "f":
            below = with_structs(shape.child(path[2:]) or DEDUCED_SHAPE, node)
            if path[2:] in declares and SELF not in below:
                below = {SELF: MEMBER, **below}
        else:
            below = with_structs(shape.element or DEDUCED_SHAPE, node)
        result[path] = below
    return result
