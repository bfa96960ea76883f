"""Spellings that the CEL library cannot be taught, written in ones that it knows. Pure, on the text.

The library takes no new overloads for names that it declares itself, lets functions return no optionals, and makes
objects only of known messages. So: `x.validate(y)` and `format.named(x)` become the optional first element of a list;
`indexOf`, `lastIndexOf` and `reverse`, which Kubernetes has for lists too, get names of their own; and the object
literals of mutations (`Object{…}`, `Object.spec{…}`, `JSONPatch{…}`) become maps. Other texts stay as they are.
"""

from __future__ import annotations

import re
from typing import Final

_TOKEN: Final = re.compile(
    r"""(?P<skip>\s+|//[^\n]*)"""
    r'''|(?P<text>[bB]?[rR]?[bB]?(?:"""[\s\S]*?"""|\'\'\'[\s\S]*?\'\'\'|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))'''
    r"""|(?P<word>[A-Za-z_]\w*)|(?P<other>[\s\S])"""
)
_RENAMED: Final = {"indexOf": "k8sIndexOf", "lastIndexOf": "k8sLastIndexOf", "reverse": "k8sReverse"}
_OPTIONAL: Final = "[?0]"
_INTERESTING: Final = re.compile(r"\b(?:validate|named|indexOf|lastIndexOf|reverse)\s*\(|\b(?:Object|JSONPatch)\b")
_CLOSING: Final = {"(": ")", "[": "]", "{": "}"}


def rewritten(text: str) -> str:
    """The expression as the library can take it."""
    if _INTERESTING.search(text) is None:
        return text
    tokens = [(match.lastgroup or "", match.group()) for match in _TOKEN.finditer(text)]
    return "".join(_Rewriter(tokens).run())


class _Rewriter:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._out: list[str] = []
        self._open: list[tuple[str, str]] = []
        """Brackets that are open: (the closing one, what follows it)."""
        self._literals: set[int] = set()
        """Depths at which an object literal's fields stand."""

    def run(self) -> list[str]:
        index = 0
        while index < len(self._tokens):
            index = self._step(index)
        return self._out

    def _near(self, index: int, step: int) -> int:
        """The next token that counts, or -1."""
        index += step
        while 0 <= index < len(self._tokens):
            if self._tokens[index][0] != "skip":
                return index
            index += step
        return -1

    def _value(self, index: int) -> str:
        return self._tokens[index][1] if 0 <= index < len(self._tokens) else ""

    def _step(self, index: int) -> int:
        kind, value = self._tokens[index]
        if kind == "word":
            return self._word(index, value)
        if kind == "other" and value in _CLOSING:
            self._open.append((_CLOSING[value], ""))
        elif kind == "other" and self._open and value == self._open[-1][0]:
            self._literals.discard(len(self._open))
            self._out.append(value + self._open.pop()[1])
            return index + 1
        self._out.append(value)
        return index + 1

    def _word(self, index: int, value: str) -> int:
        before, after = self._near(index, -1), self._near(index, 1)
        member = self._value(before) == "."
        if value in ("Object", "JSONPatch") and not member:
            end = self._type_name(index)
            if end:
                self._out.append("{")
                self._open.append(("}", ""))
                self._literals.add(len(self._open))
                return end + 1
        if member and self._value(after) == "(":
            named = value == "named" and self._value(self._near(before, -1)) == "format"
            if value == "validate" or named:
                self._out.append(value + "".join(token for _, token in self._tokens[index + 1 : after + 1]))
                self._open.append((")", _OPTIONAL))
                return after + 1
            if value in _RENAMED:
                self._out.append(_RENAMED[value])
                return index + 1
        start = self._near(before, -1) if self._value(before) == "?" else before
        if len(self._open) in self._literals and self._value(after) == ":" and self._value(start) in ("{", ","):
            self._out.append(f'"{value}"')
            return index + 1
        self._out.append(value)
        return index + 1

    def _type_name(self, index: int) -> int:
        """Where the brace of `Object.spec.template{` stands; 0 when this is no literal."""
        while True:
            index = self._near(index, 1)
            if self._value(index) == "{":
                return index
            if self._value(index) != ".":
                return 0
            index = self._near(index, 1)
            if index < 0 or self._tokens[index][0] != "word":
                return 0
