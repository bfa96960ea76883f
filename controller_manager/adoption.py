"""Takes orphans over and lets strangers go, as `objects.plan_claims` has planned: the same for every kind of owner.

Called by the controllers of Deployments, ReplicaSets, StatefulSets, DaemonSets and Jobs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from client.client import Client, PatchType, key_of
from controller_manager.objects import Claims, adoption_patch, release_patch
from machinery.errors import Conflict, NotFound

More = Callable[[Any], dict[str, Any]]
"""Metadata that an object gets with its new owner, or loses with the old one (strategic merge patch)."""


def nothing_more(_: Any) -> dict[str, Any]:
    return {}


async def settle(
    client: Client, owner: Any, claims: Claims, *, adopted: More = nothing_more, released: More = nothing_more
) -> list[Any]:
    """Adopt and release; returns what the owner has then. Raises Conflict if it was replaced or is being deleted."""
    owned = list(claims.owned)
    if claims.adopt:
        live: Any = await client.get(type(owner), owner.metadata.name or "", owner.metadata.namespace)
        if live.metadata.uid != owner.metadata.uid or live.metadata.deletionTimestamp is not None:
            raise Conflict(f"{key_of(owner)} was replaced or is being deleted: it adopts nothing")
    for obj in claims.adopt:
        owned.append(await _patch(client, obj, adoption_patch(owner, obj), adopted(obj)))
    for obj in claims.release:
        with contextlib.suppress(NotFound):
            await _patch(client, obj, release_patch(owner, obj), released(obj))
    return owned


async def _patch(client: Client, obj: Any, patch: dict[str, Any], more: dict[str, Any]) -> Any:
    key = key_of(obj)
    patch["metadata"] |= more
    return await client.patch(type(obj), key.name, patch, key.namespace, type=PatchType.STRATEGIC)
