"""ComponentStatuses: made when asked for, never stored.

Owns the answer of the deprecated API. Like upstream, the server can speak for its etcd; schedulers and controllers
report through leases and metrics of their own. Called by the registry in place of the store of the kind.
"""

from __future__ import annotations

import asyncio

from apiserver.registry.context import ListOptions, ListPage, RequestContext
from apiserver.registry.writing import ResourceStore
from apiserver.storage.entry import Entry
from apiserver.storage.interface import StoreError
from machinery.meta import ObjectKey

PROBE_SECONDS = 5.0
ETCD = "etcd-0"


class ComponentStatuses(ResourceStore):
    """`get` and `list` of what the components say of themselves."""

    async def list(self, ctx: RequestContext, namespace: str, options: ListOptions) -> ListPage:
        selection = self.selection(namespace, options.label_selector, options.field_selector)
        entries = [Entry(ObjectKey("", ETCD), await self._etcd(), 0, 0)]
        return ListPage([entry.raw for entry in entries if selection.matches(entry)], 0)

    async def get(
        self, ctx: RequestContext, namespace: str, name: str, *, subresource: str = "", resource_version: str = ""
    ) -> bytes:
        if name != ETCD:
            raise self.not_found(name)
        return await self._etcd()

    async def _etcd(self) -> bytes:
        condition = {"type": "Healthy", "status": "True", "message": "ok"}
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self._store.current_revision()
        except (StoreError, TimeoutError) as error:
            condition = {"type": "Healthy", "status": "False", "error": str(error) or "probe timed out"}
        return self.form.encode(
            {"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": ETCD}, "conditions": [condition]}
        )
