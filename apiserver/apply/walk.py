"""The fields of objects: of one that is new, of two that differ, and of a configuration that is applied.

Owns the three walks over a value and its shape. Hot path: `created` runs on every create and `compared` on every
update, so equal parts are skipped by one comparison and nothing is copied. Called by `ownership` and `server_side`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from apiserver.apply.fieldset import MEMBER, SELF, FieldSet, key_element, value_element
from apiserver.apply.shapes import DEDUCED, DEDUCED_SHAPE, KEYED, MAP, SET, STRUCT, WHOLE, Shape

Obj = dict[str, Any]

_MISSING: Any = object()


class Difference(NamedTuple):
    """What a change did: fields that got a new value (added or modified) and fields that went."""

    changed: FieldSet
    removed: FieldSet


NO_DIFFERENCE = Difference({}, {})

_simple_keys: dict[tuple[str, str], str] = {}
_SIMPLE_KEYS_KEPT, _LONGEST_KEY = 4096, 256


def element_of(item: Any, shape: Shape) -> str | None:
    """The path element of an item of a keyed list; None for what is no object."""
    if not isinstance(item, dict):
        return None
    keys = shape.keys
    if len(keys) == 1:
        name = keys[0]
        value = item.get(name)
        if type(value) is str:
            found = _simple_keys.get((name, value))
            if found is None:
                found = key_element({name: value})
                if len(value) <= _LONGEST_KEY:
                    if len(_simple_keys) >= _SIMPLE_KEYS_KEPT:
                        _simple_keys.clear()
                    _simple_keys[name, value] = found
            return found
    given = {}
    for name in keys:
        value = item.get(name)
        if value is None:
            value = shape.defaults.get(name)
        if value is not None:
            given[name] = value
    return key_element(given)


def added(shape: Shape, value: Any) -> FieldSet:
    """The node of a value where there was none."""
    kind = shape.kind
    if kind == WHOLE or not value:
        return MEMBER
    if isinstance(value, dict):
        node: FieldSet = {SELF: MEMBER}
        if kind == STRUCT:
            fields, element = shape.fields, shape.element
            for name, inner in value.items():
                field = fields.get(name)
                if field is not None:
                    below = field.shape
                    node[field.element] = MEMBER if below.kind == WHOLE else added(below, inner)
                else:
                    node[f"f:{name}"] = added(element, inner) if element is not None else MEMBER
            for unset in shape.nulls:
                node[unset] = MEMBER
            return node
        if kind in (KEYED, SET):
            return MEMBER
        element = shape.element or DEDUCED_SHAPE
        if element.kind == WHOLE:
            for name in value:
                node[f"f:{name}"] = MEMBER
        else:
            for name, inner in value.items():
                node[f"f:{name}"] = added(element, inner)
        return node
    if not isinstance(value, list) or kind not in (KEYED, SET):
        return MEMBER
    node = {SELF: MEMBER}
    if kind == SET:
        for item in value:
            node[value_element(item)] = MEMBER
        return node
    element = shape.element or DEDUCED_SHAPE
    for item in value:
        path = element_of(item, shape)
        if path is not None:
            node[path] = MEMBER if path in node else added(element, item)
    return node


def created(shape: Shape, obj: Obj, skip: frozenset[str]) -> FieldSet:
    """The fields of a new object: all but those at which upstream's empty object already holds the same.

    `skip`: fields of the root to leave out.
    """
    result: FieldSet = {}
    fields, element = shape.fields, shape.element
    for name, value in obj.items():
        if name in skip or (value is None and not shape.custom):  # a null stands in upstream's empty object too
            continue
        field = fields.get(name)
        if field is None:
            result[f"f:{name}"] = added(element or DEDUCED_SHAPE, value)
        elif field.always:
            if value and not isinstance(value, dict):
                result[field.element] = MEMBER  # not what the schema says: validation tells
            elif value:
                inner = created(field.shape, value, _NOTHING)
                if inner:
                    result[field.element] = inner
        elif field.required:
            if value != field.zero:
                node = added(field.shape, value)
                if SELF in node:
                    node = {path: below for path, below in node.items() if path != SELF}
                result[field.element] = node
        else:
            below = field.shape
            result[field.element] = MEMBER if below.kind == WHOLE else added(below, value)
    return result


_MOST_KNOWN = 256
_LONGEST_KNOWN = 4096


def created_json(shape: Shape, obj: Obj, skip: frozenset[str]) -> list[bytes]:
    """`created` as the members of a JSON object.

    Most objects are made from few templates: what was found for the same value, or the same keys of a plain map, is
    remembered per field.
    """
    result: list[bytes] = []
    fields, element = shape.fields, shape.element
    for name, value in obj.items():
        if name in skip or (value is None and not shape.custom):
            continue
        field = fields.get(name)
        if field is None:
            result.append(_member(f"f:{name}", added(element or DEDUCED_SHAPE, value)))
            continue
        below = field.shape
        kind = below.kind
        if kind == WHOLE and not field.required:
            result.append(field.leaf)
            continue
        if not value or not isinstance(value, (dict, list)):
            found = created(shape, {name: value}, _NOTHING)
            if found:
                result.append(_member(field.element, found[field.element]))
            continue
        key: Any
        if kind == MAP and isinstance(value, dict) and below.element is not None and below.element.kind == WHOLE:
            key = tuple(value)
        else:
            key = _encode(value)
        known = field.known.get(key)
        if known is None:
            found = created(shape, {name: value}, _NOTHING)
            known = _member(field.element, found[field.element]) if found else b""
            if len(key) <= _LONGEST_KNOWN:
                if len(field.known) >= _MOST_KNOWN:
                    field.known.clear()
                field.known[key] = known
        if known:
            result.append(known)
    return result


def _member(name: str, node: FieldSet) -> bytes:
    return _encode({name: node})[1:-1]


_encode = msgspec.json.Encoder().encode
_NOTHING: frozenset[str] = frozenset()


def compared(shape: Shape, old: Obj, new: Obj, skip: frozenset[str] = _NOTHING) -> Difference:
    """What the change from one object to the other did."""
    changed, removed = _members(shape, old, new, skip)
    if not changed and not removed:
        return NO_DIFFERENCE
    return Difference(changed, removed)


def _members(shape: Shape, old: Obj, new: Obj, skip: frozenset[str] = _NOTHING) -> tuple[FieldSet, FieldSet]:
    changed: FieldSet = {}
    removed: FieldSet = {}
    fields = shape.fields
    for name, value in new.items():
        before = old.get(name, _MISSING)
        if before is value or before == value or name in skip:
            continue
        if value is None and before is _MISSING and not shape.custom:
            continue  # upstream's structs do not tell null from absent
        field = fields.get(name)
        if field is not None:
            path, below = field.element, field.shape
            if before is _MISSING and field.always:
                before = {}
                if not value:
                    continue
        else:
            path, below = f"f:{name}", shape.element or DEDUCED_SHAPE
        if before is _MISSING:
            changed[path] = added(below, value)
            continue
        more, less = _compared(below, before, value)
        if more is not None:
            changed[path] = more
        if less is not None:
            removed[path] = less
    for name, value in old.items():
        if name in new or name in skip or (value is None and not shape.custom):
            continue
        field = fields.get(name)
        if field is not None and field.always:
            if value and isinstance(value, dict):
                _, less = _compared(field.shape, value, {})
                if less is not None:
                    removed[field.element] = less
        elif field is not None:
            removed[field.element] = added(field.shape, value)
        else:
            removed[f"f:{name}"] = added(shape.element or DEDUCED_SHAPE, value)
    return changed, removed


def _compared(shape: Shape, old: Any, new: Any) -> tuple[FieldSet | None, FieldSet | None]:
    """Of two values that differ; None: nothing."""
    kind = shape.kind
    if kind == WHOLE:
        return MEMBER, None
    if kind in (KEYED, SET):
        if (not old and not new) or not isinstance(old or [], list) or not isinstance(new or [], list):
            return MEMBER, None
        changed, removed = (_values if kind == SET else _items)(shape, old or [], new or [])
        return changed or None, removed or None
    if kind == DEDUCED and not (isinstance(old, dict) and isinstance(new, dict)):
        return MEMBER, None
    if (not old and not new) or not isinstance(old or {}, dict) or not isinstance(new or {}, dict):
        return MEMBER, None
    changed, removed = _members(shape, old or {}, new or {})
    return changed or None, removed or None


def _values(shape: Shape, old: list[Any], new: list[Any]) -> tuple[FieldSet, FieldSet]:
    before = dict.fromkeys(map(value_element, old), MEMBER)
    after = dict.fromkeys(map(value_element, new), MEMBER)
    changed = {path: MEMBER for path in after if path not in before}
    return changed, {path: MEMBER for path in before if path not in after}


def _items(shape: Shape, old: list[Any], new: list[Any]) -> tuple[FieldSet, FieldSet]:
    changed: FieldSet = {}
    removed: FieldSet = {}
    element = shape.element or DEDUCED_SHAPE
    before, after = grouped(old, shape), grouped(new, shape)
    for path, items in after.items():
        were = before.get(path)
        if were is None:
            changed[path] = added(element, items[0]) if len(items) == 1 else MEMBER
        elif were != items:
            if len(were) == len(items) == 1:
                more, less = _compared(element, were[0], items[0])
                if more is not None:
                    changed[path] = more
                if less is not None:
                    removed[path] = less
            else:
                changed[path] = MEMBER
    for path, items in before.items():
        if path not in after:
            removed[path] = added(element, items[0]) if len(items) == 1 else MEMBER
    return changed, removed


def grouped(items: list[Any], shape: Shape) -> dict[str, list[Any]]:
    """Items by path element, in order; stored lists may hold duplicates."""
    found: dict[str, list[Any]] = {}
    for item in items:
        path = element_of(item, shape)
        if path is not None:
            found.setdefault(path, []).append(item)
    return found


class Undeclared(ValueError):
    """A value does not fit its schema; the text says where and why."""


def declared(shape: Shape, obj: Obj) -> FieldSet:
    """The fields that an applied configuration states. Raises Undeclared."""
    problems: list[str] = []
    found = _declared(shape, obj, "", problems)
    if problems:
        raise Undeclared(problems[0] if len(problems) == 1 else "errors:\n  " + "\n  ".join(problems))
    return found or {}


def fields_of(shape: Shape, obj: Obj) -> FieldSet:
    """The same of a stored object, whose faults are let pass."""
    return _declared(shape, obj, "", None) or {}


def _declared(shape: Shape, value: Any, path: str, problems: list[str] | None) -> FieldSet | None:
    """None: no member here or below. MEMBER: the value is a leaf."""
    kind = shape.kind
    if kind == WHOLE:
        if problems is not None:
            _check_type(shape, value, path, problems)
        return MEMBER
    if value is None:
        return None
    if kind in (KEYED, SET):
        if not isinstance(value, list):
            if problems is not None:
                problems.append(f"{path}: expected list, got {_shown(value)}")
            return None
        return (_declared_values if kind == SET else _declared_items)(shape, value, path, problems) or None
    if not isinstance(value, dict):
        if kind != DEDUCED and problems is not None:
            problems.append(f"{path}: expected map, got {_shown(value)}")
        return MEMBER
    node: FieldSet = {}
    fields = shape.fields
    for name, inner in value.items():
        field = fields.get(name)
        below = field.shape if field is not None else shape.element
        if below is None:
            if problems is not None:
                problems.append(f"{path}.{name}: field not declared in schema")
            continue
        found = _declared(below, inner, f"{path}.{name}" if problems is not None else "", problems)
        element = field.element if field is not None else f"f:{name}"
        if inner is None or (not inner and isinstance(inner, dict)):
            node[element] = MEMBER
        elif field is None:
            node[element] = {SELF: MEMBER, **found} if found else MEMBER
        elif found is not None:
            node[element] = found
    return node or None


def _declared_values(shape: Shape, items: list[Any], path: str, problems: list[str] | None) -> FieldSet:
    node: FieldSet = {}
    for item in items:
        element = value_element(item)
        if element in node and problems is not None:
            problems.append(f"{path}: duplicate entries for key [={element[2:]}]")
        node[element] = MEMBER
    return node


def _declared_items(shape: Shape, items: list[Any], path: str, problems: list[str] | None) -> FieldSet:
    node: FieldSet = {}
    below = shape.element or DEDUCED_SHAPE
    seen: set[str] = set()
    for index, item in enumerate(items):
        element = element_of(item, shape)
        if element is None:
            if problems is not None:
                what = "a null element" if item is None else "non-map elements"
                problems.append(f"{path}: element {index}: associative list with keys may not have {what}")
            continue
        if problems is None:
            place = ""
        else:
            from apiserver.apply.fieldset import shown

            place = path + shown(element)
            if element in seen:
                problems.append(f"{path}: duplicate entries for key {shown(element)}")
        found = _declared(below, item, place, problems)
        node[element] = {SELF: MEMBER, **found} if found and element not in seen else MEMBER
        seen.add(element)
    return node


_EXPECTED = {"string": "string", "boolean": "boolean", "integer": "numeric (int or float)", "number": "numeric"}


def _check_type(shape: Shape, value: Any, path: str, problems: list[str]) -> None:
    wanted = shape.type
    if value is None or not wanted:
        return
    if wanted in ("array", "object"):
        fits = isinstance(value, list if wanted == "array" else dict)
        text = "list" if wanted == "array" else "map"
    else:
        text = _EXPECTED.get(wanted, wanted)
        if wanted == "string":
            fits = isinstance(value, str)
        elif wanted == "boolean":
            fits = isinstance(value, bool)
        else:
            fits = isinstance(value, (int, float)) and not isinstance(value, bool)
            text = "numeric (int or float)"
    if not fits:
        problems.append(f"{path}: expected {text}, got {_shown(value)}")


def _shown(value: Any) -> str:
    from machinery.golang import printed

    return f"&{{{printed(value)}}}"
