"""JSON paths of the conversations: `a.b[0].c`, `a['x.y/z']`, `items[*].status`; and their templates."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

PLACEHOLDER = "u0u0u0"
"""Stands for {{u}} inside binary bodies (same length)."""

_PATH_TOKEN = re.compile(r"\['([^']*)'\]|\[(\d+|\*|-1)\]|([^.\[\]]+)")


def parse_path(path: str) -> list[str | int]:
    """'a.b[0].c', "a['x.y/z']", 'items[*].status' -> list of keys, indexes and '*'."""
    tokens: list[str | int] = []
    for quoted, index, key in _PATH_TOKEN.findall(path):
        if key:
            tokens.append(key)
        elif index:
            tokens.append("*" if index == "*" else int(index))
        else:
            tokens.append(quoted)
    return tokens


def get_path(value: Any, path: str) -> Any:
    """The value at a path, or None."""
    for token in parse_path(path):
        if isinstance(value, dict) and isinstance(token, str):
            value = value.get(token)
        elif isinstance(value, list) and isinstance(token, int) and -len(value) <= token < len(value):
            value = value[token]
        else:
            return None
    return value


def drop_path(value: Any, tokens: list[str | int]) -> None:
    """Removes what a parsed path names; '*' means every element."""
    if not tokens:
        return
    head, rest = tokens[0], tokens[1:]
    if isinstance(value, list):
        targets = range(len(value)) if head == "*" else [head] if isinstance(head, int) and head < len(value) else ()
        for i in targets:
            if rest:
                drop_path(value[i], rest)
            else:
                value[i] = "<ignored>"
    elif isinstance(value, dict):
        for key in list(value) if head == "*" else [head] if head in value else []:
            if rest:
                drop_path(value[key], rest)
            else:
                del value[key]


_VARIABLE = re.compile(r"\{\{(\w+)\}\}")


def fill(value: Any, variables: dict[str, Any]) -> Any:
    """Replaces {{name}} in every string (keys included); a string that is only {{name}} keeps the type."""
    if isinstance(value, str):
        whole = _VARIABLE.fullmatch(value)
        if whole and whole[1] in variables:
            return variables[whole[1]]
        return _VARIABLE.sub(lambda m: str(variables.get(m[1], m[0])), value)
    if isinstance(value, list):
        return [fill(v, variables) for v in value]
    if isinstance(value, dict):
        return {fill(k, variables): fill(v, variables) for k, v in value.items()}
    return value


def request_body(step: dict[str, Any], variables: dict[str, Any]) -> bytes | None:
    """What a step sends."""
    if "body_b64" in step:
        data = base64.b64decode(step["body_b64"]).replace(PLACEHOLDER.encode(), variables["u"].encode())
        for name, value in variables.items():
            data = data.replace(b"{{" + name.encode() + b"}}", str(value).encode())
        return data
    if "body" not in step:
        return None
    body = fill(step["body"], variables)
    for path, size in step.get("pad", {}).items():  # a long string that need not lie in the file
        *parents, last = parse_path(path)
        target = body
        for key in parents:
            target = target[key]
        target[last] = "x" * size
    return json.dumps(body).encode()
