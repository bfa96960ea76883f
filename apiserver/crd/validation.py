"""Judging values by a definition's schema, in upstream's words.

Owns types, enumerations, ranges, patterns, the logical combinations, and unique list items. Findings are FieldErrors
in upstream's order. An update does not judge what it leaves as it was (ratcheting). Never changes a value. Called by
the strategy of custom resources, and for a definition's defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from math import isfinite
from typing import Any

import msgspec

from apiserver.crd.formats import FORMATS, compile_pattern
from apiserver.crd.structural import Structural
from apiserver.registry.validation.fields import unsupported
from machinery.field_errors import FieldError, go_value

Json = Mapping[str, Any]
Check = Callable[[Any, str, str], list[FieldError]]
"""(value, field path, path as texts name it) → findings."""

NOWHERE = "<nil>"
BLOCKING = frozenset(
    (
        "FieldValueRequired",
        "FieldValueTypeInvalid",
        "FieldValueNotSupported",
        "FieldValueTooLong",
        "FieldValueTooMany",
    )
)
"""After such findings expressions are not evaluated: they could not be sure of what they read."""
UNCHECKED = FieldError.invalid(
    NOWHERE,
    None,
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete "
    "validation",
)
_UNSET: Any = object()


def type_name(value: Any) -> str:
    """What JSON schema calls the type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    return "array" if isinstance(value, list) else "object"


def number_text(value: float) -> str:
    """A bound as Go prints a float64."""
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    mantissa, e, exponent = repr(float(value)).partition("e")
    return f"{mantissa}e{exponent[0]}{exponent[1:].zfill(2)}" if e else mantissa


class Validator:
    """The checks of one place of a schema and of all below it."""

    __slots__ = (
        "_additional",
        "_all",
        "_any",
        "_checks",
        "_items",
        "_keys",
        "_not",
        "_one",
        "_properties",
        "_required",
    )

    def __init__(self, raw: Json) -> None:
        embedded = raw.get("x-kubernetes-embedded-resource") is True
        self._checks = _checks_of(raw)
        self._properties = {name: Validator(child) for name, child in (raw.get("properties") or {}).items()}
        extra, items = raw.get("additionalProperties"), raw.get("items")
        self._additional = Validator(extra) if isinstance(extra, dict) else None
        self._items = Validator(items) if isinstance(items, dict) else None
        listed = raw.get("x-kubernetes-list-type") == "map"
        self._keys: tuple[str, ...] = tuple(raw.get("x-kubernetes-list-map-keys") or ()) if listed else ()
        self._required: tuple[str, ...] = tuple(raw.get("required") or ())
        if embedded:
            self._required = tuple(dict.fromkeys(("apiVersion", "kind", *self._required)))
        self._all = [Validator(option) for option in raw.get("allOf") or ()]
        self._any = [Validator(option) for option in raw.get("anyOf") or ()]
        self._one = [Validator(option) for option in raw.get("oneOf") or ()]
        self._not = Validator(raw["not"]) if isinstance(raw.get("not"), dict) else None
        if raw.get("x-kubernetes-int-or-string"):
            # The usual companions say the same once more.
            pair = [{"type": "integer"}, {"type": "string"}]
            if list(raw.get("anyOf") or ()) == pair:
                self._any = []

    def validate(self, value: Any, path: str = "", shown: str = "", old: Any = _UNSET) -> list[FieldError]:
        """Findings about a value; with `old` only about what differs from it."""
        return self._judge(value, path, shown, old)[0]

    def _judge(self, value: Any, path: str, shown: str, old: Any) -> tuple[list[FieldError], int]:
        """Findings, and how many checks passed (the best of several alternatives tells its findings)."""
        if old is not _UNSET and old == value and type(old) is type(value):
            return [], 0
        errors: list[FieldError] = []
        passed = 0
        for check in self._checks:
            found = check(value, path, shown)
            errors += found
            passed += not found
        if self._all or self._any or self._one or self._not is not None:
            errors += self._combined(value, path, shown)
        if isinstance(value, dict):
            found, count = self._members(value, path, shown, old)
            errors += found
            passed += count
        elif isinstance(value, list) and self._items is not None:
            before = self._items_by_key(old)
            for index, item in enumerate(value):
                matching = before.get(self._key(item), _UNSET) if before else _UNSET
                at = f"[{index}]"
                found, count = self._items._judge(item, f"{path}{at}", f"{shown}{at}", matching)
                errors += found
                passed += count
        return errors, passed

    def _members(self, value: Json, path: str, shown: str, old: Any) -> tuple[list[FieldError], int]:
        errors: list[FieldError] = []
        passed = 0
        before: Json = old if isinstance(old, dict) else {}
        for name in self._required:
            if name not in value:
                errors.append(FieldError.required(f"{path}.{name}" if path else name))
            else:
                passed += 1
        properties, additional = self._properties, self._additional
        for key, item in value.items():
            child = properties.get(key)
            if child is None:
                child = additional
            if child is None:
                continue
            at, text = (f"{path}.{key}" if path else key), (f"{shown}.{key}" if shown else key)
            found, count = child._judge(item, at, text, before.get(key, _UNSET))
            errors += found
            passed += count
        return errors, passed

    def _items_by_key(self, old: Any) -> dict[Any, Any]:
        if not self._keys or not isinstance(old, list):
            return {}
        return {self._key(item): item for item in old}

    def _key(self, item: Any) -> Any:
        if not isinstance(item, dict):
            return None
        return tuple(_hashable(item.get(key)) for key in self._keys)

    def _combined(self, value: Any, path: str, shown: str) -> list[FieldError]:
        errors: list[FieldError] = []
        if self._any:
            best, worked = self._best(self._any, value, path, shown)
            if not worked:
                errors.append(_composite(f'"{shown}" must validate at least one schema (anyOf)'))
                errors += best
        if self._one:
            best, worked = self._best(self._one, value, path, shown)
            if worked != 1:
                why = f"Found {worked} valid alternatives" if worked else "Found none valid"
                errors.append(_composite(f'"{shown}" must validate one and only one schema (oneOf). {why}'))
                errors += best if not worked else []
        if self._all:
            each = [option._judge(value, path, shown, _UNSET)[0] for option in self._all]
            good = sum(not found for found in each)
            for found in each:
                errors += found
            if good != len(each):
                none = "" if good else ". None validated"
                errors.append(_composite(f'"{shown}" must validate all the schemas (allOf){none}'))
        if self._not is not None and not self._not._judge(value, path, shown, _UNSET)[0]:
            errors.append(_composite(f'"{shown}" must not validate the schema (not)'))
        return errors

    @staticmethod
    def _best(options: Sequence[Validator], value: Any, path: str, shown: str) -> tuple[list[FieldError], int]:
        best: tuple[list[FieldError], int] | None = None
        worked = 0
        for option in options:
            errors, passed = option._judge(value, path, shown, _UNSET)
            if not errors:
                worked += 1
            elif best is None or passed > best[1]:
                best = (errors, passed)
        return (best[0] if best else []), worked


def _composite(text: str) -> FieldError:
    return FieldError.invalid(NOWHERE, "", text)


def _hashable(value: Any) -> Any:
    return msgspec.json.encode(value) if isinstance(value, (dict, list)) else (type(value), value)


def _checks_of(raw: Json) -> list[Check]:
    """The checks of a place alone, in upstream's order: type, strings, formats, numbers, lists, enum, objects."""
    checks: list[Check] = []
    nullable = raw.get("nullable") is True
    either = raw.get("x-kubernetes-int-or-string") is True
    kinds = ("integer", "string") if either else ((raw["type"],) if raw.get("type") else ())
    if raw.get("x-kubernetes-embedded-resource") is True and not kinds:
        kinds = ("object",)
    if kinds:
        checks.append(_type_check(kinds, nullable))
    for key, make in _KEYWORDS.items():
        if raw.get(key) is not None:
            checks += make(raw[key], raw)
    return checks


def _type_check(kinds: tuple[str, ...], nullable: bool) -> Check:
    wanted = ",".join(kinds)

    def check(value: Any, path: str, shown: str) -> list[FieldError]:
        found = type_name(value)
        if found in kinds or (found == "null" and nullable):
            return []
        if found == "integer" and "number" in kinds:
            return []
        if found == "number" and "integer" in kinds and value.is_integer():
            return []
        text = f'{shown} in body must be of type {wanted}: "{found}"'
        return [FieldError.type_invalid(path, found, text)]

    return check


def _on(types: tuple[type, ...], test: Callable[[Any], bool], text: str, shown_value: Callable[[Any], Any]) -> Check:
    """A check of values of some types; others are not its business."""

    def check(value: Any, path: str, shown: str) -> list[FieldError]:
        if not isinstance(value, types) or isinstance(value, bool) or test(value):
            return []
        return [FieldError.invalid(path, shown_value(value), f"{shown} in body {text}")]

    return check


def _same(value: Any) -> Any:
    return value


def _limit(types: type[str] | type[list[Any]] | type[dict[str, Any]], limit: int, bytes_: bool) -> Check:
    def check(value: Any, path: str, shown: str) -> list[FieldError]:
        if not isinstance(value, types) or len(value) <= limit:
            return []
        return [FieldError.too_long(path, limit) if bytes_ else FieldError.too_many(path, len(value), limit)]

    return check


_NUMBER = (int, float)


def _maximum(bound: float, raw: Json) -> list[Check]:
    if raw.get("exclusiveMaximum"):
        return [_on(_NUMBER, lambda value: value < bound, f"should be less than {number_text(bound)}", _same)]
    text = f"should be less than or equal to {number_text(bound)}"
    return [_on(_NUMBER, lambda value: value <= bound, text, _same)]


def _minimum(bound: float, raw: Json) -> list[Check]:
    if raw.get("exclusiveMinimum"):
        return [_on(_NUMBER, lambda value: value > bound, f"should be greater than {number_text(bound)}", _same)]
    text = f"should be greater than or equal to {number_text(bound)}"
    return [_on(_NUMBER, lambda value: value >= bound, text, _same)]


def _multiple_of(factor: float, raw: Json) -> list[Check]:
    step = Fraction(Decimal(repr(factor)))
    if step <= 0:
        return []
    text = f"should be a multiple of {number_text(factor)}"

    def fits(value: float) -> bool:
        return isfinite(value) and (Fraction(Decimal(repr(value))) / step).denominator == 1

    return [_on(_NUMBER, fits, text, _same)]


def _min_length(limit: int, raw: Json) -> list[Check]:
    return [_on((str,), lambda value: len(value) >= limit, f"should be at least {limit} chars long", _same)]


def _pattern(pattern: str, raw: Json) -> list[Check]:
    compiled = compile_pattern(pattern)
    if compiled is None:
        return []
    search = compiled.search
    return [_on((str,), lambda value: search(value) is not None, f"should match '{pattern}'", _same)]


def _min_items(limit: int, raw: Json) -> list[Check]:
    return [_on((list,), lambda value: len(value) >= limit, f"should have at least {limit} items", len)]


def _min_properties(limit: int, raw: Json) -> list[Check]:
    return [_on((dict,), lambda value: len(value) >= limit, f"should have at least {limit} properties", len)]


def _format(name: str, raw: Json) -> list[Check]:
    test = FORMATS.get(name.replace("-", "").lower())
    if test is None:
        return []

    def check(value: Any, path: str, shown: str) -> list[FieldError]:
        if not isinstance(value, str) or test(value):
            return []
        text = f"{shown} in body must be of type {name}: {go_value(value)}"
        return [FieldError.type_invalid(path, value, text)]

    return [check]


def _enum(valid: Sequence[Any], raw: Json) -> list[Check]:
    nullable = raw.get("nullable") is True
    texts = [item if isinstance(item, str) else msgspec.json.encode(item).decode() for item in valid]

    def check(value: Any, path: str, shown: str) -> list[FieldError]:
        if any(item == value and isinstance(item, bool) == isinstance(value, bool) for item in valid):
            return []
        if value is None and nullable:
            return []
        return [unsupported(path, value, texts)]

    return [check]


_KEYWORDS: Mapping[str, Callable[[Any, Json], list[Check]]] = {
    "maxLength": lambda limit, raw: [_limit(str, limit, True)],
    "minLength": _min_length,
    "pattern": _pattern,
    "format": _format,
    "multipleOf": _multiple_of,
    "maximum": _maximum,
    "minimum": _minimum,
    "minItems": _min_items,
    "maxItems": lambda limit, raw: [_limit(list, limit, False)],
    "enum": _enum,
    "maxProperties": lambda limit, raw: [_limit(dict, limit, False)],
    "minProperties": _min_properties,
}


def duplicates(value: Any, node: Structural, path: str = "") -> list[FieldError]:
    """Items that occur twice in lists of type set or map."""
    if not node.unique:
        return []
    errors: list[FieldError] = []
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, (dict, list)) and (child := node.child(key)) is not None:
                errors += duplicates(item, child, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        seen: set[Any] = set()
        for index, item in enumerate(value):
            at = f"{path}[{index}]"
            if node.list_type in ("set", "map"):
                shown = _identity(item, node)
                key = _hashable(shown)
                if key in seen:
                    errors.append(FieldError.duplicate(at, shown))
                seen.add(key)
            if node.items is not None and isinstance(item, (dict, list)):
                errors += duplicates(item, node.items, at)
    return errors


def _identity(item: Any, node: Structural) -> Any:
    if node.list_type == "set" or not isinstance(item, dict):
        return item
    return {key: item[key] for key in sorted(node.list_keys) if key in item}


def has_rules(raw: Json) -> bool:
    """Does the schema carry expressions anywhere?"""
    if raw.get("x-kubernetes-validations"):
        return True
    below = [*(raw.get("properties") or {}).values(), raw.get("items"), raw.get("additionalProperties")]
    return any(has_rules(child) for child in below if isinstance(child, dict))
