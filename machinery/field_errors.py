"""Validation findings: a field path, a kind of error and upstream's wording for it.

Source of the rules: the API conventions' section on validation and the texts a real API server answers. A finding's
`str()` is `path: text`; `cause()` is the same as metav1.StatusCause. Values are shown as Go's `%#v`-like JSON.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Self

import msgspec

from machinery.errors import Cause, Invalid
from machinery.golang import go_text

_OMIT: Any = object()


def go_value(value: Any) -> str:
    """A value as upstream prints it after `Invalid value: `."""
    if isinstance(value, str):
        return msgspec.json.encode(value).decode()
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    return go_text(_ordered(value))


_SELECTOR = {name: place for place, name in enumerate(("matchLabels", "matchExpressions", "key", "operator", "values"))}


def _ordered(value: Any) -> Any:
    """Keys of maps sorted, label selectors in the order of their members; other structs are given in theirs.

    Upstream's internal structs show as objects with capital letters, maps of texts as objects of texts.
    """
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    if not isinstance(value, dict):
        return value
    keys = list(value)
    if _SELECTOR.keys() >= value.keys():
        keys.sort(key=_SELECTOR.__getitem__)
    elif all(isinstance(item, str) for item in value.values()) and not any(key[:1].isupper() for key in keys):
        keys.sort()
    return {key: _ordered(value[key]) for key in keys}


class FieldError(NamedTuple):
    """One finding. `reason` is metav1.CauseType's word (FieldValueRequired …)."""

    field: str
    reason: str
    text: str

    def __str__(self) -> str:
        return f"{self.field}: {self.text}" if self.field else self.text

    def cause(self) -> Cause:
        return Cause(self.reason, self.text, self.field)

    @classmethod
    def _of(cls, field: str, reason: str, label: str, value: Any, detail: str) -> Self:
        text = label if value is _OMIT else f"{label}: {go_value(value)}"
        return cls(field, reason, f"{text}: {detail}" if detail else text)

    @classmethod
    def required(cls, field: str, detail: str = "") -> Self:
        return cls._of(field, "FieldValueRequired", "Required value", _OMIT, detail)

    @classmethod
    def invalid(cls, field: str, value: Any, detail: str) -> Self:
        return cls._of(field, "FieldValueInvalid", "Invalid value", value, detail)

    @classmethod
    def invalid_whole(cls, field: str, detail: str) -> Self:
        """Invalid, where upstream leaves the value out."""
        return cls._of(field, "FieldValueInvalid", "Invalid value", _OMIT, detail)

    @classmethod
    def duplicate(cls, field: str, value: Any) -> Self:
        return cls._of(field, "FieldValueDuplicate", "Duplicate value", value, "")

    @classmethod
    def forbidden(cls, field: str, detail: str) -> Self:
        return cls._of(field, "FieldValueForbidden", "Forbidden", _OMIT, detail)

    @classmethod
    def not_found(cls, field: str, value: Any) -> Self:
        return cls._of(field, "FieldValueNotFound", "Not found", value, "")

    @classmethod
    def not_supported(cls, field: str, value: Any, valid: Iterable[str], *, sort: bool = True) -> Self:
        """Valid values are listed quoted, and sorted as upstream does where it keeps them in a set."""
        values = sorted(valid) if sort else list(valid)
        detail = f"supported values: {', '.join(go_value(item) for item in values)}" if values else ""
        return cls._of(field, "FieldValueNotSupported", "Unsupported value", value, detail)

    @classmethod
    def too_long(cls, field: str, limit: int) -> Self:
        unit = "byte" if limit == 1 else "bytes"
        return cls._of(field, "FieldValueTooLong", "Too long", _OMIT, f"may not be more than {limit} {unit}")

    @classmethod
    def too_many(cls, field: str, count: int, limit: int) -> Self:
        item = "item" if limit == 1 else "items"
        return cls._of(field, "FieldValueTooMany", "Too many", count, f"must have at most {limit} {item}")

    @classmethod
    def type_invalid(cls, field: str, value: Any, detail: str) -> Self:
        return cls._of(field, "FieldValueTypeInvalid", "Invalid value", value, detail)

    @classmethod
    def internal(cls, field: str, detail: str) -> Self:
        return cls._of(field, "InternalError", "Internal error", _OMIT, detail)


def invalid(kind: str, name: str, group: str, findings: Iterable[FieldError]) -> Invalid:
    """The 422 that reports all findings of one object; the message tells equal ones once, the causes keep them all."""
    return Invalid.of(kind, name, group, [finding.cause() for finding in findings])
