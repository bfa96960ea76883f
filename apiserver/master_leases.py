"""Which API servers are alive, and with that the endpoints of the `kubernetes` Service.

Owns: this server's lease in the store (`/registry/masterleases/<address>`, as upstream's lease reconciler has it), and
the Endpoints and EndpointSlice that name all who hold one. A server that stops takes its lease along; that of one that
was killed runs out. Run by `apiserver.assembly` when the server has an address that others can use.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec

from apiserver.auth.user import SYSTEM_API_SERVER
from apiserver.bootstrap import endpoints
from apiserver.registry.context import RequestContext
from apiserver.registry.store import Registry
from apiserver.storage.interface import Store, StoreError
from machinery.errors import AlreadyExists, Conflict, NotFound, StatusError
from machinery.log import kv

PREFIX = b"/registry/masterleases/"
LEASE_SECONDS, RENEW_SECONDS = 15.0, 10.0  # real seconds: processes die in real time

log = logging.getLogger("apiserver.endpoints")


class MasterLeases:
    """One server's lease, and the endpoints of all."""

    def __init__(
        self,
        registry: Registry,
        store: Store,
        address: str,
        port: int,
        *,
        lease_seconds: float = LEASE_SECONDS,
        renew_seconds: float = RENEW_SECONDS,
    ) -> None:
        self._registry = registry
        self._store = store
        self._address, self._port = address, port
        self._lease_seconds, self._renew_seconds = lease_seconds, renew_seconds
        self._key = PREFIX + address.encode()
        self._troubled = self._left = False

    async def run(self) -> None:
        """Renew and reconcile until cancelled, or until `leave`."""
        while not self._left:
            await self.once()
            await asyncio.sleep(self._renew_seconds)

    async def once(self) -> None:
        """One round."""
        try:
            await self._renew()
            await self._reconcile()
            self._troubled = False
        except (StatusError, StoreError) as error:
            if not self._troubled:
                log.warning("Could not keep the endpoints of the API servers", extra=kv(error=error))
            self._troubled = True

    async def leave(self) -> None:
        """Give the lease up; the other servers' addresses stay. The last one leaves its own: nobody could be asked."""
        self._left = True
        try:
            held = await self._held()
            if self._key in held and len(held) > 1:
                await self._store.delete(self._key, held[self._key])
                await self._reconcile()
        except (StatusError, StoreError) as error:
            log.warning("Could not give up the lease", extra=kv(error=error))

    async def _renew(self) -> None:
        value = msgspec.json.encode(
            {"kind": "Endpoints", "apiVersion": "v1", "subsets": [{"addresses": [{"ip": self._address}]}]}
        )
        revision = (await self._held()).get(self._key)
        if revision is None:
            await self._store.create(self._key, value, self._lease_seconds)
        else:
            await self._store.replace(self._key, value, revision, self._lease_seconds)

    async def _held(self) -> dict[bytes, int]:
        """The leases of all servers, with their revisions."""
        page = await self._store.range(PREFIX, PREFIX[:-1] + b"0", limit=1000)
        return {item.key: item.mod_revision for item in page.items}

    async def _reconcile(self) -> None:
        addresses = sorted(key.removeprefix(PREFIX).decode() for key in await self._held())
        if not addresses:
            return
        for key, namespace, obj in endpoints(addresses, self._port):
            store, name = self._registry.resource(*key), obj["metadata"]["name"]
            context = RequestContext(SYSTEM_API_SERVER, field_manager="kube-apiserver")
            try:
                found: dict[str, Any] = msgspec.json.decode(await store.get(context, namespace, name))
                parts = [part for part in obj if part not in ("metadata", "kind", "apiVersion")]
                if any(found.get(part) != obj[part] for part in parts):
                    await store.update(context, namespace, name, {**found, **{part: obj[part] for part in parts}})
            except NotFound:
                await self._create(store, context, namespace, obj)
            except Conflict:
                continue  # another server was quicker; the next round looks again

    @staticmethod
    async def _create(store: Any, context: RequestContext, namespace: str, obj: dict[str, Any]) -> None:
        try:
            await store.create(context, namespace, obj)
        except AlreadyExists:
            return
