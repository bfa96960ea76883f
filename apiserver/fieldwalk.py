"""The slow path of field validation: walk a body in document order and word what is wrong with it.

Owns: the texts of unknown and duplicate fields and of Go's decoding errors, and pruning. Called by
`apiserver.fieldvalidation` when its fast decoder has refused a body.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

from api.schema import SchemaNode
from apiserver.fieldtypes import MICRO_TIME, MICRO_TIME_REF, QUANTITY
from machinery.meta import parse_time

MAX_PROBLEMS = 100
_QUANTITY = re.compile(QUANTITY)
_MICRO_TIME = re.compile(MICRO_TIME)
_QUANTITY_SHAPE = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
_GO_NUMBERS = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
_TIME_PARTS = (
    ("2006", r"\d{4}"),
    ("-", "-"),
    ("01", r"\d\d"),
    ("-", "-"),
    ("02", r"\d\d"),
    ("T", "T"),
    ("15", r"\d\d"),
    (":", ":"),
    ("04", r"\d\d"),
    (":", ":"),
    ("05", r"\d\d"),
)


class TypeMismatch(ValueError):
    """A value that Go cannot decode into its field, in Go's words; `conversion` words it for unstructured data."""

    def __init__(self, message: str, conversion: str = "") -> None:
        super().__init__(message)
        self.conversion = conversion


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its keys in order, repetitions included."""


class Walker:
    """Collects problems; raises TypeMismatch at the first value of a wrong type."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.has_unknown = False
        self.has_duplicates = False

    def walk(self, text: bytes, node: SchemaNode) -> None:
        try:
            document = json.loads(text, object_pairs_hook=_Pairs)
        except RecursionError as error:
            raise TypeMismatch("exceeded max depth") from error
        self._value(document, node, "", _Place(node, "", ""))

    def _problem(self, kind: str, path: str) -> None:
        if kind == "unknown":
            self.has_unknown = True
        else:
            self.has_duplicates = True
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(f'{kind} field "{path}"')

    def _value(self, value: Any, node: SchemaNode, path: str, place: _Place) -> None:
        if value is None:
            return
        if node.quantity or node.int_or_string or not _is_container(node):
            if not node.open or node.quantity or node.int_or_string:
                _check_scalar(value, node, place)
            return
        if node.open:
            return
        if node.type == "array":
            if not isinstance(value, list) or isinstance(value, _Pairs):
                raise place.mismatch(value, go_type(node))
            if node.items is not None:
                for index, item in enumerate(value):
                    self._value(item, node.items, f"{path}[{index}]", place)
            return
        if not isinstance(value, _Pairs):
            raise place.mismatch(value, go_type(node))
        self._object(value, node, path, place)

    def _object(self, pairs: _Pairs, node: SchemaNode, path: str, place: _Place) -> None:
        properties, additional = node.properties, node.additional_properties
        seen: set[str] = set()
        for key, value in pairs:
            at = f"{path}.{key}" if path else key
            child = properties.get(key) if properties else additional
            if child is None:
                self._problem("unknown", at)
                continue
            if key in seen:
                self._problem("duplicate", at)
            seen.add(key)
            self._value(value, child, at, place.field(node, key) if properties else place)


class _Place:
    """Where Go says an error happened: the innermost struct and the path of fields, list indexes left out."""

    __slots__ = ("path", "root", "struct")

    def __init__(self, root: SchemaNode, struct: str, path: str) -> None:
        self.root, self.struct, self.path = root, struct, path

    def field(self, owner: SchemaNode, name: str) -> _Place:
        struct = owner.name.rpartition(".")[2] if owner.name else self.struct
        return _Place(self.root, struct, f"{self.path}.{name}" if self.path else name)

    def mismatch(self, value: Any, wanted: str) -> TypeMismatch:
        text = f"json: cannot unmarshal {_kind(value)} into Go {self._target()} of type {wanted}"
        return TypeMismatch(text, _conversion(value, wanted))

    def _target(self) -> str:
        return f"struct field {self.struct}.{self.path}" if self.path else "value"


def _is_container(node: SchemaNode) -> bool:
    node.resolve()
    return node.type in ("array", "object", "")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, _Pairs):
        return "object"
    if isinstance(value, list):
        return "array"
    return "string" if isinstance(value, str) else "number"


def _conversion(value: Any, wanted: str) -> str:
    """How Go's converter of unstructured objects words the same mismatch."""
    given = {"object": "map", "array": "slice", "number": "float64" if isinstance(value, float) else "int64"}
    kind = given.get(_kind(value), _kind(value))
    if wanted.startswith("[]"):
        return f"cannot restore slice from {kind}"
    if wanted.startswith("map["):
        return f"cannot restore map from {kind}"
    return f"cannot restore struct from: {kind}" if "." in wanted else f"unrecognized type: {wanted}"


def go_type(node: SchemaNode) -> str:
    """The Go type of a place, as far as the schema tells it."""
    node.resolve()
    if node.type == "array":
        return f"[]{go_type(node.items)}" if node.items is not None else "[]interface {}"
    if node.name and node.type in ("object", ""):
        package, _, name = node.name.rpartition(".")
        return f"{package.rpartition('.')[2]}.{name}"
    if node.type == "object":
        additional = node.additional_properties
        return f"map[string]{go_type(additional)}" if additional is not None else "map[string]interface {}"
    return {"boolean": "bool", "number": "float64", "integer": node.format or "int64"}.get(node.type, "string")


def _check_scalar(value: Any, node: SchemaNode, place: _Place) -> None:
    if node.quantity:
        _check_quantity(value)
    elif node.int_or_string:
        if isinstance(value, (_Pairs, list, bool, float)):
            raise TypeMismatch(f"json: cannot unmarshal {_kind(value)} into Go value of type int32")
        if isinstance(value, int):
            _check_integer(value, "int32", place)
    elif node.type == "string":
        if not isinstance(value, str):
            wanted = "Go value of type string" if node.format == "date-time" else ""
            if wanted:
                raise TypeMismatch(f"json: cannot unmarshal {_kind(value)} into {wanted}")
            raise place.mismatch(value, "[]uint8" if node.format == "byte" else "string")
        if node.format == "date-time":
            _check_time(value, node.ref == MICRO_TIME_REF)
        elif node.format == "byte":
            _check_base64(value)
    elif node.type == "boolean":
        if not isinstance(value, bool):
            raise place.mismatch(value, "bool")
    elif node.type == "number":
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise place.mismatch(value, "float64")
    elif node.type == "integer":
        wanted = node.format or "int64"
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise place.mismatch(value, wanted)
        _check_integer(value, wanted, place)


def _check_integer(value: int | float, wanted: str, place: _Place) -> None:
    low, high = _GO_NUMBERS[wanted]
    if isinstance(value, float) or not low <= value <= high:
        text = f"json: cannot unmarshal number {value} into Go {place._target()} of type {wanted}"
        raise TypeMismatch(text)


def _check_quantity(value: Any) -> None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return
    text = value if isinstance(value, str) else "true" if value is True else "false" if value is False else "{}"
    if _QUANTITY.match(text):
        return
    if re.match(_QUANTITY_SHAPE, text) and re.match(r"[+-]?(\d+\.?\d*|\.\d+)\D", text):
        raise TypeMismatch("unable to parse quantity's suffix")
    raise TypeMismatch(f"quantities must match the regular expression '{_QUANTITY_SHAPE}'")


def _check_time(text: str, micro: bool) -> None:
    if micro and not _MICRO_TIME.match(text):
        raise TypeMismatch(_time_error(text, micro))
    try:
        parse_time(text)
    except (ValueError, OverflowError) as error:
        raise TypeMismatch(_time_error(text, micro)) from error


def _time_error(text: str, micro: bool) -> str:
    layout = "2006-01-02T15:04:05.000000Z07:00" if micro else "2006-01-02T15:04:05Z07:00"
    parts = [*_TIME_PARTS, *(((".000000", r"\.\d{6}(?!\d)"),) if micro else ()), ("Z07:00", r"Z|[+-]\d\d:\d\d")]
    rest = text
    for name, pattern in parts:
        if name == "Z07:00" and not micro:
            rest = re.sub(r"^\.\d+", "", rest)
        match = re.match(pattern, rest)
        if match is None:
            return f'parsing time "{text}" as "{layout}": cannot parse "{rest}" as "{name}"'
        rest = rest[match.end() :]
    if rest:
        return f'parsing time "{text}": extra text: "{rest}"'
    return f'parsing time "{text}": {_out_of_range(text)} out of range'


def _out_of_range(text: str) -> str:
    month, hour, minute, second = int(text[5:7]), int(text[11:13]), int(text[14:16]), int(text[17:19])
    if not 1 <= month <= 12:
        return "month"
    if hour > 23:
        return "hour"
    if minute > 59:
        return "minute"
    return "second" if second > 59 else "day"


def _check_base64(text: str) -> None:
    compact = text.replace("\r", "").replace("\n", "")
    try:
        base64.b64decode(compact, validate=True)
    except (binascii.Error, ValueError) as error:
        bad = re.search(r"[^A-Za-z0-9+/]", compact)
        at = bad.start() if bad is not None and bad.group() != "=" else len(compact) // 4 * 4
        raise TypeMismatch(f"illegal base64 data at input byte {at}") from error


def merge_repeated(text: bytes, node: SchemaNode) -> dict[str, Any]:
    """The body as Go decodes it when keys are repeated: objects are merged, of anything else the last one stays."""
    merged: dict[str, Any] = _merged(json.loads(text, object_pairs_hook=_Pairs), node)
    return merged


def _merged(value: Any, node: SchemaNode | None) -> Any:
    if isinstance(value, _Pairs):
        mergeable = node is not None and not node.open
        result: dict[str, Any] = {}
        for key, item in value:
            made = _merged(item, node.child(key) if node is not None else None)
            before = result.get(key)
            if mergeable and isinstance(before, dict) and isinstance(made, dict):
                made = _deep_merge(before, made)
            result[key] = made
        return result
    if isinstance(value, list):
        items = node.items if node is not None else None
        return [_merged(item, items) for item in value]
    return value


def _deep_merge(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    result = dict(before)
    for key, item in after.items():
        known = result.get(key)
        both = isinstance(known, dict) and isinstance(item, dict)
        result[key] = _deep_merge(known, item) if both else item  # type: ignore[arg-type]
    return result


def prune(obj: dict[str, Any], node: SchemaNode) -> dict[str, Any]:
    """The object without fields that the schema does not know; untouched parts are shared with the input."""
    pruned: dict[str, Any] = _prune(obj, node)
    return pruned


def _prune(value: Any, node: SchemaNode) -> Any:
    if isinstance(value, dict):
        if node.open:
            return value
        properties, additional = node.properties, node.additional_properties
        result: dict[str, Any] | None = None
        for key, item in value.items():
            child = properties.get(key) if properties else additional
            if child is None:
                result = dict(value) if result is None else result
                del result[key]
                continue
            kept = _prune(item, child)
            if kept is not item:
                result = dict(value) if result is None else result
                result[key] = kept
        return value if result is None else result
    if isinstance(value, list) and node.items is not None:
        items = [_prune(item, node.items) for item in value]
        return value if all(a is b for a, b in zip(items, value, strict=True)) else items
    return value
