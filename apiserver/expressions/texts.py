"""Regular expressions and named formats."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from apiserver.crd.formats import FORMATS, compile_pattern
from apiserver.expressions.numbers import Row
from apiserver.expressions.opaque import wrap
from apiserver.registry.validation import names

Problems = Callable[[str], list[str]]


def _compiled(pattern: str) -> re.Pattern[str]:
    found = compile_pattern(pattern)
    if found is None:
        raise ValueError(f"Illegal regex: error parsing regexp: `{pattern}`")
    return found


def _find(text: str, pattern: str) -> str:
    match = _compiled(pattern).search(text)
    return match.group() if match else ""


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    found = [match.group() for match in _compiled(pattern).finditer(text)]
    return found if limit < 0 else found[:limit]


def _by_format(name: str, article: str) -> Problems:
    test = FORMATS[name]
    return lambda text: [] if test(text) else [f"invalid {article}"]


def _label_value(text: str) -> list[str]:
    return names.label_value(text)


NAMED: dict[str, Problems] = {
    "dns1123Label": names.dns_label,
    "dns1123Subdomain": names.dns_subdomain,
    "dns1035Label": names.dns_1035_label,
    "qualifiedName": names.qualified_name,
    "labelValue": _label_value,
    "uri": _by_format("uri", "URI"),
    "uuid": _by_format("uuid", "UUID"),
    "byte": _by_format("byte", "base64"),
    "date": _by_format("date", "date"),
    "datetime": _by_format("datetime", "datetime"),
}
# The same for what is put in front of a generated suffix: such a prefix may end where a name may not.
for _name in ("dns1123Label", "dns1123Subdomain", "dns1035Label"):
    NAMED[f"{_name}Prefix"] = lambda text, check=NAMED[_name]: check(f"{text}a" if text.endswith("-") else text)  # type: ignore[misc]


def _validate(format_: Any, text: str) -> list[list[str]]:
    """The problems, as the only element of a list (see `rewriting`); an empty list when there are none."""
    problems = NAMED[format_.text](text)
    return [problems] if problems else []


def _named(name: str) -> list[Any]:
    return [wrap("Format", name)] if name in NAMED else []


def _constructor(name: str) -> Callable[[], Any]:
    return lambda: wrap("Format", name)


ROWS: tuple[Row, ...] = (
    ("jsonpatch.escapeKey", False, "str", "str", lambda key: key.replace("~", "~0").replace("/", "~1")),
    ("find", True, "str str", "str", _find),
    ("findAll", True, "str str", "list", _find_all),
    ("findAll", True, "str str int", "list", _find_all),
    ("format.named", False, "str", "list", _named),
    ("validate", True, "Format str", "list", _validate),
    *((f"format.{name}", False, "", "Format", _constructor(name)) for name in NAMED),
)
