"""What differs between the recorded answer and ours: everything counts, message texts and managedFields included."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

Obj = dict[str, Any]


class Difference(NamedTuple):
    """One place where the answers are not the same."""

    path: str
    expected: Any
    got: Any

    def __str__(self) -> str:
        return f"{self.path}: expected {self.expected!r}, got {self.got!r}"


_ABSENT = "(absent)"


def compare(expected: Obj, got: Obj) -> list[Difference]:
    """All differences; an answer of another status is compared no further."""
    if expected.get("status") != got.get("status"):
        body = got.get("body")
        note = body.get("message") if isinstance(body, dict) and body.get("kind") == "Status" else ""
        return [Difference("status", expected.get("status"), f"{got.get('status')} {note}".strip())]
    out: list[Difference] = []
    want, have = expected.get("headers", {}), got.get("headers", {})
    if want.get("Content-Type") != have.get("Content-Type"):
        out.append(Difference("headers.Content-Type", want.get("Content-Type"), have.get("Content-Type")))
    if sorted(want.get("Warning", [])) != sorted(have.get("Warning", [])):
        out.append(Difference("headers.Warning", want.get("Warning", []), have.get("Warning", [])))
    if "events" in expected:
        _walk(expected["events"], got.get("events"), "events", out)
    else:
        _walk(expected.get("body"), got.get("body"), "body", out)
    return out


def _walk(want: Any, have: Any, path: str, out: list[Difference]) -> None:
    if isinstance(want, dict) and isinstance(have, dict):
        if want.get("kind") == "Status" and want.get("status") == "Failure":
            _failure(want, have, path, out)
            return
        for key in [*want, *(each for each in have if each not in want)]:
            where = f"{path}.{key}" if re.fullmatch(r"[\w$-]+", key) else f"{path}['{key}']"
            if key not in want or key not in have:
                out.append(Difference(where, want.get(key, _ABSENT), have.get(key, _ABSENT)))
            elif key == "managedFields":
                if want[key] != have[key]:
                    out.append(Difference(where, want[key], have[key]))
            else:
                _walk(want[key], have[key], where, out)
    elif isinstance(want, list) and isinstance(have, list):
        for index, (a, b) in enumerate(zip(want, have, strict=False)):
            _walk(a, b, f"{path}[{index}]", out)
        if len(want) != len(have):
            out.append(Difference(f"{path}.length", len(want), len(have)))
    elif want != have or isinstance(want, bool) != isinstance(have, bool):
        out.append(Difference(path, want, have))


def _failure(want: Obj, have: Obj, path: str, out: list[Difference]) -> None:
    """Causes are compared in any order."""
    for key in ("kind", "apiVersion", "status", "reason", "code", "message"):
        if want.get(key) != have.get(key):
            out.append(Difference(f"{path}.{key}", want.get(key), have.get(key)))
    details, other = want.get("details") or {}, have.get("details") or {}
    for key in ("name", "group", "kind", "retryAfterSeconds"):
        if details.get(key) != other.get(key):
            out.append(Difference(f"{path}.details.{key}", details.get(key), other.get(key)))
    if _causes(details) != _causes(other):
        out.append(Difference(f"{path}.details.causes", _causes(details), _causes(other)))


def _causes(details: Obj) -> list[list[str]]:
    return sorted(
        [str(cause.get(key, "")) for key in ("field", "reason", "message")] for cause in details.get("causes") or []
    )
