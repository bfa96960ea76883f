"""All APIServices of one API server: which requests go elsewhere, and what is told of those backends.

Owns: the table of APIServices, followed from the registry, one `Backend` for each that has a Service, and the bringing
together of their discovery. Run by `apiserver.assembly`; asked by the REST door.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from apiserver.aggregation.backend import SERVICE_LABEL, Backend, Locator, write_condition
from apiserver.aggregation.follow import follow
from apiserver.aggregation.identity import FrontProxy
from apiserver.aggregation.model import API_SERVICES, LOCAL, ApiService, read
from apiserver.aggregation.proxy import AggregationProxy
from apiserver.aggregation.registration import Registration
from apiserver.aggregation.trust import TrustKeeper
from apiserver.crd.catalog import Catalog
from apiserver.metrics import Family
from apiserver.registry.store import Registry
from apiserver.rest.request import Request
from apiserver.storage.entry import DELETED, Event
from apiserver.storage.form import decode

if TYPE_CHECKING:
    from apiserver.aggregation.swagger import RemoteSwaggers
    from apiserver.openapi_swagger import Remote

SERVICES = ("", "v1", "services")
OPENAPI = "/openapi/v3/"
SLICES = ("discovery.k8s.io", "v1", "endpointslices")


class Aggregator:
    """Serves what backends answer."""

    def __init__(self, registry: Registry, catalog: Catalog, front: FrontProxy) -> None:
        self.front = front
        self._registry = registry
        self._catalog = catalog
        self._locator = Locator(registry)
        self._proxy = AggregationProxy(self._locator, front)
        self._known: dict[str, ApiService] = {}
        self._backends: dict[str, Backend] = {}
        self._routes: dict[tuple[str, str], Backend] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._registration = Registration(registry, self._known)
        self._synced = asyncio.Event()
        self._swaggers: RemoteSwaggers | None = None
        catalog.on_custom = self._registration.set_custom

    async def wait_synced(self) -> None:
        """Until it is known which requests go elsewhere."""
        await self._synced.wait()

    # -- asked by the door --------------------------------------------------------------------------------------------

    def find(self, group: str, version: str) -> ApiService | None:
        """The APIService whose backend answers a group version; None for what is answered here."""
        found = self._routes.get((group, version))
        return found.spec if found is not None else None

    def of_path(self, path: str) -> ApiService | None:
        """`find` for a path: /apis/<group>/<version> and everything below, and its OpenAPI v3 document."""
        if not self._routes:
            return None
        if path.startswith(OPENAPI):
            name = path[len(OPENAPI) :]
            elsewhere = name in self._catalog.remote_openapi and name not in self._catalog.translated_openapi
            return self.of_path(f"/{name}") if elsewhere else None
        parts = path.split("/", 4)
        if len(parts) > 3 and parts[1] == "apis":
            return self.find(parts[2], parts[3])
        return self.find("", parts[2]) if len(parts) > 2 and parts[1] == "api" else None

    def claims(self, url: bytes) -> bool:
        """Whether a request line's target goes elsewhere."""
        return self.of_path(url.decode("latin-1").partition("?")[0]) is not None

    async def serve(self, request: Request, service: ApiService) -> None:
        """Pass a request on. Raises StatusError, ClientGone or OSError."""
        await self._proxy.serve(request, service)

    async def swaggers(self) -> list[Remote]:
        """OpenAPI v2 documents of the backends that answer."""
        if not self._routes:
            return []
        if self._swaggers is None:
            from apiserver.aggregation.swagger import RemoteSwaggers  # few ever ask

            self._swaggers = RemoteSwaggers(self._registry.clock)
        return await self._swaggers.documents([each for each in self._routes.values() if each.spec.available])

    def figures(self) -> Iterator[Family]:
        """For /metrics: which backends do not answer."""
        samples = [({"name": each.spec.name}, 0.0 if each.spec.available else 1.0) for each in self._routes.values()]
        text = "Gauge of APIServices which are marked as unavailable broken down by APIService name."
        yield Family("aggregator_unavailable_apiservice", "gauge", text, samples)

    # -- followed -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            self._group.create_task(self._registration.run())
            self._group.create_task(TrustKeeper(self._registry, self.front).run())
            self._group.create_task(follow(self._registry, SERVICES, self._all_moved, self._moved))
            self._group.create_task(follow(self._registry, SLICES, self._all_moved, self._moved))
            self._group.create_task(follow(self._registry, API_SERVICES, self._replace, self._apply))

    def _replace(self, events: Sequence[Event]) -> None:
        last = {event.key.name: event for event in events}
        for name in [name for name in self._known if name not in last]:
            self._forget(name)
        for event in last.values():
            self._apply(event)
        self._synced.set()

    def _apply(self, event: Event) -> None:
        if event.type == DELETED:
            self._forget(event.key.name)
        else:
            self._put(read(decode(event.raw)))
        self._registration.wake()

    def _put(self, service: ApiService) -> None:
        self._known[service.name] = service
        if service.service is None:
            self._drop(service.name)
            if service.condition != LOCAL and self._group is not None:
                self._group.create_task(write_condition(self._registry, service.name, LOCAL))
            return
        backend = self._backends.get(service.name)
        if backend is not None:
            reordered = (backend.spec.group_priority, backend.spec.version_priority) != (
                service.group_priority,
                service.version_priority,
            )
            backend.update(service)
            if reordered:
                self._publish()
            return
        backend = Backend(service, self._registry, self._locator, self.front, self._publish)
        self._backends[service.name] = self._routes[service.key] = backend
        assert self._group is not None
        self._tasks[service.name] = self._group.create_task(backend.run())
        self._publish()

    def _forget(self, name: str) -> None:
        self._known.pop(name, None)
        self._drop(name)

    def _drop(self, name: str) -> None:
        backend = self._backends.pop(name, None)
        if backend is not None:
            del self._routes[backend.spec.key]
            self._tasks.pop(name).cancel()
            self._publish()

    def _all_moved(self, events: Sequence[Event]) -> None:
        for backend in self._backends.values():
            backend.wake()

    def _moved(self, event: Event) -> None:
        """A Service or EndpointSlice has changed."""
        for backend in self._backends.values():
            ref = backend.spec.service
            if ref is None or ref.namespace != event.key.namespace:
                continue
            if event.key.name == ref.name or b'"%b":"%b"' % (SERVICE_LABEL.encode(), ref.name.encode()) in event.raw:
                backend.wake()

    def _publish(self) -> None:
        backends = list(self._routes.values())
        telling = [backend for backend in backends if backend.spec.available and backend.openapi_url]
        urls = {backend.spec.path[1:]: backend.openapi_url for backend in telling}
        made = {backend.spec.path[1:]: backend.openapi_document for backend in telling if backend.openapi_document}
        self._catalog.set_remote([backend.version for backend in backends], urls, made)
