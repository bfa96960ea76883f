"""The hook through which admission sees writes. Owns the protocol only; plugins live in `apiserver.admission`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from apiserver.registry.context import RequestContext

if TYPE_CHECKING:
    from api.resources import Resource

CREATE = "CREATE"
UPDATE = "UPDATE"
DELETE = "DELETE"

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
