"""The registry: every resource the server stores, each with its store, strategy and cache.

Owns the table of resources and the watch cache behind them. REST and gRPC ask it for a `ResourceStore` and know nothing
of storage; the application gives it a `Store`, runs `run()` and appends admission plugins before it serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

from api.resources import lookup
from apiserver.registry.component_status import ComponentStatuses
from apiserver.registry.context import (
    DeleteOptions,
    DeleteResult,
    ListOptions,
    ListPage,
    RequestContext,
    WatchOptions,
)
from apiserver.registry.conversion import CONVERSIONS
from apiserver.registry.converted import ConvertedStore
from apiserver.registry.eviction import Evictions
from apiserver.registry.hooks import Plugin, PluginList
from apiserver.registry.service_store import ServiceStore
from apiserver.registry.stored_versions import stored_versions
from apiserver.registry.strategy import Strategy, strategy_for
from apiserver.registry.writing import Bindings, ResourceStore
from apiserver.storage.cache import ResourceCache
from apiserver.storage.compactor import Compactor
from apiserver.storage.entry import Event
from apiserver.storage.feed import WatchCache
from apiserver.storage.form import ObjectForm
from apiserver.storage.interface import Store
from apiserver.storage.keys import resource_prefix
from apiserver.storage.watcher import Watcher
from machinery.clock import Clock
from machinery.errors import NotFound

if TYPE_CHECKING:
    from api.resources import Resource

__all__ = [
    "DeleteOptions",
    "DeleteResult",
    "Event",
    "ListOptions",
    "ListPage",
    "Registry",
    "RequestContext",
    "ResourceStore",
    "WatchOptions",
    "Watcher",
]


S = TypeVar("S", bound=ResourceStore)


class Registry:
    """All resources of one API server."""

    def __init__(
        self, store: Store, clock: Clock, resources: Iterable[Resource], admission: Iterable[Plugin] = ()
    ) -> None:
        self._store = store
        self.clock = clock
        self.feed = WatchCache(store, clock)
        store.on_write = self.feed.offer
        self.admission = PluginList(admission)
        self._resources: dict[tuple[str, str, str], ResourceStore] = {}
        served = [resource for resource in resources if resource.storable]
        for resource in served:
            if resource.storage is None:
                self.add(resource)
        for resource in served:
            conversion = CONVERSIONS.get(resource.key())
            if resource.storage is not None and conversion is not None:
                stored = self.resource(*resource.storage, resource.plural)
                self._resources[resource.key()] = ConvertedStore(resource, stored, conversion)

    def resource(self, group: str, version: str, plural: str) -> ResourceStore:
        """The store of a resource. Raises the 404 of an unknown path."""
        found = self._resources.get((group, version, plural))
        if found is None:
            raise NotFound.path()
        return found

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """The resource of that name, built in or custom; None when nothing of the kind is served."""
        built_in = lookup(group, version, plural)
        if built_in is not None:
            return built_in
        found = self._resources.get((group, version, plural))
        return found.resource if found is not None else None

    def stores(self) -> list[ResourceStore]:
        """All stores, in the order they were added."""
        return list(self._resources.values())

    def add(self, resource: Resource, strategy: Strategy | None = None) -> ResourceStore:
        """Serve a resource; custom resources come and go at run time."""
        strategy = strategy or strategy_for(resource)
        form = ObjectForm(resource.kind, resource.group_version)
        form.others = stored_versions(resource)
        cache = ResourceCache(resource_prefix(resource.group, resource.plural), form, strategy.selectable_fields)
        self.feed.add(cache)
        found = self.make(_store_class(resource), resource, strategy, cache)
        if resource.key() == ("", "v1", "pods"):
            found.creators["binding"] = found.bind
            found.creators["eviction"] = Evictions(self, found, self.clock).create
            self._resources["", "v1", "bindings"] = Bindings(
                resource, strategy, self._store, self.feed, cache, self.clock, self.admission
            )
        self._resources[resource.key()] = found
        return found

    def make(self, kind: type[S], resource: Resource, strategy: Strategy, cache: ResourceCache) -> S:
        """A store of this registry that nobody is served from yet."""
        return kind(resource, strategy, self._store, self.feed, cache, self.clock, self.admission)

    def install(self, store: ResourceStore) -> None:
        """Serve from this store; its cache is the caller's business."""
        self._resources[store.resource.key()] = store

    def uninstall(self, resource: Resource) -> None:
        """The inverse of `install`."""
        self._resources.pop(resource.key(), None)

    def remove(self, resource: Resource) -> None:
        """Stop serving a resource; its objects stay in the store."""
        found = self._resources.pop(resource.key(), None)
        if found is not None:
            self.feed.remove(found.cache)

    async def wait_ready(self) -> None:
        """Until the caches are filled. Raises ServiceUnavailable."""
        await self.feed.wait_ready()

    async def run(self) -> None:
        """Keep the caches fed and the history short until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.feed.run())
            group.create_task(Compactor(self._store, self.clock).run())


def _store_class(resource: Resource) -> type[ResourceStore]:
    if resource.key() == ("apiextensions.k8s.io", "v1", "customresourcedefinitions"):
        from apiserver.crd.definitions import DefinitionStore  # its package builds on this one

        return DefinitionStore
    if resource.key() == ("", "v1", "componentstatuses"):
        return ComponentStatuses
    if resource.key() == ("", "v1", "services"):
        return ServiceStore
    return ResourceStore
