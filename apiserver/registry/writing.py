"""A resource as both doors see it: reads and all ways of writing it.

Owns nothing but the sum of its parts, and the older spelling of a pod's binding.
"""

from __future__ import annotations

from apiserver.registry.changing import Changing
from apiserver.registry.context import RequestContext
from apiserver.registry.deleting import Deleting
from apiserver.registry.hooks import CREATE, Obj
from apiserver.registry.tracking import Tracker


class ResourceStore(Changing, Deleting):
    """One resource in one version: the door of REST and gRPC to storage."""


class Bindings(ResourceStore):
    """`POST …/bindings`, the older spelling of a pod's binding: pods under another name."""

    async def create(
        self,
        ctx: RequestContext,
        namespace: str,
        body: Obj,
        *,
        name: str = "",
        subresource: str = "",
        tracker: Tracker | None = None,
    ) -> bytes:
        pod = (body.get("metadata") or {}).get("name") or ""
        await self._admit_request(ctx, CREATE, namespace, pod, body, "binding")
        return await self.bind(ctx, namespace, pod, body)
