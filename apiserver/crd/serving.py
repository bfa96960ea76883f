"""Definitions into resources that are served, and back: the loop inside every API server.

Owns the watch on CustomResourceDefinitions, their naming conditions, the table of resources that are served for them
now, and the removal of a deleted definition's objects. Several API servers run this loop side by side on one store:
every step is a compare-and-swap on what the definition says, so they agree. Run by `apiserver.assembly`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from apiserver.admission.webhooks.call import Caller
from apiserver.auth.user import SYSTEM_API_SERVER
from apiserver.crd.catalog import Catalog
from apiserver.crd.conversion import WebhookConverter
from apiserver.crd.naming import (
    CLEANUP,
    ESTABLISHED,
    is_true,
    plan_finished,
    plan_progress,
    plan_status,
)
from apiserver.crd.resource import CustomResource, resources_of
from apiserver.crd.store import ConvertedCustomStore, CustomForm, CustomStore
from apiserver.crd.strategy import SchemaStrategy, selectable
from apiserver.crd.webhook_store import Versions, WebhookCustomStore
from apiserver.registry.context import DeleteOptions, ListOptions, RequestContext, WatchOptions
from apiserver.registry.store import Registry
from apiserver.storage.cache import ResourceCache
from apiserver.storage.entry import BOOKMARK, DELETED, Event
from apiserver.storage.form import decode
from machinery.errors import NotFound, StatusError
from machinery.log import kv
from machinery.meta import rfc3339

log = logging.getLogger("apiserver.crd")

Obj = dict[str, Any]
DEFINITIONS = ("apiextensions.k8s.io", "v1", "customresourcedefinitions")
MANAGER = "kube-apiserver"
RETRY_SECONDS = (0.02, 0.1, 0.5, 2.0)
"""Real seconds: this waits for the server's own store and for clients that hold finalizers."""


class _Served:
    """What one definition is served as. `mark` tells whether a new state of it needs anything else."""

    __slots__ = ("cache", "mark", "stored", "stores")

    def __init__(self, mark: Any, cache: ResourceCache, stored: CustomStore, stores: list[CustomStore]) -> None:
        self.mark = mark
        self.cache = cache
        self.stored = stored
        self.stores = stores


class CustomResources:
    """All definitions of one API server."""

    def __init__(self, registry: Registry, catalog: Catalog) -> None:
        self._registry = registry
        self._catalog = catalog
        self._definitions: dict[str, Obj] = {}
        self._served: dict[str, _Served] = {}
        self._dirty: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._synced = asyncio.Event()
        self._cleaning: set[str] = set()
        self._caller = Caller(registry)

    async def wait_synced(self) -> None:
        """Until every definition that was established before is served."""
        await self._synced.wait()

    @property
    def synced(self) -> bool:
        return self._synced.is_set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._work(group))

    # -- the watch ----------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        failures = 0
        options = WatchOptions(allow_bookmarks=True, send_initial_events=True, resource_version_match="NotOlderThan")
        while True:
            try:
                store = self._registry.resource(*DEFINITIONS)
                async with store.watch(RequestContext(SYSTEM_API_SERVER), "", options) as watcher:
                    initial: list[Event] | None = []
                    async for batch in watcher:
                        failures = 0
                        initial = self._take(batch, initial)
            except StatusError as error:
                if failures == 1:  # once per outage; the first failure is often only a restart of the watch
                    log.warning("Lost the watch on definitions", extra=kv(error=error.message))
            await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
            failures += 1

    def _take(self, batch: Sequence[Event], initial: list[Event] | None) -> list[Event] | None:
        """Apply events; before the first bookmark they are collected, then replace what was known."""
        for event in batch:
            if event.type == BOOKMARK:
                if initial is not None:
                    self._replace(initial)
                    initial = None
                    self._synced.set()
            elif initial is not None:
                initial.append(event)
            else:
                self._apply(event)
        return initial

    def _replace(self, events: Sequence[Event]) -> None:
        last = {event.key.name: event for event in events}
        for name in [name for name in self._definitions if name not in last]:
            self._forget(name)
        for event in last.values():
            self._apply(event)

    def _apply(self, event: Event) -> None:
        name = event.key.name
        if event.type == DELETED:
            self._forget(name)
            return
        definition = decode(event.raw)
        spec = definition["spec"]
        # Schemas may be large, and what is kept of them is kept by the resources.
        kept = {**definition, "spec": {"group": spec["group"], "names": spec["names"]}}
        self._definitions[name] = kept
        try:
            self._serve(definition)
        except (KeyError, TypeError, ValueError, AttributeError):
            # Only what came into the store past validation can do this; the others must go on being served.
            log.exception("Could not serve a definition", extra=kv(definition=name))
        self._touch(kept)

    def _forget(self, name: str) -> None:
        definition = self._definitions.pop(name, None)
        self._unserve(name)
        if definition is not None:
            self._touch_others(definition)

    def _touch(self, definition: Obj) -> None:
        self._dirty[definition["metadata"]["name"]] = None
        self._touch_others(definition)

    def _touch_others(self, definition: Obj) -> None:
        """What has got names, or has lost them, decides about the others of its group."""
        group = definition["spec"]["group"]
        for name, other in self._definitions.items():
            if other["spec"]["group"] == group and other is not definition:
                self._dirty[name] = None
        self._wake.set()

    # -- serving ------------------------------------------------------------------------------------------------------

    def _serve(self, definition: Obj) -> None:
        name = definition["metadata"]["name"]
        if not is_true(definition, ESTABLISHED):
            self._unserve(name)
            return
        status = definition.get("status") or {}
        meta = definition["metadata"]
        mark = (meta.get("uid"), meta.get("generation"), status.get("acceptedNames"))
        terminating = bool(definition["metadata"].get("deletionTimestamp"))
        served = self._served.get(name)
        if served is None or served.mark != mark:
            self._unserve(name)
            served = self._install(definition, mark)
        for store in (served.stored, *served.stores):
            store.terminating = terminating

    def _install(self, definition: Obj, mark: Any) -> _Served:
        registry = self._registry
        resources = resources_of(definition)
        stored_resource = next(resource for resource in resources if resource.spec.get("storage"))
        readers = {label: read for resource in resources for label, read in selectable(resource).items()}
        strategies = {resource.version: SchemaStrategy(resource, readers) for resource in resources}
        strategy = strategies[stored_resource.version]
        prefix = f"/registry/{stored_resource.group}/{stored_resource.plural}/".encode()
        versions = self._versions(definition, resources, stored_resource)
        form = CustomForm(stored_resource) if versions is None else versions.form(stored_resource)
        cache = ResourceCache(prefix, form, strategy.selectable_fields)
        plain = registry.make(CustomStore, stored_resource, strategy, cache)
        stored = plain if versions is None else WebhookCustomStore(stored_resource, strategy, plain, versions)
        stores: list[CustomStore] = []
        for resource in resources:
            if not resource.spec.get("served"):
                continue
            own = strategies[resource.version]
            if resource is stored_resource:
                stores.append(stored)
            elif versions is not None:
                stores.append(WebhookCustomStore(resource, own, plain, versions))
            else:
                stores.append(ConvertedCustomStore(resource, own, stored))
        registry.feed.add(cache)
        for store in (stored, *stores):
            store.siblings = [resource for resource in resources if resource is not store.resource]
        for store in stores:
            registry.install(store)
        served = _Served(mark, cache, stored, stores)
        self._served[definition["metadata"]["name"]] = served
        self._publish()
        log.info("Served a definition", extra=kv(definition=definition["metadata"]["name"], versions=len(stores)))
        return served

    def _versions(
        self, definition: Obj, resources: Sequence[CustomResource], storage: CustomResource
    ) -> Versions | None:
        """The way between versions that differ by more than their names; None where they do not."""
        conversion = definition["spec"].get("conversion") or {}
        if conversion.get("strategy") != "Webhook":
            return None
        return Versions(resources, storage, WebhookConverter(conversion.get("webhook") or {}, self._caller))

    def _unserve(self, name: str) -> None:
        served = self._served.pop(name, None)
        if served is None:
            return
        for store in served.stores:
            self._registry.uninstall(store.resource)
        for watcher in served.cache.watchers:
            watcher.end()  # as upstream: clients that list again learn what became of the resource
        self._registry.feed.remove(served.cache)
        self._publish()

    def _publish(self) -> None:
        resources: list[CustomResource] = []
        for served in self._served.values():
            for store in served.stores:
                assert isinstance(store.resource, CustomResource)
                resources.append(store.resource)
        self._catalog.set_custom(resources)

    # -- conditions and removal ---------------------------------------------------------------------------------------

    async def _work(self, group: asyncio.TaskGroup) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._dirty:
                name = next(iter(self._dirty))
                del self._dirty[name]
                definition = self._definitions.get(name)
                if definition is None:
                    continue
                if definition["metadata"].get("deletionTimestamp"):
                    if CLEANUP in (definition["metadata"].get("finalizers") or ()) and name not in self._cleaning:
                        self._cleaning.add(name)
                        group.create_task(self._clean(name, definition["metadata"]["uid"]))
                    continue
                await self._accept_names(name, definition)

    async def _accept_names(self, name: str, definition: Obj) -> None:
        now = rfc3339(self._registry.clock.now())
        if plan_status(definition, self._others(definition), now) == definition.get("status"):
            return
        try:
            await self._change(name, lambda current: self._named(current, now), "status")
        except NotFound:
            pass
        except StatusError as error:
            log.warning("Could not note accepted names", extra=kv(definition=name, error=error.message))
            await asyncio.sleep(RETRY_SECONDS[1])
            self._dirty[name] = None
            self._wake.set()

    def _named(self, current: Obj, now: str) -> Obj:
        if current["metadata"].get("deletionTimestamp"):
            return current
        return {**current, "status": plan_status(current, self._others(current), now)}

    def _others(self, definition: Obj) -> list[Obj]:
        group, name = definition["spec"]["group"], definition["metadata"]["name"]
        return [other for key, other in self._definitions.items() if key != name and other["spec"]["group"] == group]

    async def _change(self, name: str, change: Any, subresource: str = "") -> None:
        context = RequestContext(SYSTEM_API_SERVER, field_manager=MANAGER, user_agent=MANAGER)
        store = self._registry.resource(*DEFINITIONS)
        await store.mutate(context, "", name, change, subresource, tracker=store.tracker)

    async def _clean(self, name: str, uid: str) -> None:
        """Delete the objects of a definition, wait for those that others hold, and let the definition go."""
        failures = 0
        try:
            while (definition := self._definitions.get(name)) is not None and definition["metadata"]["uid"] == uid:
                try:
                    if await self._emptied(name):
                        await self._change(name, lambda current: self._finished(current, uid))
                        return
                    failures = 0
                except NotFound:
                    return
                except StatusError as error:
                    failures += 1
                    log.warning("Could not remove custom objects", extra=kv(definition=name, error=error.message))
                await asyncio.sleep(RETRY_SECONDS[min(failures + 1, len(RETRY_SECONDS) - 1)])
        finally:
            self._cleaning.discard(name)

    def _finished(self, current: Obj, uid: str) -> Obj:
        return plan_finished(current) if current["metadata"].get("uid") == uid else current

    async def _emptied(self, name: str) -> bool:
        """Ask every object to go; is none left?"""
        served = self._served.get(name)
        if served is None:
            return True
        context = RequestContext(SYSTEM_API_SERVER)
        page = await served.stored.list(context, "", ListOptions())
        if not page.items:
            return True
        now = rfc3339(self._registry.clock.now())
        await self._change(name, lambda current: plan_progress(current, now, done=False), "status")
        await served.stored.delete_collection(context, "", ListOptions(), DeleteOptions())
        return not (await served.stored.list(context, "", ListOptions())).items
