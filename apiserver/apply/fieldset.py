"""Field sets as FieldsV1 documents, and the algebra over them.

A set is the very JSON that stands in `fieldsV1`: a dict from path element (`f:name`, `k:{"name":"x"}`, `v:"x"`) to
the dict below it. A path is a member of the set when its dict is empty or holds `"."`. Working on the stored form saves
a translation in both directions on every write. Every function shares what it does not change and gives back the very
argument when nothing changes, so that callers may ask with `is`. Called by the other modules of this package.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

FieldSet = dict[str, Any]

MEMBER: FieldSet = {}
"""A path that is a member and has nothing below it. Shared: never modify a set."""
SELF = "."

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class BadFields(ValueError):
    """The document is no FieldsV1."""


def is_member(node: FieldSet) -> bool:
    """Does the path of this node itself belong to the set?"""
    return not node or SELF in node


def union(left: FieldSet, right: FieldSet) -> FieldSet:
    """Everything that is in either set."""
    if left is right or not right:
        return left
    if not left:
        return right
    result: FieldSet | None = None
    for key, theirs in right.items():
        ours = left.get(key)
        merged = theirs if ours is None else _union_below(ours, theirs)
        if merged is not ours:
            if result is None:
                result = dict(left)
            result[key] = merged
    return left if result is None else result


def _union_below(left: FieldSet, right: FieldSet) -> FieldSet:
    if left is right:
        return left
    if not right:
        return left if is_member(left) else {SELF: MEMBER, **left}
    if not left:
        return right if SELF in right else {SELF: MEMBER, **right}
    return union(left, right)


def difference(left: FieldSet, right: FieldSet) -> FieldSet:
    """What is in the first set and not in the second; members below a removed one stay."""
    if not right:
        return left
    result: FieldSet | None = None
    for key, theirs in right.items():
        ours = left.get(key)
        if ours is None:
            continue
        kept = _difference_below(ours, theirs)
        if kept is not ours:
            if result is None:
                result = dict(left)
            if kept is None:
                del result[key]
            else:
                result[key] = kept
    return left if result is None else result


def _difference_below(left: FieldSet, right: FieldSet) -> FieldSet | None:
    """None: nothing is left."""
    if not left:
        return None if is_member(right) else left
    if not right:
        right = {SELF: MEMBER}
    kept = difference(left, right)
    if kept is left:
        return left
    # Without anything below it, a node must say itself that it is a member.
    return _normal(kept)


def _normal(node: FieldSet) -> FieldSet | None:
    if not node:
        return None
    return MEMBER if len(node) == 1 and SELF in node else node


def without(left: FieldSet, right: FieldSet) -> FieldSet:
    """The first set without the members of the second and all that is below them."""
    if not right:
        return left
    result: FieldSet | None = None
    for key, theirs in right.items():
        ours = left.get(key)
        if ours is None:
            continue
        kept = None if is_member(theirs) else (without(ours, theirs) if ours else ours)
        if kept is not ours:
            if result is None:
                result = dict(left)
            kept = _normal(kept) if kept else None
            if kept is None:
                del result[key]
            else:
                result[key] = kept
    return left if result is None else result


def intersection(left: FieldSet, right: FieldSet) -> FieldSet:
    """What is in both sets."""
    result: FieldSet = {}
    for key, ours in left.items():
        theirs = right.get(key)
        if theirs is None or key == SELF:
            continue
        both = intersection(ours, theirs) if ours and theirs else {}
        if is_member(ours) and is_member(theirs):
            result[key] = {SELF: MEMBER, **both} if both else MEMBER
        elif both:
            result[key] = both
    return result


def has(fields: FieldSet, path: tuple[str, ...]) -> bool:
    """Is the path a member?"""
    node = fields
    for step in path:
        found = node.get(step)
        if found is None:
            return False
        node = found
    return is_member(node)


def of_path(*path: str) -> FieldSet:
    """The set with this one member."""
    node = MEMBER
    for step in reversed(path):
        node = {step: node}
    return node


def paths(fields: FieldSet, prefix: str = "") -> Iterator[str]:
    """Every member as texts show it: `.spec.containers[name="main"].image`, in order."""
    for key in sorted(fields, key=_rank):
        if key == SELF:
            continue
        text = prefix + shown(key)
        node = fields[key]
        if is_member(node):
            yield text
        if node:
            yield from paths(node, text)


_ORDER = {"f": 0, "k": 1, "v": 2, "i": 3, ".": -1}


def _rank(key: str) -> tuple[int, str]:
    return _ORDER.get(key[:1], 4), key


def shown(element: str) -> str:
    """A path element as texts show it."""
    kind, _, rest = element.partition(":")
    if kind == "f":
        return f".{rest}"
    if kind == "k":
        return "[" + ",".join(f"{name}={_json(value)}" for name, value in sorted(_decode(rest).items())) + "]"
    if kind == "v":
        return f"[={rest}]"
    return f"[{rest}]"


def _json(value: Any) -> str:
    return _encode(value).decode()


def ordered(fields: FieldSet) -> FieldSet:
    """The same set with its keys in upstream's order."""
    return {key: ordered(fields[key]) if fields[key] else MEMBER for key in sorted(fields, key=_rank)}


def accepted(document: Any) -> FieldSet:
    """A client's FieldsV1 in our normal form. Raises BadFields."""
    if not isinstance(document, dict):
        raise BadFields("fieldsV1 must be an object")
    result: FieldSet = {}
    for key, value in document.items():
        if key == SELF:
            continue
        inner = accepted(value)
        if isinstance(value, dict) and SELF in value:
            inner = {SELF: MEMBER, **inner} if inner else MEMBER
        result[_accepted_element(key)] = inner
    return result


def _accepted_element(element: str) -> str:
    kind, colon, rest = element.partition(":")
    if not colon or kind not in ("f", "k", "v", "i"):
        raise BadFields(f"bad path element {element!r}")
    if kind == "f":
        return element
    try:
        value = _decode(rest)
    except msgspec.DecodeError as error:
        raise BadFields(f"bad path element {element!r}") from error
    if kind == "k":
        if not isinstance(value, dict):
            raise BadFields(f"bad path element {element!r}")
        return key_element(value)
    if kind == "i" and (not isinstance(value, int) or isinstance(value, bool)):
        raise BadFields(f"bad path element {element!r}")
    return f"{kind}:{_json(value)}"


def key_element(keys: dict[str, Any]) -> str:
    """The path element of a list item that is known by these fields."""
    return "k:" + _json(dict(sorted(keys.items())) if len(keys) > 1 else keys)


def value_element(value: Any) -> str:
    """The path element of an item of a set."""
    return "v:" + _json(value)
