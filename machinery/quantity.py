"""resource.Quantity: exact numbers with decimal (`100m`, `2k`) or binary (`64Mi`) suffixes.

Source of the grammar: the API documentation of Quantity. Values are exact (Fraction); the integers that arithmetic
wants are rounded up, as upstream does. `canonical` gives the form that a server stores.
"""

from __future__ import annotations

import re
from fractions import Fraction

from machinery.caching import keep_short

_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_DECIMAL = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 10**3),
    "": Fraction(1),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
    "E": Fraction(10**18),
}
_DECIMAL_BY_EXPONENT = {-9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}
_GRAMMAR = re.compile(r"([+-]?)(\d+(?:\.\d*)?|\.\d+)(?:([KMGTPE]i)|([numkMGTPE])|[eE]([+-]?\d{1,3}))?$", re.ASCII)
_MAX = 2**63 - 1
PATTERN = r"^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"  # the pattern that upstream's error names
BAD = f"quantities must match the regular expression '{PATTERN}'"


def _split(text: str) -> tuple[Fraction, str]:
    """(value, form): form is "Ki"-like for binary, "e" for an exponent, else ""."""
    match = _GRAMMAR.match(text)
    if match is None:
        raise ValueError(BAD)
    sign, digits, binary, decimal, exponent = match.groups()
    number = Fraction(digits if digits[0] != "." else f"0{digits}")
    if binary:
        number *= _BINARY[binary]
    elif decimal:
        number *= _DECIMAL[decimal]
    elif exponent:
        number *= Fraction(10) ** int(exponent)
    return (-number if sign == "-" else number), (binary or ("e" if exponent else ""))


@keep_short(4096)
def parse(quantity: str | int | float | None) -> Fraction:
    """The exact value; null is zero, as Go reads it. Raises ValueError with upstream's text."""
    if isinstance(quantity, str):
        return _split(quantity)[0]
    if quantity is None:
        return Fraction(0)
    if isinstance(quantity, bool):
        raise ValueError(BAD)
    return Fraction(str(quantity)) if isinstance(quantity, float) else Fraction(quantity)


@keep_short(4096)
def value(quantity: str | int | float | None) -> int:
    """The value as a whole number, rounded up (away from zero for fractions), capped at int64."""
    return _clamp(-((-parse(quantity)) // 1))


@keep_short(4096)
def milli(quantity: str | int | float) -> int:
    """Thousandths, rounded up: `100m` → 100, `0.5` → 500. What CPU arithmetic uses."""
    return _clamp(-((-parse(quantity) * 1000) // 1))


def _clamp(number: int) -> int:
    return max(-_MAX - 1, min(_MAX, number))


@keep_short(4096)
def canonical(quantity: str | int | float) -> str:
    """The form that a server stores: no fraction, the largest suffix that needs none, the format kept.

    `0.5` → `500m`, `1024Mi` → `1Gi`, `1e3` → `1e3`, `1000` → `1k`. Raises ValueError.
    """
    text = quantity if isinstance(quantity, str) else str(quantity)
    number, form = _split(text)
    scaled = number * 10**9  # finer than nano is rounded up (away from zero)
    if scaled.denominator != 1:
        number = Fraction(-((-scaled) // 1) if scaled > 0 else scaled // 1, 10**9)
    if number == 0:
        return "0"
    if form in _BINARY:
        if abs(number) >= 1024 and number.denominator == 1:
            whole = int(number)
            suffix = ""
            for name, size in _BINARY.items():
                if whole % size == 0:
                    suffix = name
            return f"{whole // _BINARY[suffix] if suffix else whole}{suffix}"
        if number.denominator == 1 and abs(number) < 1024:
            return str(int(number))
        form = ""  # a fraction of a byte can only be told in decimal
    exponent = 18
    while exponent > -9 and (number / Fraction(10) ** exponent).denominator != 1:
        exponent -= 3
    mantissa = int(number / Fraction(10) ** exponent)
    if form == "e":
        return f"{mantissa}e{exponent}" if exponent else str(mantissa)
    return f"{mantissa}{_DECIMAL_BY_EXPONENT[exponent]}"


def format_milli(thousandths: int) -> str:
    """CPU as Kubernetes writes it: 1500 → `1500m`, 2000 → `2`."""
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"


def format_bytes(count: int) -> str:
    """Memory in the largest binary unit that needs no fraction: 67108864 → `64Mi`."""
    return canonical(f"{count // 1024}Ki") if count and count % 1024 == 0 else str(count)
