"""A resource in a version that is not the stored one: every answer and every body is translated on the way.

Owns nothing of its own: it reads and writes through the `ResourceStore` of the stored version, whose rules hold. This
costs a decode and an encode per object, which the versions it is for (events.k8s.io, autoscaling/v1) can bear.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from apiserver.apply.ownership import OtherVersion
from apiserver.registry.context import (
    DeleteOptions,
    DeleteResult,
    ListOptions,
    ListPage,
    RequestContext,
    WatchOptions,
)
from apiserver.registry.conversion import Conversion
from apiserver.registry.hooks import Obj
from apiserver.registry.patching import patcher
from apiserver.registry.tracking import Tracker
from apiserver.registry.writing import ResourceStore
from apiserver.storage.entry import BOOKMARK, Event
from apiserver.storage.form import ObjectForm, decode
from apiserver.storage.watcher import Watcher
from machinery.errors import BadRequest
from machinery.selectors import FieldSelector

if TYPE_CHECKING:
    from api.resources import Resource


class ConvertedStore(ResourceStore):
    """One resource in another version."""

    def __init__(self, resource: Resource, stored: ResourceStore, conversion: Conversion) -> None:
        super().__init__(
            resource, stored.strategy, stored._store, stored._feed, stored.cache, stored._clock, stored._admission
        )
        self._stored = stored
        self._conversion = conversion
        self._form = ObjectForm(resource.kind, resource.group_version)
        self.tracker = Tracker(resource, stored.strategy, stored._clock, others=self._elsewhere, shown=self._shown)
        if stored.tracker is not None:
            stored.tracker.others = self._here

    @property
    def form(self) -> ObjectForm:
        return self._form

    def _elsewhere(self) -> dict[str, OtherVersion]:
        """The stored version, for managers that wrote there."""
        stored = self._stored
        if stored.tracker is None:
            return {}
        shape = stored.tracker.shape()
        back = lambda obj, whole: self._shown(obj)  # noqa: E731
        return {stored.resource.group_version: OtherVersion(shape, lambda obj: self._in(obj, None), back)}

    def _here(self) -> dict[str, OtherVersion]:
        """This version, for managers of the stored one."""
        if self.tracker is None:
            return {}
        return {self.resource.group_version: OtherVersion(self.tracker.shape(), self._shown, self._in)}

    # -- translation --------------------------------------------------------------------------------------------------

    def _shown(self, obj: Obj) -> Obj:
        return {**self._conversion.from_storage(obj, None), "apiVersion": self.resource.group_version}

    def _out(self, raw: bytes) -> bytes:
        obj = decode(raw)
        if obj.get("kind") != self.resource.kind:
            return raw  # a Status
        stored = self._form.encode(self._shown(obj))
        version = obj["metadata"].get("resourceVersion")
        return self._form.with_revision(stored, int(version)) if version else stored

    def _in(self, body: Obj, current: Obj | None) -> Obj:
        resource = self._stored.resource
        return {**self._conversion.to_storage(body, current), "apiVersion": resource.group_version}

    def _fields(self, text: str) -> str:
        if not text:
            return ""
        try:
            given = FieldSelector.parse(text)
        except ValueError as error:
            raise BadRequest(str(error)) from error
        names = self._conversion.fields
        for requirement in given.requirements:
            if requirement.field not in names:
                raise BadRequest(f"field label not supported: {requirement.field}")
        return str(FieldSelector(tuple(each._replace(field=names[each.field]) for each in given.requirements)))

    def _event(self, event: Event) -> Event:
        if event.type is BOOKMARK:
            ends = b"initial-events-end" in event.raw
            raw = self._form.bookmark(event.resource_version, initial_events_end=ends)
        else:
            raw = self._out(event.raw)
        return Event(event.type, raw, event.key, event.resource_version)

    # -- reading ------------------------------------------------------------------------------------------------------

    async def get(
        self, ctx: RequestContext, namespace: str, name: str, *, subresource: str = "", resource_version: str = ""
    ) -> bytes:
        found = await self._stored.get(ctx, namespace, name, subresource=subresource, resource_version=resource_version)
        return self._out(found)

    async def list(self, ctx: RequestContext, namespace: str, options: ListOptions) -> ListPage:
        options = replace(options, field_selector=self._fields(options.field_selector))
        page = await self._stored.list(ctx, namespace, options)
        return page._replace(items=[self._out(raw) for raw in page.items])

    def watch(self, ctx: RequestContext, namespace: str, options: WatchOptions) -> Watcher:
        options = replace(options, field_selector=self._fields(options.field_selector))
        watcher = self._stored.watch(ctx, namespace, options)
        watcher.translate = self._event
        return watcher

    def _sent(self, ctx: RequestContext) -> RequestContext:
        """Admission hooks are told in which version a request came."""
        return replace(ctx, asked=self.resource)

    # -- writing ------------------------------------------------------------------------------------------------------

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
        body = self._in(body, None)
        if self._conversion.check_new is not None:
            meta = self._metadata(body, namespace)
            found = self._conversion.check_new(body)
            if found:
                self._stored._raise_findings(meta.get("name") or "", self.strategy.validate(body) + found)
        return self._out(await self._stored.create(self._sent(ctx), namespace, body, tracker=tracker or self.tracker))

    async def update(
        self,
        ctx: RequestContext,
        namespace: str,
        name: str,
        body: Obj,
        *,
        subresource: str = "",
        tracker: Tracker | None = None,
    ) -> tuple[bytes, bool]:
        current = self.cache.get(namespace, name)
        stored = None if current is None else current.decoded()
        body = self._in(body, stored)
        raw, created = await self._stored.update(
            self._sent(ctx), namespace, name, body, subresource=subresource, tracker=tracker or self.tracker
        )
        return self._out(raw), created

    async def apply(
        self,
        ctx: RequestContext,
        namespace: str,
        name: str,
        config: Obj,
        *,
        subresource: str = "",
        tracker: Tracker | None = None,
        inward: Callable[[Obj, Obj | None], Obj] | None = None,
    ) -> tuple[bytes, bool]:
        raw, created = await self._stored.apply(
            self._sent(ctx),
            namespace,
            name,
            config,
            subresource=subresource,
            tracker=tracker or self.tracker,
            inward=inward or self._in,
        )
        return self._out(raw), created

    async def patch(
        self, ctx: RequestContext, namespace: str, name: str, patch_type: str, patch: bytes, *, subresource: str = ""
    ) -> bytes:
        self.check_subresource(subresource)
        apply = patcher(self.resource, subresource, patch_type, patch, ctx)

        def change(current: Obj) -> Obj:
            patched = apply(self._shown(current))
            self._check_name(self._metadata(patched, namespace), name)
            return self._in(patched, current)

        return self._out(await self._stored.mutate(self._sent(ctx), namespace, name, change, subresource, self.tracker))

    async def delete(self, ctx: RequestContext, namespace: str, name: str, options: DeleteOptions) -> DeleteResult:
        result = await self._stored.delete(self._sent(ctx), namespace, name, options)
        return result._replace(raw=self._out(result.raw))

    async def delete_collection(
        self, ctx: RequestContext, namespace: str, list_options: ListOptions, options: DeleteOptions
    ) -> ListPage:
        list_options = replace(list_options, field_selector=self._fields(list_options.field_selector))
        page = await self._stored.delete_collection(self._sent(ctx), namespace, list_options, options)
        return page._replace(items=[self._out(raw) for raw in page.items])
