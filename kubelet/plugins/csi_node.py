"""The CSINode object of this node, and what drivers add to the Node itself: their ids and the topology's labels.

Owns these three. CSINode is there as soon as the node is registered, without drivers; it belongs to the Node. Called by
`plugins.drivers`.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

from api.models import core_v1, meta_v1, storage_v1
from client.backoff import Backoff
from client.client import Client
from kubelet.plugins.watcher import Refused
from machinery import log
from machinery.clock import Clock
from machinery.errors import AlreadyExists, Conflict, NotFound, StatusError
from machinery.log import kv
from proto.csi.v1 import csi_pb2 as csi

NODE_IDS: Final = "csi.volume.kubernetes.io/nodeid"
TRIES: Final = 10
MAX_COUNT: Final = 2**31 - 1
_log = log.get(__name__)


class CsiNodeKeeper:
    """One per kubelet; changes are one after the other."""

    def __init__(self, client: Client, clock: Clock, node: str) -> None:
        self._client = client
        self._clock = clock
        self._node = node
        self._lock = asyncio.Lock()

    async def ensure(self, registered: asyncio.Event) -> None:
        """Make the object once the Node is there; tries until it is."""
        await registered.wait()
        backoff = Backoff(initial=0.2, cap=10.0)
        while True:
            try:
                async with self._lock:
                    await self._current()
                return
            except StatusError as error:
                _log.info("Failed to make CSINode", extra=kv(node=self._node, error=error.message))
            await self._clock.sleep(backoff.next())

    async def install(self, driver: str, info: csi.NodeGetInfoResponse) -> None:
        """Write that the driver is here. Raises StatusError; Refused when its topology contradicts the node's."""
        topology = dict(info.accessible_topology.segments)
        count = min(info.max_volumes_per_node, MAX_COUNT)
        entry = storage_v1.CSINodeDriver(
            name=driver,
            nodeID=info.node_id,
            topologyKeys=sorted(topology) or None,
            allocatable=storage_v1.VolumeNodeResources(count=count) if count > 0 else None,
        )
        async with self._lock:
            await self._tell_node(driver, info.node_id, topology)
            await self._write(driver, entry)

    async def uninstall(self, driver: str) -> None:
        """Write that it is gone; the topology's labels stay, volumes may still want them. Raises StatusError."""
        async with self._lock:
            await self._write(driver, None)
            await self._tell_node(driver, None, {})

    # ---- the Node ----

    async def _tell_node(self, driver: str, node_id: str | None, topology: dict[str, str]) -> None:
        for _ in range(TRIES):
            try:
                node = await self._client.get(core_v1.Node, self._node)
            except NotFound:
                if node_id is None:
                    return
                raise
            patch = node_patch(node, driver, node_id, topology)
            if patch is None:
                return
            try:
                await self._client.patch(
                    core_v1.Node, self._node, {"metadata": patch}, resource_version=node.metadata.resourceVersion
                )
            except Conflict:
                continue
            return
        raise Conflict(f"node {self._node} changes all the time")

    # ---- the CSINode ----

    async def _current(self) -> storage_v1.CSINode:
        try:
            return await self._client.get(storage_v1.CSINode, self._node)
        except NotFound:
            node = await self._client.get(core_v1.Node, self._node)
        owner = meta_v1.OwnerReference(apiVersion="v1", kind="Node", name=self._node, uid=node.metadata.uid or "")
        made = storage_v1.CSINode(
            metadata=meta_v1.ObjectMeta(name=self._node, ownerReferences=[owner]),
            spec=storage_v1.CSINodeSpec(drivers=[]),
        )
        try:
            return await self._client.create(made)
        except AlreadyExists:
            return await self._client.get(storage_v1.CSINode, self._node)

    async def _write(self, driver: str, entry: storage_v1.CSINodeDriver | None) -> None:
        """Of an entry only the limit can be changed; else it is taken away and comes again."""
        for _ in range(TRIES):
            current = await self._current()
            drivers = list(current.spec.drivers or ())
            there = next((each for each in drivers if each.name == driver), None)
            if there == entry:
                return
            others = [each for each in drivers if each.name != driver]
            fits = entry is not None and (there is None or _identity(there) == _identity(entry))
            wanted = [*others, entry] if entry is not None and fits else others
            try:
                await self._client.patch(
                    storage_v1.CSINode,
                    self._node,
                    {"spec": {"drivers": msgspec.to_builtins(wanted)}},
                    resource_version=current.metadata.resourceVersion,
                )
            except Conflict:
                continue
            if fits or entry is None:
                return
        raise Conflict(f"CSINode {self._node} changes all the time")


def node_patch(node: core_v1.Node, driver: str, node_id: str | None, topology: dict[str, str]) -> dict[str, Any] | None:
    """Merge patch of a Node's metadata for a driver that comes (or goes: no id); None when nothing changes.

    Raises Refused when a label that the driver would set has another value.
    """
    labels = node.metadata.labels or {}
    for key, value in topology.items():
        if labels.get(key, value) != value:
            raise Refused(
                f'detected topology value collision: driver reported "{key}":"{value}" but existing label is '
                f'"{key}":"{labels[key]}"'
            )
    text = (node.metadata.annotations or {}).get(NODE_IDS, "")
    known = read_ids(text)
    ids = {name: value for name, value in known.items() if name != driver}
    if node_id is not None:
        ids[driver] = node_id
    patch: dict[str, Any] = {}
    if ids != known:
        patch["annotations"] = {NODE_IDS: msgspec.json.encode(ids, order="sorted").decode() if ids else None}
    missing = {key: value for key, value in topology.items() if key not in labels}
    if missing:
        patch["labels"] = missing
    return patch or None


def _identity(entry: storage_v1.CSINodeDriver) -> tuple[str, list[str]]:
    return entry.nodeID, list(entry.topologyKeys or ())


def read_ids(text: str) -> dict[str, str]:
    """Driver → node id; {} for what cannot be read, it is written anew."""
    try:
        return msgspec.json.decode(text, type=dict[str, str]) if text else {}
    except msgspec.MsgspecError:
        return {}
