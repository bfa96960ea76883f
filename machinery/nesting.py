"""How deeply values may be nested.

Whatever reads a value walks it with an interpreter that bears a thousand nested calls, some of them several per level.
A value that is stored must be readable in every form for ever, so the bound is lower than what a single step bears.
Kubernetes' own is 10,000; its deepest kinds nest some 60 levels.
"""

from __future__ import annotations

from typing import Any

from machinery.errors import BadRequest

MAX_DEPTH = 200


def too_deep() -> BadRequest:
    """The refusal of a body."""
    return BadRequest(f"json: exceeded max depth: {MAX_DEPTH}")


def is_too_deep(value: Any, raw: bytes) -> bool:
    """Whether a value is nested deeper than MAX_DEPTH; `raw` is its JSON, whose brackets mostly tell without a look."""
    if raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH:
        return False
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True
