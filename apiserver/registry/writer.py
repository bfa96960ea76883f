"""What every write of a resource shares: the object to start from, admission, preconditions.

Owns the retry rule: a write is computed from the cached object, and whatever a possibly stale base leads to (an error,
a no-op) is confirmed on the store before it is answered. Never writes. Base of `creating`, `changing` and `deleting`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from apiserver.registry import deletion
from apiserver.registry.context import RequestContext
from apiserver.registry.hooks import CONNECT, CREATE, UPDATE, Obj, Plugin, Plugins, Undo, plugins_for
from apiserver.registry.reading import ResourceReader, storage_errors
from apiserver.registry.strategy import Strategy
from apiserver.registry.tracking import Tracker
from apiserver.storage.cache import ResourceCache
from apiserver.storage.feed import WatchCache
from apiserver.storage.form import BadObject
from apiserver.storage.interface import KeyValue, Store
from apiserver.storage.keys import suffix
from machinery.clock import Clock
from machinery.errors import (
    BadRequest,
    Conflict,
)
from machinery.field_errors import FieldError, invalid

if TYPE_CHECKING:
    from api.resources import Resource

ATTEMPTS = 64
"""Writers that lose so many races in a row are told of the conflict."""

Creator = Callable[[RequestContext, str, str, Obj], "asyncio.Future[bytes] | Any"]


class Current(NamedTuple):
    """The object a write starts from. `fresh`: read from the store, not from the cache."""

    raw: bytes
    revision: int
    fresh: bool


class ResourceWriter(ResourceReader):
    """One resource in one version, with what its writes need."""

    def __init__(
        self,
        resource: Resource,
        strategy: Strategy,
        store: Store,
        feed: WatchCache,
        cache: ResourceCache,
        clock: Clock,
        admission: list[Plugin],
    ) -> None:
        super().__init__(resource, strategy, store, feed, cache)
        self._clock = clock
        self._admission = admission
        self._ttl = strategy.rules.lifetime / clock.scale  # the store counts real seconds
        self.tracker: Tracker | None = Tracker(resource, strategy, clock)
        """Field ownership; None: not kept."""
        self._plugins: tuple[int, Plugins] = (-1, plugins_for(resource, ()))
        self._is_namespaces = resource.key() == ("", "v1", "namespaces")
        self._orphans = (resource.group, resource.plural) in deletion.ORPHAN_BY_DEFAULT
        self._dependents = (resource.group, resource.plural) not in deletion.WITHOUT_DEPENDENTS
        self._answers_with_object = (resource.group, resource.plural) in deletion.ANSWERS_WITH_OBJECT
        self.creators: dict[str, Creator] = {}
        """`POST …/{name}/{subresource}`; the application registers what needs more than storage (token, eviction)."""

    def _key(self, namespace: str, name: str) -> bytes:
        return self.cache.prefix + suffix(namespace, name).encode()

    def _metadata(self, body: Obj, namespace: str) -> Obj:
        meta = body.get("metadata")
        if meta is None:
            meta = body["metadata"] = {}
        elif not isinstance(meta, dict):
            raise BadRequest("metadata must be an object")
        if namespace:
            given = meta.get("namespace")
            if given and given != namespace:
                raise BadRequest(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
            meta["namespace"] = namespace
        return meta

    def _raise_findings(self, name: str, findings: list[FieldError]) -> None:
        if findings:
            raise invalid(self.resource.kind, name, self.resource.group, findings)

    async def connect(self, ctx: RequestContext, namespace: str, name: str, subresource: str, options: Obj) -> None:
        """Admission of a stream or a proxy; `options` are its options as an object. Raises what refuses it."""
        await self._admit_request(ctx, CONNECT, namespace, name, options, subresource)

    async def admit_question(self, ctx: RequestContext, namespace: str, name: str, body: Obj, subresource: str) -> None:
        """Admission of what is POSTed to a subresource and answered elsewhere. Raises what refuses it."""
        await self._admit_request(ctx, CREATE, namespace, name, body, subresource)

    async def _admit_request(
        self, ctx: RequestContext, op: str, namespace: str, name: str, body: Obj, subresource: str
    ) -> None:
        """Admission of what is not stored itself."""
        await self._admit(ctx, op, namespace, name, body, None, subresource)
        await self._check(ctx, op, namespace, name, body, None, subresource)

    async def _admit(
        self, ctx: RequestContext, op: str, namespace: str, name: str, new: Obj | None, old: Obj | None, sub: str
    ) -> None:
        if op == UPDATE and sub == "binding":
            return  # it was admitted as it came
        await self._asked().admit(ctx, op, self.resource, namespace, name, new, old, sub)

    async def _check(
        self, ctx: RequestContext, op: str, namespace: str, name: str, new: Obj | None, old: Obj | None, sub: str
    ) -> list[Undo]:
        """Ask the plugins that judge; returns what has to be taken back if the write fails."""
        undo: list[Undo] = []
        if op == UPDATE and sub == "binding":
            return undo
        try:
            await self._asked().check(ctx, op, self.resource, namespace, name, new, old, sub, undo)
        except BaseException:
            await take_back(undo)
            raise
        return undo

    def _asked(self) -> Plugins:
        count, plugins = self._plugins
        if count != len(self._admission):  # the application appends its plugins after the resources are built
            plugins = plugins_for(self.resource, self._admission)
            self._plugins = len(self._admission), plugins
        return plugins

    def _check_name(self, meta: Obj, name: str) -> None:
        given = meta.get("name")
        if not given:
            raise BadRequest(f"the name of the object ({name} based on URL) was undeterminable: name must be provided")
        if given != name:
            raise BadRequest(f"the name of the object ({given}) does not match the name on the URL ({name})")

    def _uid_conflict(self, namespace: str, name: str, wanted: str, found: str) -> Conflict:
        why = (
            f"StorageError: invalid object, Code: 4, Key: {self._key(namespace, name).decode()}, resourceVersion: 0, "
            f"AdditionalErrorMsg: Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"
        )
        return Conflict.of(self.resource.plural, name, self.resource.group, why)

    async def _current(self, namespace: str, name: str, *, fresh: bool = False) -> Current | None:
        """The object to start from; what the cache does not have is looked up in the store."""
        if not fresh:
            entry = self.cache.get(namespace, name)
            if entry is not None:
                return Current(entry.raw, entry.revision, False)
        with storage_errors():
            found, _ = await self._store.get(self._key(namespace, name))
        return self._from_store(found)

    def _from_store(self, kv: KeyValue | None) -> Current | None:
        if kv is None:
            return None
        try:
            stored = self.form.adopt(kv.value)
        except BadObject as error:
            raise self.unreadable(kv.key.rpartition(b"/")[2].decode("utf-8", "replace"), error) from error
        return Current(self.form.with_revision(stored, kv.mod_revision), kv.mod_revision, True)

    async def _confirmed(self, namespace: str, name: str, base: Current) -> tuple[Current | None, bool]:
        """Is what was computed from a cached base still right? Otherwise the base to compute from again."""
        if base.fresh:
            return base, True
        latest = await self._current(namespace, name, fresh=True)
        return latest, latest is not None and latest.revision == base.revision


async def take_back(undo: list[Undo]) -> None:
    """Give back what checks had reserved, the newest first."""
    for each in reversed(undo):
        await each()
