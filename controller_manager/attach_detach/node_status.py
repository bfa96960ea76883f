"""`status.volumesAttached` of Nodes: the word by which a kubelet may mount a volume.

Owns that list. The kubelet says that it may mount (volumesInUse) before it reads this word; we take the word back
before we read what it says: in whatever order these happen, a volume is never mounted and detached. Called by
`controller`.
"""
# mypy: disable-error-code="union-attr"
# Nodes from the server carry metadata and status; the models call them optional.

from __future__ import annotations

import asyncio
from typing import Any

from api.models import core_v1
from client.client import Client
from controller_manager.attach_detach.view import attached_names, in_use
from machinery.errors import NotFound


class NodeStatuses:
    """Writes of one Node's list are one after the other; each begins with a fresh read."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._locks: dict[str, asyncio.Lock] = {}

    async def report(self, node: str, volume: str) -> bool:
        """Say that the volume is attached; whether that is news. Raises StatusError (Conflict: try again)."""
        async with self._lock(node):
            try:
                found = await self._client.get(core_v1.Node, node)
            except NotFound:
                return False
            names = attached_names(found)
            if volume in names:
                return False
            await self._write(found, [*names, volume])
            return True

    async def retract(self, node: str, volume: str) -> bool:
        """Say that it is not; returns whether the kubelet may still have it mounted. Raises StatusError."""
        async with self._lock(node):
            try:
                found = await self._client.get(core_v1.Node, node)
                names = attached_names(found)
                if volume in names:
                    found = await self._write(found, [each for each in names if each != volume])
            except NotFound:
                return False
            return volume in in_use(found)

    async def _write(self, node: core_v1.Node, names: list[str]) -> core_v1.Node:
        known = {each.name: each.devicePath for each in (node.status.volumesAttached if node.status else None) or ()}
        listed: list[dict[str, Any]] = [{"name": name, "devicePath": known.get(name) or ""} for name in names]
        written: core_v1.Node = await self._client.patch(
            core_v1.Node,
            node.metadata.name or "",
            {"status": {"volumesAttached": listed or None}},
            subresource="status",
            resource_version=node.metadata.resourceVersion,
        )
        return written

    def _lock(self, node: str) -> asyncio.Lock:
        return self._locks.setdefault(node, asyncio.Lock())

    def forget(self, node: str) -> None:
        """A node is gone."""
        lock = self._locks.get(node)
        if lock is not None and not lock.locked():
            del self._locks[node]
