"""Custom objects in the registry: their byte form, and versions that are not the stored one.

All versions of a definition share one watch cache, which holds the stored version. Without a conversion webhook a
version differs from the stored one by its apiVersion alone, so answers are made by cutting bytes. Owns these cuts.
Installed by `crd.serving`; what a webhook converts is `crd.webhook_store`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from api.resources import Resource
from apiserver.apply.ownership import OtherVersion
from apiserver.apply.shapes import root_shape
from apiserver.crd.resource import CustomResource
from apiserver.crd.structural import drop_nulls, fill, prune
from apiserver.registry.context import (
    DeleteOptions,
    DeleteResult,
    ListOptions,
    ListPage,
    RequestContext,
    WatchOptions,
)
from apiserver.registry.hooks import Obj, Plugin
from apiserver.registry.strategy import Strategy
from apiserver.registry.tracking import Tracker
from apiserver.registry.writer import Current
from apiserver.registry.writing import ResourceStore
from apiserver.storage.cache import ResourceCache
from apiserver.storage.entry import Event
from apiserver.storage.feed import WatchCache
from apiserver.storage.form import ObjectForm, decode
from apiserver.storage.interface import KeyValue, Store
from apiserver.storage.watcher import Watcher
from machinery.clock import Clock
from machinery.errors import MethodNotAllowed


class CustomForm(ObjectForm):
    """Custom objects are read through the schema as it is now, whatever it was when they were written."""

    __slots__ = ("front", "resource")

    def __init__(self, resource: CustomResource) -> None:
        super().__init__(resource.kind, resource.group_version)
        self.resource = resource
        self.front = self._start

    def adopt(self, stored: bytes) -> bytes:
        adopted = super().adopt(stored)
        obj = decode(adopted)
        before = decode(adopted)
        schema = self.resource.structural
        prune(obj, schema)
        drop_nulls(obj, schema)
        fill(obj, schema)
        return adopted if obj == before else self.encode(obj)

    def bare(self, raw: bytes) -> bytes:
        """In lists custom objects keep kind and apiVersion."""
        return raw


class CustomStore(ResourceStore):
    """The stored version of a definition."""

    def __init__(
        self,
        resource: CustomResource,
        strategy: Strategy,
        store: Store,
        feed: WatchCache,
        cache: ResourceCache,
        clock: Clock,
        admission: list[Plugin],
    ) -> None:
        super().__init__(resource, strategy, store, feed, cache, clock, admission)
        self.terminating = False
        """The definition is being deleted: objects may leave, none may come."""
        self.siblings: list[CustomResource] = []
        """The other versions of the definition: managers may have written in them."""
        self.tracker = Tracker(resource, strategy, clock, schema=resource.node, others=self._elsewhere)

    def _elsewhere(self) -> dict[str, OtherVersion]:
        def stamped(resource: Resource) -> Callable[[Obj], Obj]:
            return lambda obj: {**obj, "apiVersion": resource.group_version}

        back = stamped(self.resource)
        return {
            other.group_version: OtherVersion(
                root_shape(other.group, other.version, other.kind, other.node),
                stamped(other),
                lambda obj, whole: back(obj),
            )
            for other in self.siblings
        }

    @property
    def form(self) -> CustomForm:
        form = self.cache.form
        assert isinstance(form, CustomForm)
        return form

    def _unknown_field(self, field: str) -> str:
        return f"field label not supported: {field}"

    async def from_version(self, obj: Obj) -> Obj:
        """An object of another version of the definition in this one."""
        return {**obj, "apiVersion": self.resource.group_version}

    async def create(self, ctx: RequestContext, namespace: str, body: Obj, **rest: Any) -> bytes:
        if self.terminating:
            raise MethodNotAllowed("create not allowed while custom resource definition is terminating")
        return await super().create(ctx, namespace, body, **rest)


class ConvertedCustomStore(CustomStore):
    """A version that is not the stored one and differs from it by its name alone."""

    def __init__(self, resource: CustomResource, strategy: Strategy, stored: CustomStore) -> None:
        super().__init__(
            resource, strategy, stored._store, stored._feed, stored.cache, stored._clock, stored._admission
        )
        self._stored = stored
        self._front = CustomForm(resource).front

    # -- translation --------------------------------------------------------------------------------------------------

    def _out(self, raw: bytes) -> bytes:
        """An answer in this version; other documents (Status, Scale) stay."""
        stored = self.form.front
        return self._front + raw[len(stored) :] if raw.startswith(stored) else raw

    def _event(self, event: Event) -> Event:
        return Event(event.type, self._out(event.raw), event.key, event.resource_version)

    async def _current(self, namespace: str, name: str, *, fresh: bool = False) -> Current | None:
        found = await super()._current(namespace, name, fresh=fresh)
        return None if found is None else found._replace(raw=self._out(found.raw))

    def _from_store(self, kv: KeyValue | None) -> Current | None:
        found = super()._from_store(kv)
        return None if found is None else found._replace(raw=self._out(found.raw))

    # -- reading ------------------------------------------------------------------------------------------------------

    async def get(
        self, ctx: RequestContext, namespace: str, name: str, *, subresource: str = "", resource_version: str = ""
    ) -> bytes:
        found = await super().get(ctx, namespace, name, subresource=subresource, resource_version=resource_version)
        return self._out(found)

    async def list(self, ctx: RequestContext, namespace: str, options: ListOptions) -> ListPage:
        page = await super().list(ctx, namespace, options)
        return page._replace(items=[self._out(raw) for raw in page.items])

    def watch(self, ctx: RequestContext, namespace: str, options: WatchOptions) -> Watcher:
        watcher = super().watch(ctx, namespace, options)
        watcher.translate = self._event
        return watcher

    # -- writing ------------------------------------------------------------------------------------------------------

    async def create(self, ctx: RequestContext, namespace: str, body: Obj, **rest: Any) -> bytes:
        return self._out(await super().create(ctx, namespace, body, **rest))

    async def update(
        self, ctx: RequestContext, namespace: str, name: str, body: Obj, **rest: Any
    ) -> tuple[bytes, bool]:
        raw, created = await super().update(ctx, namespace, name, body, **rest)
        return self._out(raw), created

    async def patch(
        self, ctx: RequestContext, namespace: str, name: str, patch_type: str, patch: bytes, **rest: Any
    ) -> bytes:
        return self._out(await super().patch(ctx, namespace, name, patch_type, patch, **rest))

    async def apply(
        self, ctx: RequestContext, namespace: str, name: str, config: Obj, **rest: Any
    ) -> tuple[bytes, bool]:
        raw, created = await super().apply(ctx, namespace, name, config, **rest)
        return self._out(raw), created

    async def delete(self, ctx: RequestContext, namespace: str, name: str, options: DeleteOptions) -> DeleteResult:
        result = await self._stored.delete(ctx, namespace, name, options)
        return result._replace(raw=self._out(result.raw))
