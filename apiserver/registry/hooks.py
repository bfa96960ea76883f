"""The hooks through which admission sees writes. Owns the protocols and which plugins a resource has to ask.

Plugins live in `apiserver.admission`; called by the registry.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from apiserver.registry.context import RequestContext

if TYPE_CHECKING:
    from api.resources import Resource

CREATE = "CREATE"
UPDATE = "UPDATE"
DELETE = "DELETE"
CONNECT = "CONNECT"
"""A stream or a proxy; `new` is its options."""

Obj = dict[str, Any]


class Admission(Protocol):
    """Looks at every write after defaulting and before validation; may change `new` in place or raise StatusError."""

    async def admit(
        self,
        ctx: RequestContext,
        op: str,
        resource: Resource,
        namespace: str,
        name: str,
        new: Obj | None,
        old: Obj | None,
        subresource: str,
    ) -> None:
        """`new` is None for deletions, `old` for creations; `name` may be empty until generateName is resolved."""


Undo = Callable[[], Awaitable[None]]
"""Takes back what a check has reserved, when the write that it allowed does not happen."""


class Check(Protocol):
    """An admission plugin that also judges: called after validation, when the object is as it will be stored."""

    async def check(
        self,
        ctx: RequestContext,
        op: str,
        resource: Resource,
        namespace: str,
        name: str,
        new: Obj | None,
        old: Obj | None,
        subresource: str,
    ) -> Undo | None:
        """Must not change anything it is given; raises StatusError to refuse."""


Plugin = Admission | Check


class Plugins(NamedTuple):
    """The plugins that one resource has to ask."""

    admit: tuple[Admission, ...]
    check: tuple[Check, ...]


def plugins_for(resource: Resource, plugins: Iterable[Plugin]) -> Plugins:
    """A plugin may tell by `handles(resource)` that a resource is none of its business; then it costs nothing."""
    asked: list[Any] = [each for each in plugins if not hasattr(each, "handles") or each.handles(resource)]
    return Plugins(
        tuple(each for each in asked if hasattr(each, "admit")),
        tuple(each for each in asked if hasattr(each, "check")),
    )
