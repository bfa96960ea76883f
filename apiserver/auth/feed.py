"""Keeps the authorizers informed: roles, bindings, pods and their volumes, by watching the registry.

Owns: the watches, their restarts and `synced`. Never decides. Run by `apiserver.app` for the life of the server.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from apiserver.auth.node_graph import PodGraph
from apiserver.auth.policy import RBAC
from apiserver.auth.rbac import KINDS, RBACAuthorizer
from apiserver.auth.user import SYSTEM_API_SERVER
from apiserver.registry.context import RequestContext, WatchOptions
from apiserver.registry.store import Registry
from apiserver.storage.entry import BOOKMARK, DELETED, Event
from machinery.errors import StatusError
from machinery.log import kv

log = logging.getLogger("apiserver.auth")

RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)
GRAPH = {"pods": "", "persistentvolumes": "", "volumeattachments": "storage.k8s.io"}  # kind -> group
_decode: Callable[[bytes], dict[str, Any]] = msgspec.json.Decoder(dict[str, Any]).decode


class AuthorizerFeed:
    """Seven watches: four of RBAC, three of what nodes depend on."""

    def __init__(self, registry: Registry, rbac: RBACAuthorizer, pods: PodGraph) -> None:
        self._registry = registry
        self._rbac = rbac
        self._pods = pods
        self._waiting = {*KINDS, *GRAPH}
        self._synced = asyncio.Event()

    async def wait_synced(self) -> None:
        await self._synced.wait()

    @property
    def synced(self) -> bool:
        return self._synced.is_set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for plural in KINDS:
                group.create_task(self._follow((RBAC, "v1", plural), plural))
            for plural, owner in GRAPH.items():
                group.create_task(self._follow((owner, "v1", plural), plural))

    async def _follow(self, key: tuple[str, str, str], plural: str) -> None:
        failures = 0
        options = WatchOptions(allow_bookmarks=True, send_initial_events=True, resource_version_match="NotOlderThan")
        while True:
            try:
                context = RequestContext(SYSTEM_API_SERVER)
                async with self._registry.resource(*key).watch(context, "", options) as watcher:
                    initial: list[Event] | None = []
                    async for batch in watcher:
                        failures = 0
                        initial = self._take(plural, batch, initial)
            except StatusError as error:
                if failures == 1:  # once per outage; the first failure is often only a restart of the watch
                    log.warning("Lost a watch", extra=kv(resource=plural, error=error.message))
            # Real seconds: this waits for the server's own store, not for the cluster.
            await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
            failures += 1

    def _take(self, plural: str, batch: Sequence[Event], initial: list[Event] | None) -> list[Event] | None:
        """Apply events; before the first bookmark they are collected, then replace what was known."""
        for event in batch:
            if event.type == BOOKMARK:
                if initial is not None:
                    self._replace(plural, initial)
                    initial = None
                    self._waiting.discard(plural)
                    if not self._waiting:
                        self._synced.set()
            elif initial is not None:
                initial.append(event)
            else:
                self._apply(plural, event)
        return initial

    def _replace(self, plural: str, events: Sequence[Event]) -> None:
        if plural in GRAPH:
            graph = self._pods
            {"pods": graph.clear, "persistentvolumes": graph.clear_volumes}.get(plural, graph.clear_attachments)()
            for event in events:
                self._apply(plural, event)
        else:
            last = {event.key: event for event in events}
            self._rbac.replace(plural, [_decode(event.raw) for event in last.values() if event.type != DELETED])

    def _apply(self, plural: str, event: Event) -> None:
        namespace, name = event.key
        graph, gone = self._pods, event.type == DELETED
        match plural:
            case "pods":
                graph.remove(namespace, name) if gone else graph.put(event.raw)
            case "persistentvolumes":
                graph.remove_volume(name) if gone else graph.put_volume(event.raw)
            case "volumeattachments":
                graph.remove_attachment(name) if gone else graph.put_attachment(event.raw)
            case _ if gone:
                self._rbac.remove(plural, namespace, name)
            case _:
                self._rbac.put(plural, _decode(event.raw))
