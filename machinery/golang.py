"""How Go words things: printed values and JSON syntax errors, because upstream's messages carry both.

Owns: `printed` (Go's ``%v``), `go_text` (its JSON) and `json_error` (the text of a syntax error). Never parses for use:
these run only after a fast decoder has refused the input. Called by patches, field validation and the REST door when
they word an error.
"""

from __future__ import annotations

from typing import Any

import msgspec

_SPACE = b" \t\r\n"
_LITERALS = {ord("t"): b"true", ord("f"): b"false", ord("n"): b"null"}
_ESCAPES = b'bfnrt\\/"'
_HEX = b"0123456789abcdefABCDEF"
_DIGITS = b"0123456789"
_MAX_DEPTH = 10_000  # as Go's scanner
END = "unexpected end of JSON input"


def printed(value: Any) -> str:
    """A JSON value as Go prints it: ``map[a:1 b:[x y]]``, keys sorted, strings bare."""
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{printed(value[key])}' for key in sorted(value))}]"
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(printed(item) for item in value)}]"
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def go_text(value: Any) -> str:
    """A value as Go's encoder writes it: what HTML would mistake is escaped. Keys stay in the order they have."""
    text = msgspec.json.encode(value).decode()
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def quoted_character(byte: int) -> str:
    if byte == ord("'"):
        return r"'\''"
    if byte == ord('"'):
        return "'\"'"
    known = {0x07: "a", 0x08: "b", 0x09: "t", 0x0A: "n", 0x0B: "v", 0x0C: "f", 0x0D: "r", 0x5C: "\\"}
    if byte in known:
        return f"'\\{known[byte]}'"
    if byte < 0x20 or byte == 0x7F:
        return f"'\\x{byte:02x}'"
    # Go turns the single byte into a rune: 0x80-0x9f are control characters, the rest is Latin-1.
    return f"'\\u{byte:04x}'" if 0x7F < byte < 0xA1 or byte == 0xAD else f"'{chr(byte)}'"


class _SyntaxError(Exception):
    pass


class _Scanner:
    """Walks the text with a stack of its own, so that depth is bounded by memory and not by recursion."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.at = 0

    def fail(self, where: str) -> _SyntaxError:
        if self.at >= len(self.text):
            return _SyntaxError(END)
        return _SyntaxError(f"invalid character {quoted_character(self.text[self.at])} {where}")

    def peek(self) -> int:
        return self.text[self.at] if self.at < len(self.text) else -1

    def skip_space(self) -> int:
        text, at = self.text, self.at
        while at < len(text) and text[at] in _SPACE:
            at += 1
        self.at = at
        return self.peek()

    def string(self) -> None:
        self.at += 1
        while True:
            byte = self.peek()
            if byte < 0x20:
                raise self.fail("in string literal")
            self.at += 1
            if byte == ord('"'):
                return
            if byte == ord("\\"):
                self.escape()

    def escape(self) -> None:
        byte = self.peek()
        if byte == ord("u"):
            self.at += 1
            for _ in range(4):
                if self.peek() < 0 or self.peek() not in _HEX:
                    raise self.fail(r"in \u hexadecimal character escape")
                self.at += 1
        elif byte < 0 or byte not in _ESCAPES:
            raise self.fail("in string escape code")
        else:
            self.at += 1

    def digits(self, where: str) -> None:
        if self.peek() < 0 or self.peek() not in _DIGITS:
            raise self.fail(where)
        while self.peek() >= 0 and self.peek() in _DIGITS:
            self.at += 1

    def number(self) -> None:
        if self.peek() == ord("-"):
            self.at += 1
        if self.peek() == ord("0"):
            self.at += 1
        else:
            self.digits("in numeric literal")
        if self.peek() == ord("."):
            self.at += 1
            self.digits("after decimal point in numeric literal")
        if self.peek() in (ord("e"), ord("E")):
            self.at += 1
            if self.peek() in (ord("+"), ord("-")):
                self.at += 1
            self.digits("in exponent of numeric literal")

    def literal(self, word: bytes) -> None:
        for index, expected in enumerate(word):
            if self.peek() != expected:
                raise self.fail(f"in literal {word.decode()} (expecting {quoted_character(word[index])})")
            self.at += 1

    def scalar(self) -> None:
        byte = self.peek()
        if byte == ord('"'):
            self.string()
        elif byte in _LITERALS:
            self.literal(_LITERALS[byte])
        elif byte == ord("-") or (byte >= 0 and byte in _DIGITS):
            self.number()
        else:
            raise self.fail("looking for beginning of value")

    def key(self) -> None:
        if self.skip_space() != ord('"'):
            raise self.fail("looking for beginning of object key string")
        self.string()
        if self.skip_space() != ord(":"):
            raise self.fail("after object key")
        self.at += 1

    def document(self) -> None:
        closers: list[int] = []
        while True:
            byte = self.skip_space()
            if byte in (ord("{"), ord("[")):
                closers.append(ord("}") if byte == ord("{") else ord("]"))
                if len(closers) > _MAX_DEPTH:
                    raise _SyntaxError("exceeded max depth")
                self.at += 1
                if self.skip_space() != closers[-1]:
                    if closers[-1] == ord("}"):
                        self.key()
                    continue
            else:
                self.scalar()
                if not closers:
                    break
            if self.close(closers):
                break
        if self.skip_space() >= 0:
            raise self.fail("after top-level value")

    def close(self, closers: list[int]) -> bool:
        """After a value: leaves every container that ends here; True at the end of the document."""
        while closers:
            byte = self.skip_space()
            if byte == closers[-1]:
                self.at += 1
                closers.pop()
                continue
            in_object = closers[-1] == ord("}")
            if byte != ord(","):
                raise self.fail("after object key:value pair" if in_object else "after array element")
            self.at += 1
            if in_object:
                self.key()
            return False
        return True


def json_kind(value: Any) -> str:
    """What Go's messages call a decoded JSON value."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    if value is None:
        return "null"
    return "array" if isinstance(value, list) else "object"


def json_error(text: bytes) -> str:
    """Go's message for text that is not JSON; empty when Go would accept it."""
    try:
        _Scanner(text).document()
    except _SyntaxError as error:
        return str(error)
    return ""
