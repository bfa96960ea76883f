"""quantity(…) and semver(…): exact amounts and semantic versions."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from apiserver.expressions.opaque import wrap
from machinery import quantity

_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?",
    re.ASCII,
)
_LOOSE = re.compile(r"[vV]?(\d+)(?:\.(\d+))?(?:\.(\d+))?(.*)", re.ASCII | re.DOTALL)
_INT64 = 2**63
Row = tuple[str, bool, str, str, Any]


def _amount(value: Any) -> Fraction:
    return Fraction(value.text)


def _quantity(number: Fraction) -> Any:
    return wrap("Quantity", str(number))


def _parsed(text: str) -> Fraction:
    return Fraction(quantity.parse(text))


def is_quantity(text: str) -> bool:
    try:
        quantity.parse(text)
    except ValueError:
        return False
    return True


def _whole(value: Any) -> bool:
    number = _amount(value)
    return number.denominator == 1 and -_INT64 <= number < _INT64


def _as_integer(value: Any) -> int:
    if not _whole(value):
        raise ValueError("cannot convert value to integer")
    return int(_amount(value))


def _sign(one: Any, other: Any) -> int:
    return int(one > other) - int(one < other)


def normalized(text: str) -> str:
    """A version with its `v` and leading zeros taken away and missing parts added."""
    match = _LOOSE.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid semantic version {text!r}")
    numbers = ".".join(str(int(part or "0")) for part in match.groups()[:3])
    return numbers + match[4]


def _version(text: str) -> Any:
    if _SEMVER.fullmatch(text) is None:
        raise ValueError(f"invalid semantic version {text!r}")
    return wrap("Semver", text)


def is_semver(text: str, normalize: bool = False) -> bool:
    try:
        _version(normalized(text) if normalize else text)
    except ValueError:
        return False
    return True


def precedence(text: str) -> tuple[Any, ...]:
    """What versions are compared by: numbers, then a release above its pre-releases (semver.org, 11)."""
    match = _SEMVER.fullmatch(text)
    assert match is not None  # only such texts become versions
    numbers = tuple(int(match[index]) for index in (1, 2, 3))
    if match[4] is None:
        return (*numbers, 1)
    parts = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in match[4].split("."))
    return (*numbers, 0, parts)


def _part(index: int) -> Any:
    return lambda version: precedence(version.text)[index]


ROWS: tuple[Row, ...] = (
    # name, member?, parameters, result, implementation
    ("isQuantity", False, "str", "bool", is_quantity),
    ("quantity", False, "str", "Quantity", lambda text: _quantity(_parsed(text))),
    ("sign", True, "Quantity", "int", lambda value: _sign(_amount(value), 0)),
    ("isInteger", True, "Quantity", "bool", _whole),
    ("asInteger", True, "Quantity", "int", _as_integer),
    ("asApproximateFloat", True, "Quantity", "double", lambda value: float(_amount(value))),
    ("add", True, "Quantity Quantity", "Quantity", lambda one, other: _quantity(_amount(one) + _amount(other))),
    ("add", True, "Quantity int", "Quantity", lambda one, other: _quantity(_amount(one) + other)),
    ("sub", True, "Quantity Quantity", "Quantity", lambda one, other: _quantity(_amount(one) - _amount(other))),
    ("sub", True, "Quantity int", "Quantity", lambda one, other: _quantity(_amount(one) - other)),
    ("isLessThan", True, "Quantity Quantity", "bool", lambda one, other: _amount(one) < _amount(other)),
    ("isGreaterThan", True, "Quantity Quantity", "bool", lambda one, other: _amount(one) > _amount(other)),
    ("compareTo", True, "Quantity Quantity", "int", lambda one, other: _sign(_amount(one), _amount(other))),
    ("isSemver", False, "str", "bool", is_semver),
    ("isSemver", False, "str bool", "bool", is_semver),
    ("semver", False, "str", "Semver", _version),
    (
        "semver",
        False,
        "str bool",
        "Semver",
        lambda text, normalize: _version(normalized(text) if normalize else text),
    ),
    ("major", True, "Semver", "int", _part(0)),
    ("minor", True, "Semver", "int", _part(1)),
    ("patch", True, "Semver", "int", _part(2)),
    ("isLessThan", True, "Semver Semver", "bool", lambda a, b: precedence(a.text) < precedence(b.text)),
    ("isGreaterThan", True, "Semver Semver", "bool", lambda a, b: precedence(a.text) > precedence(b.text)),
    ("compareTo", True, "Semver Semver", "int", lambda a, b: _sign(precedence(a.text), precedence(b.text))),
)
