"""JSON patch (RFC 6902) as the API server applies it, leniencies included.

Where upstream departs from the RFC, upstream's behaviour is kept: `replace` of a missing member adds it, a path
without its leading slash addresses the root, negative array indexes count from the end. A patch that does not apply
is a 422 whose text says nothing of the cause (that is upstream's answer too); a body that is not a patch is a 400.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from machinery.errors import BadRequest, Invalid, StatusError, TooLarge
from machinery.golang import json_error

MAX_OPERATIONS = 10_000
# Upstream bounds what `copy` may add up to, so that a small patch cannot make a huge object.
MAX_COPIED_BYTES = 3 * 1024 * 1024

_KNOWN = frozenset(("op", "path", "from", "value"))
_MISSING: Any = object()
_GO_KINDS = {dict: "object", list: "array", str: "string", bool: "bool", int: "number", float: "number"}


def go_kind(value: object) -> str:
    """How Go's decoder names a JSON value in `cannot unmarshal …`."""
    return _GO_KINDS.get(type(value), "null")


def decode_body(raw: bytes) -> Any:
    """The JSON of a patch body; 400 with Go's text when it is none."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"error decoding patch: {json_error(raw) or str(error)}") from error


def decode_json_patch(raw: bytes) -> tuple[list[dict[str, Any]], list[str]]:
    """The operations of a body, and the unknown fields in them as upstream warns of them."""
    ops = decode_body(raw)
    if ops is None:
        return [], []
    if not isinstance(ops, list):
        raise _not_decodable(go_kind(ops), "value of type []handlers.jsonPatchOp")
    warnings = []
    for index, op in enumerate(ops):
        if not isinstance(op, dict):
            raise _not_decodable(go_kind(op), "value of type handlers.jsonPatchOp")
        for name in ("op", "path", "from"):
            if not isinstance(op.get(name, ""), str | None):
                raise _not_decodable(go_kind(op[name]), f"struct field jsonPatchOp.{name} of type string")
        warnings += [f'json patch unknown field "[{index}].{name}"' for name in op if name not in _KNOWN]
    return ops, warnings


def apply_json_patch(doc: Any, ops: Sequence[Mapping[str, Any]]) -> Any:
    """The document after all operations, or one error and no change."""
    if len(ops) > MAX_OPERATIONS:
        raise TooLarge(f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(ops)}")
    patcher = _Patcher(doc)
    for op in ops:
        patcher.apply(op)
    return patcher.doc


class _Patcher:
    """Holds the document under change and which of its containers are already our own copies."""

    def __init__(self, doc: Any) -> None:
        self.doc = doc
        self._owned: dict[int, Any] = {}  # by id; the value keeps the container alive, so ids stay unique
        self._copied_bytes = 0

    def apply(self, op: Mapping[str, Any]) -> None:
        path = op.get("path")
        if not isinstance(path, str):
            raise _rejected()
        match op.get("op"):
            case "add":
                self._add(path, op.get("value"))
            case "remove":
                self._remove(path)
            case "replace":
                self._replace(path, op.get("value"))
            case "move":
                source = _from(op)
                value = self._get(source)
                self._remove(source)
                self._add(path, value)
            case "copy":
                value = self._get(_from(op))
                self._count_copy(value)
                # The value now stands in two places: whatever it contains is shared again and must be copied to change.
                self._owned.clear()
                self._add(path, value)
            case "test":
                if not _same(self._get(path, missing_is_null=True), op.get("value")):
                    raise _rejected()
            case _:
                raise _rejected()

    def _count_copy(self, value: Any) -> None:
        try:
            self._copied_bytes += len(msgspec.json.encode(value))
        except RecursionError as error:
            raise _rejected() from error
        if self._copied_bytes > MAX_COPIED_BYTES:
            raise _rejected()

    def _own(self, container: Any) -> Any:
        if id(container) in self._owned:
            return container
        copy = dict(container) if isinstance(container, dict) else list(container)
        self._owned[id(copy)] = copy
        return copy

    def _parent(self, path: str) -> tuple[Any, str]:
        """The container that holds the last step, made our own on the way, and that step."""
        steps = _steps(path)
        if steps is None or not isinstance(self.doc, (dict, list)):
            raise _rejected()
        self.doc = parent = self._own(self.doc)
        for step in steps[:-1]:
            child = _step(parent, step)
            if not isinstance(child, (dict, list)):
                raise _rejected()
            owned = self._own(child)
            if owned is not child:
                if isinstance(parent, dict):
                    parent[step] = owned
                else:
                    parent[_index(step, len(parent))] = owned
            parent = owned
        return parent, steps[-1]

    def _get(self, path: str, *, missing_is_null: bool = False) -> Any:
        if path == "":
            return self.doc
        steps = _steps(path)
        value = _MISSING if steps is None else self.doc
        for step in steps or ():
            value = _step(value, step)
        if value is _MISSING:
            if missing_is_null and steps and _step_parent(self.doc, steps) is not None:
                return None
            raise _rejected()
        return value

    def _add(self, path: str, value: Any) -> None:
        parent, step = self._parent(path)
        if isinstance(parent, dict):
            parent[step] = value
        elif step == "-":
            parent.append(value)
        else:
            parent.insert(_index(step, len(parent) + 1), value)

    def _remove(self, path: str) -> None:
        parent, step = self._parent(path)
        if isinstance(parent, list):
            del parent[_index(step, len(parent))]
        elif step in parent:
            del parent[step]
        else:
            raise _rejected()

    def _replace(self, path: str, value: Any) -> None:
        if path == "":
            if not isinstance(value, (dict, list)):
                raise _rejected()
            self.doc = value
            return
        parent, step = self._parent(path)
        if isinstance(parent, dict):
            parent[step] = value
        else:
            parent[_index(step, len(parent))] = value


def _from(op: Mapping[str, Any]) -> str:
    source = op.get("from")
    if not isinstance(source, str):
        raise _rejected()
    return source


def _steps(path: str) -> list[str] | None:
    """Unescaped steps; what stands before the first slash is ignored, as upstream does. None: the whole document."""
    steps = path.split("/")[1:]
    if "~" in path:
        steps = [step.replace("~1", "/").replace("~0", "~") for step in steps]
    return steps or None


def _step(value: Any, step: str) -> Any:
    if isinstance(value, dict):
        return value.get(step, _MISSING)
    if isinstance(value, list):
        return value[_index(step, len(value))]
    return _MISSING


def _step_parent(doc: Any, steps: list[str]) -> dict[str, Any] | None:
    """The object that could hold the last step; arrays do not count, their indexes must exist."""
    value = doc
    for step in steps[:-1]:
        value = _step(value, step)
    return value if isinstance(value, dict) else None


def _index(step: str, length: int) -> int:
    try:
        index = int(step)
    except ValueError:
        raise _rejected() from None
    if index < 0:
        index += length
    if not 0 <= index < length:
        raise _rejected()
    return index


def _same(left: Any, right: Any) -> bool:
    """JSON equality: Python's, except that true is not 1."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(_same(a, b) for a, b in zip(left, right, strict=True))
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def _not_decodable(kind: str, into: str) -> BadRequest:
    return BadRequest(f"error decoding patch: json: cannot unmarshal {kind} into Go {into}")


def _rejected() -> StatusError:
    return Invalid("the server rejected our request due to an error in our request", details={})
