"""CEL expressions in objects: can they be compiled?

Owns the coarse check that refuses what no compiler would take, in upstream's words (an operator or dot with nothing
after it, brackets and quotes left open); the compiler is asked only about what passes it. Called wherever objects carry
expressions.
"""

import re

from machinery.field_errors import FieldError

_TOKEN = re.compile(
    r"""\s+|//[^\n]*|(?P<text>[bBrR]{0,2}(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))|(?P<word>[\w.]*\w)"""
    r"""|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<operator>&&|\|\||[<>=!]=|[-+*/%<>!?:,.])|(?P<bad>.)"""
)
_UNFINISHED = (
    "mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, "
    "NUM_UINT, STRING, BYTES, IDENTIFIER}"
)
_PAIRS = {")": "(", "]": "[", "}": "{"}


def syntax_error(expression: str) -> str:
    """Where and why the text cannot be an expression; empty = it may be one."""
    opened: list[str] = []
    last = ""
    position = 0
    while position < len(expression):
        match = _TOKEN.match(expression, position)
        if match is None:
            return _located(expression, position, "token recognition error")
        kind, text = match.lastgroup, match.group()
        if kind == "bad":
            return _located(expression, position, f"token recognition error at: '{text}'")
        if kind == "open":
            opened.append(text)
        elif kind == "close" and (not opened or opened.pop() != _PAIRS[text]):
            return _located(expression, position, f"extraneous input '{text}' expecting <EOF>")
        if kind is not None:
            last = text if kind == "operator" else kind
        position = match.end()
    if not last:
        return _located(expression, 0, _UNFINISHED)
    if last == ".":
        return _located(expression, len(expression.rstrip()), "no viable alternative at input '.'")
    if last not in ("text", "word", "open", "close"):
        return _located(expression, len(expression.rstrip()), _UNFINISHED)
    if opened:
        return _located(expression, len(expression), f"missing '{opened[-1]}' counterpart at '<EOF>'")
    return ""


def _located(expression: str, position: int, why: str) -> str:
    before = expression[:position]
    line, column = before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1
    shown = expression.split("\n")[line - 1]
    return f"ERROR: <input>:{line}:{column}: Syntax error: {why}\n | {shown}\n | {'.' * (column - 1)}^"


def check_expression(
    path: str, expression: str, result: str = "", variables: tuple[str, ...] = (), *, shown: object = None
) -> list[FieldError]:
    """The finding about an expression that cannot be compiled. Without variables only the syntax is looked at."""
    problem = syntax_error(expression)
    if not problem and variables:
        from apiserver.expressions.compiling import ExpressionError, compile_expression

        try:
            compile_expression(expression, variables, result)
        except ExpressionError as error:
            problem = str(error)
    if problem:
        return [FieldError.invalid(path, expression if shown is None else shown, f"compilation failed: {problem}")]
    return []
