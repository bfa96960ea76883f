"""String formats and patterns of definitions' schemas.

Owns which formats are checked and how Go's regular expressions are read by Python's. Called by `crd.validation`.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from datetime import date
from urllib.parse import urlsplit

from apiserver.registry.validation import names
from machinery.caching import keep_short
from machinery.meta import parse_time

_POSIX = {
    "[:alpha:]": "a-zA-Z",
    "[:digit:]": "0-9",
    "[:alnum:]": "a-zA-Z0-9",
    "[:upper:]": "A-Z",
    "[:lower:]": "a-z",
    "[:space:]": r"\s",
    "[:punct:]": r"!-/:-@\[-`{-~",
    "[:xdigit:]": "0-9A-Fa-f",
    "[:word:]": r"\w",
}


@keep_short(1024, longest=8192)
def compile_pattern(pattern: str) -> re.Pattern[str] | None:
    """A Go regular expression; None for what Python cannot read."""
    text = pattern
    for name, meaning in _POSIX.items():
        text = text.replace(name, meaning)
    text = text.replace(r"\z", r"\Z")
    # In Go `$` without the flag m is the very end; in Python it also stands before a last newline.
    text = re.sub(r"(?<!\\)\$(?=$|\))", r"\\Z", text)
    try:
        return re.compile(text, re.ASCII)
    except (re.error, RecursionError, OverflowError):
        return None


def _by(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def test(value: str) -> bool:
        try:
            parse(value)
        except (ValueError, OverflowError):
            return False
        return True

    return test


def _like(pattern: str) -> Callable[[str], bool]:
    match = re.compile(pattern, re.ASCII).fullmatch
    return lambda value: match(value) is not None


def _uri(value: str) -> bool:
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return bool(parts.scheme) or value.startswith("/")


def _base64(value: str) -> bool:
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _email(value: str) -> bool:
    local, at, domain = value.rpartition("@")
    return bool(at and local and domain) and not re.search(r"[\s<>]", value) and "@" not in local


def _luhn(value: str) -> bool:
    digits = [int(character) for character in value if character in "0123456789"]
    if not 13 <= len(digits) <= 19 or re.search(r"[^\d\s-]", value):
        return False
    total = sum(
        digit if index % 2 == 0 else (digit * 2 - 9 if digit > 4 else digit * 2)
        for index, digit in enumerate(reversed(digits))
    )
    return total % 10 == 0


_PART = r"([a-zA-Z0-9]|[a-zA-Z0-9][-a-zA-Z0-9]{0,61}[a-zA-Z0-9])"
_HOST = rf"{_PART}(\.{_PART})*\.?"
_DURATION = r"(?i)-?\d+(\.\d+)?\s*(ns|us|µs|ms|s|m|h|d|w|[a-z]+)(\s*\d+(\.\d+)?\s*[a-zµ]+)*|0"
_UUID = r"(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?%s[0-9a-f]{3}-?%s[0-9a-f]{3}-?[0-9a-f]{12}"

FORMATS: dict[str, Callable[[str], bool]] = {
    "bsonobjectid": _like(r"[0-9a-fA-F]{24}"),
    "byte": _base64,
    "cidr": _by(lambda value: ipaddress.ip_interface(value) if "/" in value else int("")),
    "creditcard": _luhn,
    "date": _by(lambda value: date.fromisoformat(value) if len(value) == 10 else int("")),
    "datetime": _by(parse_time),
    "duration": _like(_DURATION),
    "email": _email,
    "hexcolor": _like(r"#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})"),
    "hostname": lambda value: len(value) <= 255 and _like(_HOST)(value),
    "ipv4": _by(ipaddress.IPv4Address),
    "ipv6": _by(ipaddress.IPv6Address),
    "isbn": _like(r"(?:[\d-]{9,12}[\dXx]|[\d-]{13,17})"),
    "isbn10": _like(r"[\d -]{9,12}[\dXx]"),
    "isbn13": _like(r"[\d -]{13,17}"),
    "k8slongname": lambda value: not names.dns_subdomain(value),
    "k8sshortname": lambda value: not names.dns_label(value),
    "mac": _like(r"([0-9a-fA-F]{2}[:-]){5,7}[0-9a-fA-F]{2}|([0-9a-fA-F]{4}\.){2,3}[0-9a-fA-F]{4}"),
    "rgbcolor": _like(r"rgb\(\s*\d{1,3}\s*,\s*\d{1,3}\s*,\s*\d{1,3}\s*\)"),
    "ssn": _like(r"\d{3}[- ]?\d{2}[- ]?\d{4}"),
    "uri": _uri,
    "uuid": _like(_UUID % ("[0-9a-f]", "[0-9a-f]")),
    "uuid3": _like(_UUID % ("3", "[0-9a-f]")),
    "uuid4": _like(_UUID % ("4", "[89ab]")),
    "uuid5": _like(_UUID % ("5", "[89ab]")),
}
"""By name without dashes, in lower case; other formats are hints that nobody checks."""
