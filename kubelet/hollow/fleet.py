"""The hollow nodes themselves: registered, kept alive by Lease and status, removed when the fleet shrinks.

Owns the Node objects with the hollow label and this fleet's name, and their Leases. Run by `hollow.app`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from api import resources
from api.models import coordination_v1, core_v1, meta_v1
from client.client import Client, PatchType
from client.informer import EventHandler, Informer, Informers
from client.kinds import View
from kubelet.hollow.labels import LABEL, ROLE
from kubelet.hollow.roster import Roster
from kubelet.hollow.simulation import PREFIX
from kubelet.node import status as node_status
from kubelet.node.status import Health, NodeInfo, NodeSettings
from machinery import log
from machinery.clock import Clock
from machinery.errors import AlreadyExists, NotFound, StatusError
from machinery.log import kv
from machinery.meta import ObjectKey

_log = log.get(__name__)
ZONE = "topology.kubernetes.io/zone"
STATE = f"{PREFIX}state"
"""A node annotated with state `dead` goes silent, as a machine without power does."""
LEASE_NAMESPACE = "kube-node-lease"
LEASE_SECONDS, RENEW_SECONDS = 40, 10.0
SLICES = 50
"""A renewal period is cut into so many, that the requests of thousands of nodes come evenly."""
REPORT_PASSES = 30  # a full status each 300 s
AT_ONCE = 32
RETRY = 1.0
ROSTER_SECONDS = 0.3  # real: how soon a changed roster is seen


class _Meta(msgspec.Struct):
    name: str = ""
    uid: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _Condition(msgspec.Struct):
    type: str = ""
    status: str = ""
    lastTransitionTime: str | None = None


class _Status(msgspec.Struct):
    conditions: list[_Condition] | None = None


class SeenNode(msgspec.Struct):
    """A Node as far as the fleet reads it."""

    metadata: _Meta
    status: _Status | None = None

    @property
    def ready(self) -> bool:
        conditions = (self.status.conditions if self.status else None) or ()
        return any(each.type == "Ready" and each.status == "True" for each in conditions)

    @property
    def dead(self) -> bool:
        return (self.metadata.annotations or {}).get(STATE) == "dead"


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """What the nodes of a fleet are like. They share an address: that of the process that plays them."""

    count: int
    prefix: str = "hollow"
    cpu: str = "4"
    memory: str = "8Gi"
    max_pods: int = 110
    zones: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    taints: tuple[tuple[str, str, str], ...] = ()
    address: str = "127.0.0.1"
    port: int = 10350

    def names(self) -> list[str]:
        return [f"{self.prefix}-{number}" for number in range(1, self.count + 1)]

    def owns(self, name: str) -> bool:
        """Whether a node of this name is, or was, one of this fleet."""
        prefix, _, number = name.rpartition("-")
        return prefix == self.prefix and number.isdigit()

    def node(self, name: str) -> NodeSettings:
        """The settings of one node; zones are given out in turn."""
        number = int(name.rpartition("-")[2])
        zone = {ZONE: self.zones[(number - 1) % len(self.zones)]} if self.zones else {}
        return NodeSettings(
            name=name,
            ip=self.address,
            port=self.port,
            cpu=self.cpu,
            memory=self.memory,
            max_pods=self.max_pods,
            ephemeral_storage=64 << 30,
            labels={LABEL: "true", ROLE: "", **zone, **self.labels},
            taints=self.taints,
        )


class Fleet:
    """All hollow nodes of this process."""

    def __init__(self, client: Client, informers: Informers, clock: Clock, settings: FleetSettings | Roster) -> None:
        self._client = client
        self._clock = clock
        self._settings = settings
        if isinstance(settings, Roster):
            settings.changed()
        self._names = settings.names()
        self._wanted = frozenset(self._names)
        self._nodes: Informer[SeenNode] = informers.informer(
            View(resources.of(core_v1.Node), SeenNode), label_selector=f"{LABEL}=true"
        )
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._lost: asyncio.Queue[str] = asyncio.Queue()
        self.ready = asyncio.Event()
        self.on_state: Callable[[str], None] = lambda name: None
        """Called with a node's name when it has died or come back."""

    @property
    def settings(self) -> FleetSettings | Roster:
        return self._settings

    def alive(self, name: str) -> bool:
        """Whether that node is of this fleet and not played dead."""
        node = self._nodes.lister.get(ObjectKey("", name))
        return name in self._wanted and (node is None or not node.dead)

    async def run(self) -> None:
        """Register, then keep alive until cancelled."""
        await self._nodes.wait_synced()
        present = {node.metadata.name for node in self._nodes.lister.list()}
        surplus = [name for name in present if self._settings.owns(name) and name not in self._wanted]
        await self._each(surplus, self._remove)
        await self._each((name for name in self._names if name not in present), self._register)
        await self._each((name for name in self._names if name in present), self._report)
        self.ready.set()
        _log.info("Registered hollow nodes", extra=kv(count=len(self._names), removed=len(surplus)))
        self._nodes.add_handler(EventHandler(None, self._changed, self._deleted))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beat())
            group.create_task(self._mend())
            if isinstance(self._settings, Roster):
                group.create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            await self._clock.sleep(ROSTER_SECONDS * self._clock.scale)
            await self._reread()

    async def _reread(self) -> None:
        """Play whom the roster names. Who is not named any more goes silent; its Node is others' business."""
        if isinstance(self._settings, Roster) and self._settings.changed():
            before, self._names = self._wanted, self._settings.names()
            self._wanted = frozenset(self._names)
            await self._each((name for name in self._names if name not in before), self._register)

    # ---- what is seen ----

    def _changed(self, old: SeenNode, node: SeenNode) -> None:
        name = node.metadata.name
        if name not in self._wanted:
            return
        if old.dead != node.dead:
            self.on_state(name)
        if not node.dead and not node.ready and (old.ready or old.dead):
            self._lost.put_nowait(name)  # somebody took us for dead

    def _deleted(self, node: SeenNode) -> None:
        if node.metadata.name in self._wanted and not node.dead:
            self._lost.put_nowait(node.metadata.name)  # a kubelet that lives comes back

    async def _mend(self) -> None:
        while True:
            name = await self._lost.get()
            await self._reread()  # deleted because it is not wanted any more? Then it must not come back
            known = self._nodes.lister.get(ObjectKey("", name))
            await self._try(name, self._register if known is None else self._report)

    # ---- what is done ----

    async def _beat(self) -> None:
        passes = 0
        while True:
            for part in range(SLICES):
                names = [name for name in self._names[part::SLICES] if self.alive(name)]
                await self._each(names, self._renew)
                due = [name for turn, name in enumerate(names) if (passes + turn) % REPORT_PASSES == REPORT_PASSES - 1]
                await self._each(due, self._report)
                await self._clock.sleep(RENEW_SECONDS / SLICES)
            passes += 1

    async def _each(self, names: Iterable[str], act: Callable[[str], Awaitable[None]]) -> None:
        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(self._try(name, act))

    async def _try(self, name: str, act: Callable[[str], Awaitable[None]]) -> None:
        """Until it works; a node that was deleted meanwhile is looked after elsewhere."""
        async with self._slots:
            while name in self._wanted or act == self._remove:
                try:
                    return await act(name)
                except NotFound:
                    return
                except StatusError as error:
                    _log.debug("Hollow node waits", extra=kv(node=name, error=error.message))
                    if act == self._renew:  # the next beat comes soon enough
                        return
                await self._clock.sleep(RETRY)

    async def _register(self, name: str) -> None:
        settings = self._settings.node(name)
        status = self._status(settings, ())
        try:
            node = await self._client.create(
                msgspec.convert(node_status.new_node(settings, status), core_v1.Node), namespace=""
            )
        except AlreadyExists:
            return await self._report(name)
        await self._renew(name, (node.metadata.uid if node.metadata else None) or "")

    async def _report(self, name: str) -> None:
        known = self._nodes.lister.get(ObjectKey("", name))
        conditions = (known.status.conditions if known is not None and known.status else None) or ()
        status = self._status(self._settings.node(name), [msgspec.to_builtins(each) for each in conditions])
        patch: dict[str, Any] = {"status": status}
        await self._client.patch(core_v1.Node, name, patch, type=PatchType.STRATEGIC, subresource="status")

    def _status(self, settings: NodeSettings, known: Iterable[dict[str, Any]]) -> dict[str, Any]:
        info = NodeInfo(kernel="none", os_image="hollow node", runtime="hollow://1")
        return node_status.node_status(settings, info, Health(), (), known, self._clock.now())

    async def _renew(self, name: str, uid: str = "") -> None:
        patch: dict[str, Any] = {"spec": {"renewTime": self._clock.now_micro()}}
        try:
            await self._client.patch(coordination_v1.Lease, name, patch, LEASE_NAMESPACE)
        except NotFound:
            known = self._nodes.lister.get(ObjectKey("", name))
            uid = uid or (known.metadata.uid if known is not None else "")
            owner = meta_v1.OwnerReference(apiVersion="v1", kind="Node", name=name, uid=uid)
            meta = meta_v1.ObjectMeta(name=name, namespace=LEASE_NAMESPACE, ownerReferences=[owner] if uid else None)
            spec = coordination_v1.LeaseSpec(
                holderIdentity=name, leaseDurationSeconds=LEASE_SECONDS, renewTime=self._clock.now_micro()
            )
            await self._client.create(coordination_v1.Lease(metadata=meta, spec=spec))

    async def _remove(self, name: str) -> None:
        await self._client.delete(core_v1.Node, name)
