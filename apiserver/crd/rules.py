"""`x-kubernetes-validations`: a schema's expressions, evaluated over objects.

Owns what an expression sees (values in the types that the schema gives them, names in their escaped spelling), which
rules run (those about a change only where there is an old value, none where nothing changed) and the findings, in
upstream's words. Called by the strategy of custom resources once the schema itself has found nothing that blocks.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from apiserver.expressions.compiling import Expression, ExpressionError, compile_expression
from machinery.field_errors import FieldError
from machinery.meta import parse_time

Json = Mapping[str, Any]
_UNSET: Any = object()
_RESERVED = frozenset(
    ("true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import")
) | frozenset(("let", "loop", "package", "namespace", "return", "var", "void", "while"))
_ESCAPES = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
_OLD = re.compile(r"\boldSelf\b")
_TEXT = re.compile(r"""r?"(?:[^"\\]|\\.)*"|r?'(?:[^'\\]|\\.)*'""")
_OPTIONAL = "cel.bind(oldSelf, known_ ? optional.of(old_) : optional.none(), ({}))"
_SEEN_METADATA = ("name", "generateName")
_DURATION_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def escaped(name: str) -> str:
    """A member's name as expressions spell it."""
    if name in _RESERVED:
        return f"__{name}__"
    return re.sub(r"__|[./-]", lambda match: _ESCAPES[match.group()], name)


def is_about_change(rule: str) -> bool:
    """Does the expression read `oldSelf`?"""
    return _OLD.search(_TEXT.sub('""', rule)) is not None


def compiled(rule: Json) -> Expression:
    """The expression of a rule. Raises ExpressionError."""
    text = str(rule.get("rule") or "")
    if not is_about_change(text):
        return compile_expression(text, ("self",))
    if rule.get("optionalOldSelf"):
        compile_expression(text, ("self", "oldSelf"))  # so that texts tell positions in what the author wrote
        return compile_expression(_OPTIONAL.format(text), ("self", "known_", "old_"))
    return compile_expression(text, ("self", "oldSelf"))


class Rules:
    """The rules of one place of a schema and of all below it."""

    __slots__ = ("_additional", "_items", "_keys", "_properties", "_raw", "_root", "_rules")

    def __init__(self, raw: Json, *, root: bool = False) -> None:
        self._raw = raw
        self._root = root
        self._rules: list[Json] = list(raw.get("x-kubernetes-validations") or ())
        self._properties = {
            name: node for name, child in (raw.get("properties") or {}).items() if (node := Rules(child)).any
        }
        extra, items = raw.get("additionalProperties"), raw.get("items")
        self._additional = _useful(extra)
        self._items = _useful(items)
        listed = raw.get("x-kubernetes-list-type") == "map"
        self._keys: tuple[str, ...] = tuple(raw.get("x-kubernetes-list-map-keys") or ()) if listed else ()

    @property
    def any(self) -> bool:
        """Is there a rule here or below?"""
        return bool(self._rules or self._properties or self._additional or self._items)

    def evaluate(self, value: Any, old: Any = _UNSET, path: str = "") -> list[FieldError]:
        """Findings about a value. `old` is what stood there before, if anything did."""
        if value is None or (old is not _UNSET and old == value):
            return []
        errors: list[FieldError] = []
        if self._rules:
            seen: dict[str, Any] = {"self": to_cel(value, self._raw, root=self._root)}
            if old is not _UNSET:
                seen["oldSelf"] = to_cel(old, self._raw, root=self._root)
            for rule in self._rules:
                errors += _checked(rule, seen, value, path)
        if isinstance(value, dict):
            before = old if isinstance(old, dict) else {}
            for key, item in value.items():
                child = self._properties.get(key) or (
                    None if key in (self._raw.get("properties") or ()) else self._additional
                )
                if child is not None:
                    at = f"{path}.{key}" if path else key
                    errors += child.evaluate(item, before.get(key, _UNSET), at)
        elif isinstance(value, list) and self._items is not None:
            known = {self._key(item): item for item in old} if self._keys and isinstance(old, list) else {}
            for index, item in enumerate(value):
                errors += self._items.evaluate(item, known.get(self._key(item), _UNSET), f"{path}[{index}]")
        return errors

    def _key(self, item: Any) -> Any:
        return tuple(str(item.get(key)) for key in self._keys) if isinstance(item, dict) else None


def _useful(raw: Any) -> Rules | None:
    if not isinstance(raw, dict):
        return None
    node = Rules(raw)
    return node if node.any else None


def _checked(rule: Json, seen: Mapping[str, Any], value: Any, path: str) -> list[FieldError]:
    text = str(rule.get("rule") or "")
    if is_about_change(text):
        if rule.get("optionalOldSelf"):
            seen = {"self": seen["self"], "known_": "oldSelf" in seen, "old_": seen.get("oldSelf")}
        elif "oldSelf" not in seen:
            return []
    else:
        seen = {"self": seen["self"]}
    at = path or "<nil>"
    try:
        if compiled(rule).evaluate(seen) is True:
            return []
    except ExpressionError as error:
        return [FieldError.invalid(at, _shown(value), f"{error} evaluating rule: {text}")]
    message = _message(rule, seen) or str(rule.get("message") or "").strip() or f"failed rule: {text.strip()}"
    below = str(rule.get("fieldPath") or "")
    if below:
        at = f"{path}{below}" if path else below.removeprefix(".")
    match rule.get("reason"):
        case "FieldValueForbidden":
            return [FieldError.forbidden(at, message)]
        case "FieldValueRequired":
            return [FieldError.required(at, message)]
        case "FieldValueDuplicate":
            return [FieldError.duplicate(at, _shown(value))]
    return [FieldError.invalid(at, _shown(value), message)]


def _message(rule: Json, seen: Mapping[str, Any]) -> str:
    """The text that `messageExpression` makes; empty where it fails, as upstream falls back to `message`."""
    text = rule.get("messageExpression")
    if not text or "known_" in seen:
        return ""
    try:
        made = compile_expression(str(text), tuple(seen), "string").evaluate(seen)
    except ExpressionError:
        return ""
    return made.strip() if isinstance(made, str) and "\n" not in made else ""


def _shown(value: Any) -> Any:
    if isinstance(value, dict):
        return "object"
    return "array" if isinstance(value, list) else value


def to_cel(value: Any, raw: Json, *, root: bool = False) -> Any:
    """A value as expressions see it: only what the schema names, in the schema's types."""
    if isinstance(value, dict):
        return _object(value, raw, root=root)
    if isinstance(value, list):
        items = raw.get("items")
        return [to_cel(item, items if isinstance(items, dict) else {}) for item in value]
    if isinstance(value, str):
        return _string(value, str(raw.get("format") or ""))
    if raw.get("type") == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _object(value: Json, raw: Json, *, root: bool) -> dict[str, Any]:
    properties, extra = raw.get("properties") or {}, raw.get("additionalProperties")
    if not properties and isinstance(extra, dict):
        return {key: to_cel(item, extra) for key, item in value.items()}
    made = {
        escaped(key): to_cel(item, properties[key])
        for key, item in value.items()
        if key in properties and (item is not None or properties[key].get("nullable"))
    }
    if root or raw.get("x-kubernetes-embedded-resource"):
        made["apiVersion"], made["kind"] = value.get("apiVersion") or "", value.get("kind") or ""
        meta = value.get("metadata") or {}
        made["metadata"] = {key: meta[key] for key in _SEEN_METADATA if key in meta}
    return made


def _string(value: str, format_: str) -> Any:
    try:
        if format_ == "date-time":
            return _timestamp(parse_time(value))
        if format_ == "date":
            return _timestamp(datetime.fromisoformat(value).replace(tzinfo=UTC))
        if format_ == "byte":
            return base64.b64decode(value)
        if format_ == "duration":
            return _duration(value)
    except (ValueError, binascii.Error, OverflowError):
        return value
    return value


def _timestamp(moment: datetime) -> Timestamp:
    # The library takes times inside of values of any type only as messages.
    made = Timestamp()
    made.FromDatetime(moment)
    return made


def _duration(value: str) -> Duration:
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d|w)", value)
    if not parts or "".join(number + unit for number, unit in parts) != value.lstrip("-"):
        raise ValueError(value)
    seconds = sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)
    made = Duration()
    made.FromTimedelta(timedelta(seconds=-seconds if value.startswith("-") else seconds))
    return made
