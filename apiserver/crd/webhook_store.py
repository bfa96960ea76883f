"""Custom objects of a definition whose versions a webhook translates.

The watch cache holds every object in the version in which it was written. Each served version reads through its own
`WebhookCustomStore`, which has what is not in that version converted (a whole list or batch of events in one call), and
writes through a `ConvertingStore`, which has objects converted to the storage version on their way. Owns nothing of the
rules for objects. Installed by `crd.serving`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from apiserver.crd.conversion import WebhookConverter
from apiserver.crd.resource import CustomResource
from apiserver.crd.store import CustomForm, CustomStore
from apiserver.crd.structural import prune
from apiserver.registry.context import (
    ListOptions,
    ListPage,
    RequestContext,
    WatchOptions,
)
from apiserver.registry.hooks import Obj
from apiserver.registry.strategy import Strategy
from apiserver.registry.writer import Current
from apiserver.storage.entry import ADDED, BOOKMARK, DELETED, MODIFIED, Event
from apiserver.storage.form import ObjectForm, decode
from apiserver.storage.interface import Beside, KeyValue, OnWrite, Page, Store, StoreWatch, WriteResult
from apiserver.storage.watcher import Watcher
from machinery.selectors import FieldSelector

REMEMBERED = 1024
"""Conversions that one version keeps; watchers of one object then share them."""
_METADATA_FIELDS = frozenset({"metadata.name", "metadata.namespace"})


class MixedForm(CustomForm):
    """Bytes in any version of a definition; `resource` is the version that new bytes are in."""

    __slots__ = ("_forms",)

    def __init__(self, resource: CustomResource, forms: Mapping[str, CustomForm]) -> None:
        super().__init__(resource)
        self._forms = forms

    def of(self, raw: bytes) -> CustomForm | None:
        """The form of the version that the bytes are in; None for an unknown one."""
        return next((form for form in self._forms.values() if raw.startswith(form.front)), None)

    def adopt(self, stored: bytes) -> bytes:
        form = self.of(stored)
        if form is None:  # of a foreign writer, in another order; a version nobody defines any more is read as this one
            try:
                form = self._forms.get(str(decode(stored).get("apiVersion")))
            except (msgspec.DecodeError, UnicodeDecodeError):
                form = None
        return super().adopt(stored) if form is None else form.adopt(stored)

    def with_revision(self, stored: bytes, revision: int) -> bytes:
        form = self.of(stored)
        return (
            super().with_revision(stored, revision)
            if form is None
            else ObjectForm.with_revision(form, stored, revision)
        )

    def without_revision(self, raw: bytes) -> bytes:
        form = self.of(raw)
        return super().without_revision(raw) if form is None else ObjectForm.without_revision(form, raw)

    def restamp(self, raw: bytes, revision: int) -> bytes:
        form = self.of(raw)
        return super().restamp(raw, revision) if form is None else ObjectForm.restamp(form, raw, revision)


class Versions:
    """All versions of one definition and the way between them."""

    def __init__(self, resources: Sequence[CustomResource], storage: CustomResource, hook: WebhookConverter) -> None:
        self.by_name = {resource.group_version: resource for resource in resources}
        self.forms = {resource.group_version: CustomForm(resource) for resource in resources}
        self.storage = storage
        self._hook = hook

    def form(self, resource: CustomResource) -> MixedForm:
        return MixedForm(resource, self.forms)

    async def convert(self, raws: Sequence[bytes], to: CustomResource) -> list[bytes]:
        """Objects with or without a resourceVersion, in version `to`; those that are in it stay as they are.

        Raises StatusError.
        """
        wanted = self.forms[to.group_version]
        there = [raw.startswith(wanted.front) for raw in raws]
        if all(there):
            return list(raws)
        strangers = [decode(raw) for raw, done in zip(raws, there, strict=True) if not done]
        revisions = [obj["metadata"].pop("resourceVersion", None) for obj in strangers]
        converted = iter(zip(await self._hook.convert(strangers, to.group_version), revisions, strict=True))
        return [raw if done else self._written(*next(converted), wanted) for raw, done in zip(raws, there, strict=True)]

    def _written(self, obj: Obj, revision: str | None, form: CustomForm) -> bytes:
        prune(obj, form.resource.structural)
        raw = form.encode(obj)
        return form.with_revision(raw, int(revision)) if revision else raw


class ConvertingStore:
    """The key-value store as one version sees it: single objects come and go in that version, ranges as stored."""

    def __init__(self, store: Store, versions: Versions, resource: CustomResource) -> None:
        self._store = store
        self._versions = versions
        self._resource = resource
        self.on_write: OnWrite | None = None

    async def _in(self, value: bytes) -> bytes:
        return (await self._versions.convert([value], self._versions.storage))[0]

    async def _out(self, found: KeyValue | None) -> KeyValue | None:
        if found is None:
            return None
        adopted = self._versions.form(self._resource).adopt(found.value)
        return found._replace(value=(await self._versions.convert([adopted], self._resource))[0])

    async def _told(self, result: WriteResult) -> WriteResult:
        return result if result.current is None else result._replace(current=await self._out(result.current))

    async def get(self, key: bytes) -> tuple[KeyValue | None, int]:
        found, revision = await self._store.get(key)
        return await self._out(found), revision

    async def range(self, start: bytes, end: bytes, *, limit: int = 0, revision: int = 0) -> Page:
        return await self._store.range(start, end, limit=limit, revision=revision)

    async def create(self, key: bytes, value: bytes, ttl: float = 0.0, beside: Sequence[Beside] = ()) -> WriteResult:
        return await self._told(await self._store.create(key, await self._in(value), ttl, beside))

    async def replace(
        self, key: bytes, value: bytes, expected: int, ttl: float = 0.0, beside: Sequence[Beside] = ()
    ) -> WriteResult:
        return await self._told(await self._store.replace(key, await self._in(value), expected, ttl, beside))

    async def delete(self, key: bytes, expected: int, beside: Sequence[Beside] = ()) -> WriteResult:
        return await self._told(await self._store.delete(key, expected, beside))

    async def current_revision(self) -> int:
        return await self._store.current_revision()

    async def watch(self, prefix: bytes, after: int) -> StoreWatch:
        return await self._store.watch(prefix, after)

    async def size(self) -> int:
        return await self._store.size()

    async def compact(self, revision: int) -> None:
        await self._store.compact(revision)

    async def close(self) -> None:
        """The store is the registry's to close."""


class WebhookCustomStore(CustomStore):
    """One version, stored or not."""

    def __init__(self, resource: CustomResource, strategy: Strategy, stored: CustomStore, versions: Versions) -> None:
        converting = ConvertingStore(stored._store, versions, resource)
        super().__init__(resource, strategy, converting, stored._feed, stored.cache, stored._clock, stored._admission)
        self._versions = versions
        self._own = resource
        self._form = versions.form(resource)
        self._known: OrderedDict[bytes, bytes] = OrderedDict()

    @property
    def form(self) -> CustomForm:
        return self._form

    # -- translation --------------------------------------------------------------------------------------------------

    async def _converted(self, raws: Sequence[bytes]) -> list[bytes]:
        """Objects as readers get them, in this version. What has been converted before is not asked for again."""
        front, known = self._form.front, self._known
        missing = list(dict.fromkeys(raw for raw in raws if not raw.startswith(front) and raw not in known))
        fresh = dict(zip(missing, await self._versions.convert(missing, self._own), strict=True)) if missing else {}
        found = [raw if raw.startswith(front) else fresh.get(raw) or known[raw] for raw in raws]
        for raw, made in fresh.items():
            known[raw] = made
        while len(known) > REMEMBERED:
            known.popitem(last=False)
        return found

    async def _out(self, raw: bytes) -> bytes:
        """An answer in this version; other documents (Status, Scale) stay."""
        return raw if self._form.of(raw) is None else (await self._converted([raw]))[0]

    async def _current(self, namespace: str, name: str, *, fresh: bool = False) -> Current | None:
        found = await super()._current(namespace, name, fresh=fresh)
        return None if found is None else found._replace(raw=await self._out(found.raw))

    async def from_version(self, obj: Obj) -> Obj:
        source = self._versions.forms[str(obj["apiVersion"])]
        made = decode((await self._versions.convert([source.encode(obj)], self._own))[0])
        if version := obj["metadata"].get("resourceVersion"):
            made["metadata"]["resourceVersion"] = version
        return made

    async def _as_read(self, raw: bytes, subresource: str) -> bytes:
        """What was just written, as the webhook gives it back."""
        if subresource and subresource != "status":
            return raw
        own = self._form.of(raw)
        if own is None or self._own is self._versions.storage:
            return raw
        stored = await self._versions.convert([raw], self._versions.storage)
        return (await self._versions.convert(stored, self._own))[0]

    # -- reading ------------------------------------------------------------------------------------------------------

    async def get(
        self, ctx: RequestContext, namespace: str, name: str, *, subresource: str = "", resource_version: str = ""
    ) -> bytes:
        found = await super().get(ctx, namespace, name, resource_version=resource_version)
        raw = await self._out(found)
        return self.shown(raw, subresource) if subresource else raw

    async def list(self, ctx: RequestContext, namespace: str, options: ListOptions) -> ListPage:
        fields = self._own_fields(namespace, options.label_selector, options.field_selector)
        if fields is None:
            page = await super().list(ctx, namespace, options)
            return page._replace(items=await self._converted(page.items))
        # Such fields can only be read once an object is in this version: pages would have holes.
        page = await super().list(ctx, namespace, replace(options, field_selector="", limit=0, continue_=""))
        items = await self._converted(page.items)
        return page._replace(items=[raw for raw in items if self._selected(raw, fields)])

    def _own_fields(self, namespace: str, labels: str, fields: str) -> FieldSelector | None:
        """The field selector, if it reads more than names. Raises BadRequest."""
        if not fields:
            return None
        self.selection(namespace, labels, fields)
        parsed = FieldSelector.parse(fields)
        return parsed if any(each.field not in _METADATA_FIELDS for each in parsed.requirements) else None

    def _selected(self, raw: bytes, fields: FieldSelector) -> bool:
        values = self.strategy.selectable_fields(decode(raw))
        return fields.matches(lambda field: values.get(field, ""))

    def watch(self, ctx: RequestContext, namespace: str, options: WatchOptions) -> Watcher:
        fields = self._own_fields(namespace, options.label_selector, options.field_selector)
        if fields is not None:
            options = replace(options, field_selector="")
        watcher = super().watch(ctx, namespace, options)

        async def translate(batch: Sequence[Event]) -> Sequence[Event]:
            return await self._events(batch, fields)

        watcher.translate_batch = translate
        return watcher

    async def _events(self, batch: Sequence[Event], fields: FieldSelector | None) -> Sequence[Event]:
        """Events in this version; with own fields, as somebody sees them who only sees what the fields select."""
        told = [event for event in batch if event.type is not BOOKMARK]
        before = [event.previous.raw for event in told if event.previous is not None] if fields else []
        converted = await self._converted([*(event.raw for event in told), *before])
        now, past = iter(converted[: len(told)]), iter(converted[len(told) :])
        made: list[Event] = []
        for event in batch:
            if event.type is BOOKMARK:
                made.append(event)
                continue
            raw, kind = next(now), event.type
            if fields is not None:
                old = next(past) if event.previous is not None else None
                was = old is not None and self._selected(old, fields)
                stays = kind is not DELETED and self._selected(raw, fields)
                if not was and not stays:
                    continue
                kind = (MODIFIED if was else ADDED) if stays else DELETED
                if kind is DELETED and old is not None:
                    raw = self._form.restamp(old, event.resource_version)
            made.append(Event(kind, raw, event.key, event.resource_version))
        return made

    # -- writing ------------------------------------------------------------------------------------------------------

    async def create(
        self, ctx: RequestContext, namespace: str, body: Obj, *, subresource: str = "", **rest: Any
    ) -> bytes:
        raw = await super().create(ctx, namespace, body, subresource=subresource, **rest)
        return await self._as_read(raw, subresource)

    async def update(
        self, ctx: RequestContext, namespace: str, name: str, body: Obj, *, subresource: str = "", **rest: Any
    ) -> tuple[bytes, bool]:
        raw, created = await super().update(ctx, namespace, name, body, subresource=subresource, **rest)
        return (raw if created else await self._as_read(raw, subresource)), created

    async def patch(
        self,
        ctx: RequestContext,
        namespace: str,
        name: str,
        patch_type: str,
        patch: bytes,
        *,
        subresource: str = "",
        **rest: Any,
    ) -> bytes:
        raw = await super().patch(ctx, namespace, name, patch_type, patch, subresource=subresource, **rest)
        return await self._as_read(raw, subresource)

    async def apply(
        self, ctx: RequestContext, namespace: str, name: str, config: Obj, *, subresource: str = "", **rest: Any
    ) -> tuple[bytes, bool]:
        raw, created = await super().apply(ctx, namespace, name, config, subresource=subresource, **rest)
        return await self._as_read(raw, subresource), created
