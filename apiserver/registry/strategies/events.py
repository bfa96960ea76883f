"""Events: fields that clients search by, and the leniency that event recorders rely on.

Looked up through `strategy_for`. How long events live belongs to storage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from apiserver.registry.defaults.core import default_event
from apiserver.registry.strategy import Rules, Strategy
from apiserver.registry.validation.events import validate_event, validate_strict_update
from apiserver.registry.validation.metadata import Passes
from apiserver.registry.validation.names import any_name
from machinery.field_errors import FieldError

if TYPE_CHECKING:
    from apiserver.registry.store import RequestContext

Obj = dict[str, Any]
_INVOLVED = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")


def _involved(field: str) -> Callable[[Obj], str]:
    return lambda event: str((event.get("involvedObject") or {}).get(field) or "")


def _plain(field: str) -> Callable[[Obj], str]:
    return lambda event: str(event.get(field) or "")


def _source(event: Obj) -> str:
    component = (event.get("source") or {}).get("component")
    return str(component or event.get("reportingComponent") or "")


class EventStrategy(Strategy):
    """v1 Event."""

    rules = Rules(
        name=any_name,
        allow_create_on_update=True,
        default=default_event,
        passes=Passes(1, 1),
        validate=validate_event,
        fields={
            **{f"involvedObject.{field}": _involved(field) for field in _INVOLVED},
            "reason": _plain("reason"),
            "reportingComponent": _plain("reportingComponent"),
            "source": _source,
            "type": _plain("type"),
        },
        lifetime=3600.0,  # upstream's --event-ttl
    )

    def validate_update(self, ctx: RequestContext, new: Obj, old: Obj) -> list[FieldError]:
        errors = super().validate_update(ctx, new, old)
        strict = ctx.asked is not None and ctx.asked.group == "events.k8s.io"
        return errors + validate_strict_update(new, old) if strict else errors
