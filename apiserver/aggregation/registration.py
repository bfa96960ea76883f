"""An APIService for every group and version that this server answers itself.

Owns: these objects for as long as they carry the `automanaged` label: they are made, set right and, for definitions
that are gone, deleted. Never touches an APIService that a user has made or taken over. Run by `aggregation.aggregator`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from api.resources import RESOURCES, Resource
from apiserver.aggregation.model import API_SERVICES, AUTOMANAGED, ApiService
from apiserver.auth.user import SYSTEM_API_SERVER
from apiserver.discovery import group_priority, version_priority
from apiserver.registry.context import DeleteOptions, RequestContext
from apiserver.registry.store import Registry
from machinery.errors import AlreadyExists, NotFound, StatusError
from machinery.log import kv

log = logging.getLogger("apiserver.aggregation")

ON_START, ALWAYS = "onstart", "true"
RETRY_SECONDS = 1.0  # real: this waits for the server's own store
Obj = dict[str, Any]


def api_service(group: str, version: str, managed: str) -> Obj:
    """The APIService of a local group version."""
    spec = {"version": version, "groupPriorityMinimum": group_priority(group)}
    if group:
        spec["group"] = group
    spec["versionPriority"] = version_priority(group, version)
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": f"{version}.{group}", "labels": {AUTOMANAGED: managed}},
        "spec": spec,
    }


def built_in() -> Iterator[Obj]:
    """Those that exist from the start."""
    for group, version in sorted({(resource.group, resource.version) for resource in RESOURCES}):
        yield api_service(group, version, ON_START)


def plan(desired: Mapping[str, Obj], existing: Mapping[str, ApiService]) -> tuple[list[Obj], list[Obj], list[str]]:
    """What to create, what to set right, what to delete."""
    create = [obj for name, obj in desired.items() if name not in existing]
    repair = [
        obj
        for name, obj in desired.items()
        if (found := existing.get(name)) is not None
        and found.automanaged == ALWAYS
        and (found.service is not None or _differs(found, obj["spec"]))
    ]
    delete = [name for name, found in existing.items() if found.automanaged == ALWAYS and name not in desired]
    return create, repair, delete


def _differs(found: ApiService, spec: Mapping[str, Any]) -> bool:
    told = (found.group, found.version, found.group_priority, found.version_priority)
    return told != (spec.get("group") or "", spec["version"], spec["groupPriorityMinimum"], spec["versionPriority"])


class Registration:
    """Keeps the objects as they should be. `existing` is the table that the aggregator follows."""

    def __init__(self, registry: Registry, existing: Mapping[str, ApiService]) -> None:
        self._registry = registry
        self._existing = existing
        self._desired: dict[str, Obj] = {obj["metadata"]["name"]: obj for obj in built_in()}
        self._custom: dict[str, Obj] | None = None
        self._wake = asyncio.Event()

    def set_custom(self, resources: Iterable[Resource]) -> None:
        """The custom resources that are served now."""
        versions = sorted({(resource.group, resource.version) for resource in resources})
        made = (api_service(group, version, ALWAYS) for group, version in versions)
        self._custom = {obj["metadata"]["name"]: obj for obj in made}
        self._wake.set()

    def wake(self) -> None:
        """Objects have changed."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled; begins when it is known which custom resources there are."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._custom is None:
                continue
            create, repair, delete = plan({**self._custom, **self._desired}, self._existing)
            try:
                for obj in create:
                    await self._create(obj)
                for obj in repair:
                    await self._repair(obj)
                for name in delete:
                    await self._delete(name)
            except StatusError as error:
                log.warning("Could not register a group version", extra=kv(error=error.message))
                await asyncio.sleep(RETRY_SECONDS)
                self._wake.set()

    def _context(self) -> RequestContext:
        return RequestContext(SYSTEM_API_SERVER, field_manager="kube-apiserver", user_agent="kube-apiserver")

    async def _create(self, obj: Obj) -> None:
        store = self._registry.resource(*API_SERVICES)
        with contextlib.suppress(AlreadyExists):
            await store.create(self._context(), "", {**obj, "metadata": dict(obj["metadata"])})

    async def _repair(self, obj: Obj) -> None:
        store = self._registry.resource(*API_SERVICES)

        def change(current: Obj) -> Obj:
            managed = (current["metadata"].get("labels") or {}).get(AUTOMANAGED)
            return {**current, "spec": obj["spec"]} if managed == ALWAYS else current

        try:
            await store.mutate(self._context(), "", obj["metadata"]["name"], change, tracker=store.tracker)
        except NotFound:
            self._wake.set()

    async def _delete(self, name: str) -> None:
        store = self._registry.resource(*API_SERVICES)
        try:
            await store.delete(self._context(), "", name, DeleteOptions())
        except NotFound:
            return
