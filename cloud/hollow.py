"""Hollow machines: the process of hollow nodes is told by a file which nodes to play.

Owns that file (`kubelet --roster` of `kubelet.hollow` reads it). A killed machine is a Node annotated as dead.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec

from api.models import core_v1
from client.client import Client
from client.informer import Informer
from cloud.machines import MachineError, Machines, Order
from cloud.model import Health, Instance, node_labels
from cloud.node import Node
from machinery.errors import StatusError
from machinery.meta import ObjectKey
from machinery.tls import write_private

STATE: Final = "hollow.nanokube.io/state"


class Entry(msgspec.Struct):
    """A node of the roster."""

    name: str
    cpu: str
    memory: str
    max_pods: int
    labels: str
    taints: str
    group: str


class HollowMachines:
    """Machines in the roster `file`. `start` has the process run that plays them."""

    def __init__(self, file: Path, client: Client, nodes: Informer[Node], start: Callable[[], Awaitable[None]]) -> None:
        self._file = file
        self._client = client
        self._nodes = nodes
        self._start = start
        self._entries: dict[str, Entry] | None = None

    async def look(self) -> dict[str, Health]:
        found = {}
        for entry in self._read().values():
            node = self._nodes.lister.get(ObjectKey("", entry.name))
            dead = node is not None and (node.metadata.annotations or {}).get(STATE) == "dead"
            found[entry.name] = Health(entry.group, not dead)
        return found

    async def launch(self, order: Order) -> None:
        instance, group, kind = order.instance, order.group, order.type
        labels = ",".join(f"{key}={value}" for key, value in node_labels(group, instance.zone).items())
        entry = Entry(
            instance.name, kind.cpu, kind.memory, kind.maxPods, labels, ",".join(map(str, group.taints)), group.name
        )
        self._write({**self._read(), instance.name: entry})
        await self._start()

    async def terminate(self, instance: Instance) -> None:
        entries = self._read()
        if instance.name in entries:
            self._write({name: each for name, each in entries.items() if name != instance.name})

    async def kill(self, instance: Instance) -> None:
        patch = {"metadata": {"annotations": {STATE: "dead"}}}
        try:
            await self._client.patch(core_v1.Node, instance.name, patch)
        except StatusError as error:
            raise MachineError(error.message) from error

    def _read(self) -> dict[str, Entry]:
        if self._entries is None:
            try:
                entries = msgspec.json.decode(self._file.read_bytes(), type=list[Entry])
            except FileNotFoundError:
                entries = []
            except (OSError, msgspec.MsgspecError) as error:
                raise MachineError(f"{self._file}: {error}") from error
            self._entries = {each.name: each for each in entries}
        return self._entries

    def _write(self, entries: dict[str, Entry]) -> None:
        try:
            write_private(self._file, msgspec.json.encode(list(entries.values())))
        except OSError as error:
            raise MachineError(f"{self._file}: {error}") from error
        self._entries = entries


class BothKinds:
    """Real and hollow machines behind one interface."""

    def __init__(self, real: Machines, hollow: Machines) -> None:
        self._real = real
        self._hollow = hollow

    def _of(self, instance: Instance) -> Machines:
        return self._hollow if instance.hollow else self._real

    async def look(self) -> dict[str, Health]:
        return {**await self._hollow.look(), **await self._real.look()}

    async def launch(self, order: Order) -> None:
        await self._of(order.instance).launch(order)

    async def terminate(self, instance: Instance) -> None:
        await self._of(instance).terminate(instance)

    async def kill(self, instance: Instance) -> None:
        await self._of(instance).kill(instance)
