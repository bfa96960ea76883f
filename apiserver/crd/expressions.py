"""Expressions (CEL): compiling and evaluating them over decoded JSON.

Owns the environment, Kubernetes' functions besides the standard ones, and upstream's words for what goes wrong. The
library (cel-expr-python, the official binding of Google's C++ implementation) costs 18 MiB, so it is imported with the
first expression. It bounds recursion and iterations by itself. Never knows schemas: `crd.rules` brings values into
form. Called there and when definitions are validated.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from machinery import quantity

if TYPE_CHECKING:
    from cel_expr_python import cel

MAX_LENGTH = 64 * 1024
_MISSING = re.compile(r'Key not found in map : "?([^"]*)"?')


class ExpressionError(ValueError):
    """The expression cannot be compiled, or not evaluated on these values."""


class Expression:
    """A compiled expression."""

    __slots__ = ("_compiled", "text")

    def __init__(self, text: str, compiled: cel.Expression) -> None:
        self.text = text
        self._compiled = compiled

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """The result as a plain value. Raises ExpressionError."""
        try:
            found = self._compiled.eval(data=dict(values))
            result = found.plain_value()
        except (RuntimeError, ValueError, TypeError) as error:
            raise ExpressionError(_worded(str(error))) from error
        if _is_error(found):
            raise ExpressionError(_worded(str(result)))
        return result


def _is_error(value: cel.Value) -> bool:
    from cel_expr_python import cel

    return bool(value.type() == cel.Type.ERROR)


def _worded(text: str) -> str:
    """The library's text in the words of the Go implementation."""
    text = re.sub(r"^[A-Z_]+: ", "", text)
    text = re.sub(r" \[[A-Z_]+\]$", "", text)
    if (match := _MISSING.search(text)) is not None:
        return f"no such key: {match[1]}"
    return {"divide by zero": "division by zero"}.get(text, text)


@lru_cache(maxsize=2048)
def compile_expression(text: str, variables: tuple[str, ...] = ("self",), result: str = "bool") -> Expression:
    """An expression over variables of any type; `result` is its type ("" for any). Raises ExpressionError."""
    if not text.strip():
        raise ExpressionError("expression is empty")
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"expression is longer than {MAX_LENGTH} characters")
    try:
        compiled = _environment(variables).compile(text)
        kind = compiled.return_type().name()
    except (RuntimeError, ValueError, TypeError) as error:
        raise ExpressionError(_worded(str(error))) from error
    if result and kind.lower() not in (result, "dyn"):
        raise ExpressionError(f"must evaluate to {'a ' if result == 'string' else ''}{result}")
    return Expression(text, compiled)


@lru_cache(maxsize=16)
def _environment(variables: tuple[str, ...]) -> cel.Env:
    from cel_expr_python import cel
    from cel_expr_python.ext import ext_bindings, ext_math, ext_optional, ext_strings

    extensions = [ext_strings.ExtStrings(), ext_math.ExtMath(), ext_optional.ExtOptional(), ext_bindings.ExtBindings()]
    return cel.NewEnv(variables=dict.fromkeys(variables, cel.Type.DYN), extensions=extensions, functions=_functions())


def _functions() -> list[cel.FunctionDecl]:
    """Kubernetes' own functions: lists, regular expressions, URLs, addresses, quantities (as numbers)."""
    from cel_expr_python import cel

    kinds = {
        "list": cel.Type.LIST,
        "str": cel.Type.STRING,
        "int": cel.Type.INT,
        "bool": cel.Type.BOOL,
        "double": cel.Type.DOUBLE,
        "dyn": cel.Type.DYN,
    }
    found = []
    for name, rows in _LIBRARY.items():
        overloads = []
        for member, takes, gives, implementation in rows:
            parameters = [kinds[kind] for kind in takes.split()]
            overloads.append(
                cel.Overload(
                    id=f"{name}_{takes.replace(' ', '_')}",
                    return_type=kinds[gives],
                    parameters=parameters,
                    is_member=member,
                    impl=implementation,
                )
            )
        found.append(cel.FunctionDecl(name, overloads))
    return found


def _sorted(items: Any) -> bool:
    values = _plain(items)
    return all(before <= after for before, after in pairwise(values))


def _plain(items: Any) -> list[Any]:
    return [item.plain_value() if hasattr(item, "plain_value") else item for item in items]


def _find(text: str, pattern: str) -> str:
    match = re.search(pattern, text)
    return match.group() if match else ""


def _find_all(text: str, pattern: str) -> list[str]:
    return [match.group() for match in re.finditer(pattern, text)]


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.scheme and parts.netloc) or text.startswith("/")


def _parses(parse: Any) -> Any:
    def test(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return test


def _network(text: str) -> Any:
    if "/" not in text:
        raise ValueError(text)
    return ipaddress.ip_interface(text)


def _quantity(text: str) -> float:
    return float(quantity.parse(text))


_LIBRARY: Mapping[str, tuple[tuple[bool, str, str, Any], ...]] = {
    # (is it called on its first argument, parameters, result, implementation)
    "isSorted": ((True, "list", "bool", _sorted),),
    "sum": ((True, "list", "dyn", lambda items: sum(_plain(items))),),
    "min": ((True, "list", "dyn", lambda items: min(_plain(items))),),
    "max": ((True, "list", "dyn", lambda items: max(_plain(items))),),
    "find": ((True, "str str", "str", _find),),
    "findAll": ((True, "str str", "list", _find_all),),
    "isURL": ((False, "str", "bool", _is_url),),
    "isIP": ((False, "str", "bool", _parses(ipaddress.ip_address)),),
    "isCIDR": ((False, "str", "bool", _parses(_network)),),
    "isQuantity": ((False, "str", "bool", _parses(quantity.parse)),),
    "quantity": ((False, "str", "double", _quantity),),
    "isGreaterThan": ((True, "double double", "bool", lambda one, other: one > other),),
    "isLessThan": ((True, "double double", "bool", lambda one, other: one < other),),
    "compareTo": ((True, "double double", "int", lambda one, other: (one > other) - (one < other)),),
    "asInteger": ((True, "double", "int", int),),
    "asApproximateFloat": ((True, "double", "double", float),),
}
