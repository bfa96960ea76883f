"""How plugins refuse: a 403 that names the object even when it has no name yet. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from machinery.errors import Forbidden

if TYPE_CHECKING:
    from api.resources import Resource


def forbidden(resource: Resource, name: str, new: dict[str, Any] | None, why: str) -> Forbidden:
    """`pods "x" is forbidden: why`; generateName stands in for a name that is not chosen yet."""
    shown = name or ((new or {}).get("metadata") or {}).get("generateName") or "Unknown"
    return Forbidden.of(resource.plural, shown, resource.group, why)
