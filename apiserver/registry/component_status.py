"""ComponentStatuses: made when asked for, never stored.

Owns the answer of the deprecated API: the server asks its etcd, and the health endpoints of the components that it was
told of (upstream knows their addresses by heart). Called by the registry in place of the store of the kind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from apiserver.registry.context import ListOptions, ListPage, RequestContext
from apiserver.registry.writing import ResourceStore
from apiserver.storage.entry import Entry
from apiserver.storage.interface import StoreError
from machinery.meta import ObjectKey

PROBE_SECONDS = 5.0
ETCD = "etcd-0"


class ComponentStatuses(ResourceStore):
    """`get` and `list` of what the components say of themselves."""

    components: Mapping[str, str] = {}
    """Component to the Unix socket of its health endpoint."""

    async def list(self, ctx: RequestContext, namespace: str, options: ListOptions) -> ListPage:
        selection = self.selection(namespace, options.label_selector, options.field_selector)
        names = sorted((*self.components, ETCD))
        found = await asyncio.gather(*(self._status(name) for name in names))
        entries = [Entry(ObjectKey("", name), raw, 0, 0) for name, raw in zip(names, found, strict=True)]
        return ListPage([entry.raw for entry in entries if selection.matches(entry)], 0)

    async def get(
        self, ctx: RequestContext, namespace: str, name: str, *, subresource: str = "", resource_version: str = ""
    ) -> bytes:
        if name != ETCD and name not in self.components:
            raise self.not_found(name)
        return await self._status(name)

    async def _status(self, name: str) -> bytes:
        condition = {"type": "Healthy", "status": "True", "message": "ok"}
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                if name == ETCD:
                    await self._store.current_revision()
                else:
                    await probe(self.components[name])
        except TimeoutError:
            condition = {"type": "Healthy", "status": "False", "message": "probe timed out"}
        except StoreError as error:
            condition = {"type": "Healthy", "status": "False", "error": str(error)}
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            why = str(getattr(error, "strerror", None) or "EOF").lower()
            text = f'Get "https://127.0.0.1/healthz": dial unix {self.components[name]}: connect: {why}'
            condition = {"type": "Healthy", "status": "False", "message": text}
        return self.form.encode(
            {"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name}, "conditions": [condition]}
        )


async def probe(socket: str) -> None:
    """Ask a health endpoint whether all is well. Raises OSError, also when it says no."""
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        status = (await reader.readuntil(b"\r\n")).split(b" ")
        if status[1:2] != [b"200"]:
            raise OSError(0, f"healthz answered {b' '.join(status[1:]).decode('latin-1').strip()}")
    finally:
        writer.close()
