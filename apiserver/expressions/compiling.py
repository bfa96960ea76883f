"""Expressions compiled and evaluated over decoded JSON.

Owns the environment and upstream's words for what goes wrong. The library (cel-expr-python, the official binding of
Google's C++ implementation) costs 18 MiB, so it is imported with the first expression. It bounds recursion and
iterations by itself. Called for rules of schemas, for admission policies and for match conditions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from time import perf_counter
from typing import TYPE_CHECKING, Any

from apiserver.expressions.rewriting import rewritten
from apiserver.metrics import Histogram

if TYPE_CHECKING:
    from cel_expr_python import cel

MAX_LENGTH = 64 * 1024
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
COMPILATIONS, EVALUATIONS = Histogram(_BUCKETS), Histogram(_BUCKETS)
"""Seconds, of this process: what is compiled is shared by all who use it."""
_MISSING = re.compile(r'Key not found in map : "?([^"]*)"?')

_WORDS = {
    "divide by zero": "division by zero",
    "Iteration budget exceeded": "operation cancelled: actual cost limit exceeded",
}


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
        began = perf_counter()
        try:
            found = self._compiled.eval(data=dict(values))
            result = found.plain_value()
        except (RuntimeError, ValueError, TypeError) as error:
            raise ExpressionError(_worded(str(error))) from error
        finally:
            EVALUATIONS.observe((), perf_counter() - began)
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
    return _WORDS.get(text, text)


@lru_cache(maxsize=2048)
def compile_expression(text: str, variables: tuple[str, ...] = ("self",), result: str = "bool") -> Expression:
    """An expression over variables of any type; `result` is its type ("" for any). Raises ExpressionError."""
    if not text.strip():
        raise ExpressionError("expression is empty")
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"expression is longer than {MAX_LENGTH} characters")
    began = perf_counter()
    try:
        compiled = _environment(variables).compile(rewritten(text))
        kind = compiled.return_type().name()
    except (RuntimeError, ValueError, TypeError) as error:
        raise ExpressionError(_worded(str(error))) from error
    finally:
        COMPILATIONS.observe((), perf_counter() - began)
    if result and kind.lower() not in (result, "dyn"):
        raise ExpressionError(f"must evaluate to {'a ' if result == 'string' else ''}{result}")
    return Expression(text, compiled)


@lru_cache(maxsize=16)
def _environment(variables: tuple[str, ...]) -> cel.Env:
    from cel_expr_python import cel
    from cel_expr_python.ext import ext_bindings, ext_math, ext_optional, ext_strings

    from apiserver.expressions.library import functions
    from apiserver.expressions.opaque import pool

    extensions = [ext_strings.ExtStrings(), ext_math.ExtMath(), ext_optional.ExtOptional(), ext_bindings.ExtBindings()]
    return cel.NewEnv(
        descriptor_pool=pool(),
        variables=dict.fromkeys(variables, cel.Type.DYN),
        extensions=extensions,
        functions=functions(),
    )
