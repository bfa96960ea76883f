"""`authorizer`: what a policy's expression may ask about the rights of the one who writes.

Chains of calls build a question; `check` puts it to whoever decides for this evaluation (`deciding`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import msgspec

from apiserver.expressions.numbers import Row
from apiserver.expressions.opaque import wrap

Question = dict[str, str]
Decide = Callable[[Question], tuple[bool, str]]
"""Keys: user (none: who writes); path, or group, resource, subresource, namespace, name; verb. → allowed, why."""

_decide: ContextVar[Decide | None] = ContextVar("authorizer", default=None)


@contextlib.contextmanager
def deciding(decide: Decide | None) -> Iterator[None]:
    """Expressions evaluated inside ask `decide`."""
    token = _decide.set(decide)
    try:
        yield
    finally:
        _decide.reset(token)


def authorizer(**asked: str) -> Any:
    """The variable `authorizer`."""
    return wrap("Authorizer", msgspec.json.encode(asked).decode())


def request_resource(**asked: str) -> Any:
    """The variable `authorizer.requestResource`: a check of the very thing that is written."""
    return wrap("ResourceCheck", msgspec.json.encode(asked).decode())


def _with(kind: str, **fixed: str) -> Any:
    names = tuple(fixed)

    def step(value: Any, *texts: str) -> Any:
        asked: Question = msgspec.json.decode(value.text)
        asked.update(zip(names, texts, strict=True))
        return wrap(kind, msgspec.json.encode(asked).decode())

    return step


def _account(value: Any, namespace: str, name: str) -> Any:
    asked: Question = msgspec.json.decode(value.text)
    asked["user"] = f"system:serviceaccount:{namespace}:{name}"
    return wrap("Authorizer", msgspec.json.encode(asked).decode())


def _check(value: Any, verb: str) -> Any:
    decide = _decide.get()
    if decide is None:
        raise ValueError("authorizer is not available here")
    allowed, reason = decide({**msgspec.json.decode(value.text), "verb": verb})
    return wrap("Decision", msgspec.json.encode([allowed, reason]).decode())


def _told(index: int) -> Any:
    return lambda value: msgspec.json.decode(value.text)[index]


ROWS: tuple[Row, ...] = (
    ("path", True, "Authorizer str", "PathCheck", _with("PathCheck", path="")),
    ("check", True, "PathCheck str", "Decision", _check),
    ("group", True, "Authorizer str", "GroupCheck", _with("GroupCheck", group="")),
    ("serviceAccount", True, "Authorizer str str", "Authorizer", _account),
    ("resource", True, "GroupCheck str", "ResourceCheck", _with("ResourceCheck", resource="")),
    ("subresource", True, "ResourceCheck str", "ResourceCheck", _with("ResourceCheck", subresource="")),
    ("namespace", True, "ResourceCheck str", "ResourceCheck", _with("ResourceCheck", namespace="")),
    ("name", True, "ResourceCheck str", "ResourceCheck", _with("ResourceCheck", name="")),
    ("fieldSelector", True, "ResourceCheck str", "ResourceCheck", _with("ResourceCheck", fieldSelector="")),
    ("labelSelector", True, "ResourceCheck str", "ResourceCheck", _with("ResourceCheck", labelSelector="")),
    ("check", True, "ResourceCheck str", "Decision", _check),
    ("allowed", True, "Decision", "bool", _told(0)),
    ("reason", True, "Decision", "str", _told(1)),
    ("errored", True, "Decision", "bool", lambda value: False),
    ("error", True, "Decision", "str", lambda value: ""),
)
