"""Registers this node and keeps its status and its Lease fresh.

Owns the Node object's status and the Lease in kube-node-lease. Never: taints for health (the node lifecycle controller
does) or pods. Hands the pod network to the runtime as soon as it is known. Run by `kubelet.app`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from api.models import coordination_v1, core_v1, meta_v1
from client.client import Client, PatchType
from client.events import EventRecorder
from client.informer import EventHandler, Informer
from kubelet.cri import Cri, CriError
from kubelet.node import status as node_status
from kubelet.node.machine_facts import machine_facts
from kubelet.node.status import Health, NodeInfo, NodeSettings
from kubelet.status.writer import plain
from machinery import log
from machinery.clock import Clock
from machinery.errors import AlreadyExists, Conflict, NotFound, StatusError
from machinery.log import kv

_log = log.get(__name__)
UPDATE_SECONDS = 10.0
REPORT_SECONDS = 300.0
LEASE_SECONDS = 40
RENEW_SECONDS = 10.0
RUNTIME_GRACE = 30.0  # upstream's threshold for a runtime that does not answer
LEASE_NAMESPACE = "kube-node-lease"
RETRY_FIRST, RETRY_LAST = 0.1, 5.0  # real seconds
EVENT_REASONS = {
    ("MemoryPressure", "True"): "NodeHasInsufficientMemory",
    ("DiskPressure", "True"): "NodeHasDiskPressure",
    ("PIDPressure", "True"): "NodeHasInsufficientPID",
    ("MemoryPressure", "False"): "NodeHasSufficientMemory",
    ("DiskPressure", "False"): "NodeHasNoDiskPressure",
    ("PIDPressure", "False"): "NodeHasSufficientPID",
    ("Ready", "True"): "NodeReady",
    ("Ready", "False"): "NodeNotReady",
}
FIRST_LOOK = 0.05  # real seconds between looks until the node has been Ready once


class NodeReporter:
    """One per kubelet."""

    def __init__(
        self,
        client: Client,
        runtime: Cri,
        clock: Clock,
        settings: NodeSettings,
        informer: Informer[core_v1.Node],
        recorder: EventRecorder,
        *,
        update_seconds: float = UPDATE_SECONDS,
        pod_cidr: str = "",
    ) -> None:
        self._client = client
        self._cri = runtime
        self._clock = clock
        self._settings = settings
        self._informer = informer
        self._recorder = recorder
        # Condition → status last told as an event. That a node starts as not ready is no news.
        self._told: dict[str, str] = {"Ready": "False"}
        self._update_seconds = update_seconds
        self._given_cidr = pod_cidr
        self._cidr = ""
        self._info: NodeInfo = machine_facts(settings.name, "")
        self._health_seen = Health()
        self._asked_at: float | None = None
        self._look = asyncio.Event()
        self._written: dict[str, Any] | None = None
        self._found: dict[str, Any] = {}  # what a former life left in the API server
        self._written_at = 0.0
        self._images: list[dict[str, Any]] = []
        self.pressures: Callable[[], frozenset[str]] = frozenset
        self.volumes_in_use: Callable[[], list[str]] = list
        self.told_volumes: Callable[[list[str]], None] = lambda volumes: None
        self.seen_node: Callable[[], None] = lambda: None
        self.registered = asyncio.Event()
        self.ready = asyncio.Event()
        self.uid = ""
        informer.add_handler(EventHandler(self._seen, lambda _, node: self._seen(node), lambda _: self._vanished()))

    @property
    def labels(self) -> dict[str, str]:
        """The node's labels as the API server has them."""
        for node in self._informer.lister.list():
            if node.metadata is not None and node.metadata.labels:
                return dict(node.metadata.labels)
        return node_status.node_labels(self._settings)

    def _seen(self, node: core_v1.Node) -> None:
        self.seen_node()
        cidr = (node.spec.podCIDR if node.spec else None) or ""
        if node.metadata is not None and node.metadata.uid:
            self.uid = node.metadata.uid
        if cidr and cidr != self._cidr:
            self._given_cidr = cidr
            self._look.set()

    def _vanished(self) -> None:
        self.registered.clear()  # somebody deleted us while we live: come back
        self._written = None
        self._look.set()

    def look(self) -> None:
        """Something about the node has changed: report it now."""
        self._look.set()

    def tell(self, reason: str, message: str, kind: str = "Normal") -> None:
        """An event about this node; upstream puts the node's name where the uid goes."""
        name = self._settings.name
        reference = core_v1.ObjectReference(kind="Node", name=name, uid=name)
        self._recorder.event(reference, kind, reason, message)

    def _tell_changes(self, status: dict[str, Any]) -> None:
        for condition in status["conditions"]:
            kind, value = condition["type"], condition["status"]
            if self._told.get(kind) == value:
                continue
            self._told[kind] = value
            reason = EVENT_REASONS[kind, value]
            self.tell(reason, f"Node {self._settings.name} status is now: {reason}")

    async def run(self) -> None:
        """Register, then report until cancelled."""
        self.tell("Starting", "Starting kubelet.")
        async with asyncio.TaskGroup() as group:
            group.create_task(self._report_forever())
            group.create_task(self._renew_forever())

    # ---- status ----

    async def _report_forever(self) -> None:
        retry = RETRY_FIRST
        while True:
            self._look.clear()  # before the look: what changes meanwhile is told in the next report
            try:
                await self._report()
                retry = RETRY_FIRST
            except StatusError as error:
                _log.warning("Failed to report node", extra=kv(node=self._settings.name, error=error.message))
                await asyncio.sleep(retry * random.uniform(0.8, 1.2))
                retry = min(retry * 2, RETRY_LAST)
                continue
            wait = self._clock.real(self._update_seconds) if self.ready.is_set() else FIRST_LOOK
            try:
                async with asyncio.timeout(wait):
                    await self._look.wait()
            except TimeoutError:
                pass

    async def _report(self) -> None:
        health = await self._health()
        if not self.ready.is_set() and self.registered.is_set() and health.problems and self._written is not None:
            return  # starting: nothing to say until something changes
        await self._note_images()
        if not self.registered.is_set():
            await self._register(health)
        known = (self._written or self._found).get("conditions") or ()
        now = self._clock.now()
        status = node_status.node_status(self._settings, self._info, health, self._images, known, now)
        status["volumesInUse"] = self.volumes_in_use() or None
        mono = self._clock.monotonic()
        unchanged = self._written is not None and node_status.same_but_heartbeat(self._written, status)
        if unchanged and mono - self._written_at < REPORT_SECONDS:
            return
        await self._client.patch(
            core_v1.Node,
            self._settings.name,
            {"status": status},
            type=PatchType.STRATEGIC,
            subresource="status",
        )
        self._wrote(status)

    def _wrote(self, status: dict[str, Any]) -> None:
        self._written, self._written_at = status, self._clock.monotonic()
        self.told_volumes(status.get("volumesInUse") or [])
        self._tell_changes(status)
        if any(each["type"] == "Ready" and each["status"] == "True" for each in status["conditions"]):
            if not self.ready.is_set():
                _log.info("Node became ready", extra=kv(node=self._settings.name))
            self.ready.set()

    async def _health(self) -> Health:
        """Ask the runtime; give it the pod network when that has become known.

        A runtime that is away for a moment (it restarts) makes no node unready: what was last seen counts for a while.
        """
        now = self._clock.monotonic()
        try:
            self._health_seen = await self._ask_runtime()
            self._asked_at = now
        except CriError as error:
            if self._asked_at is None or now - self._asked_at > RUNTIME_GRACE:
                return Health(f"container runtime is down: {error.message}", pressures=self.pressures())
        return replace(self._health_seen, pressures=self.pressures())

    async def _ask_runtime(self) -> Health:
        if self._given_cidr and self._given_cidr != self._cidr:
            await self._cri.set_pod_cidr(self._given_cidr)
            self._cidr = self._given_cidr
            _log.info("Gave the runtime its pod network", extra=kv(cidr=self._cidr))
        status = await self._cri.status()
        if not self._info.runtime:
            version = await self._cri.version()
            self._info = machine_facts(self._settings.name, f"{version.runtime_name}://{version.runtime_version}")
        problems = {"RuntimeReady": "", "NetworkReady": ""}
        for condition in status.conditions:
            if condition.type in problems and not condition.status:
                kind = "container runtime" if condition.type == "RuntimeReady" else "container runtime network"
                problems[condition.type] = (
                    f"{kind} not ready: {condition.type}=false reason:{condition.reason} message:{condition.message}"
                )
        if problems["NetworkReady"]:
            self._cidr = ""  # a runtime that lost its state is told again
        return Health(problems["RuntimeReady"], problems["NetworkReady"])

    async def _note_images(self) -> None:
        try:
            self._images = node_status.image_list(await self._cri.list_images())
        except CriError as error:
            _log.debug("Failed to list images", extra=kv(error=error.message))

    async def _register(self, health: Health) -> None:
        settings = self._settings
        status = node_status.node_status(settings, self._info, health, self._images, (), self._clock.now())
        try:
            made = await self._client.create(_node(node_status.new_node(settings, status, self._pinned_cidr())))
        except AlreadyExists:
            await self._reconcile()
        else:
            if made.status is not None and made.status.conditions:
                self._wrote(status)
            self._seen(made)
            _log.info("Registered node", extra=kv(node=settings.name))
        self.registered.set()

    def _pinned_cidr(self) -> str:
        return "" if self._informer.lister.list() else self._given_cidr

    async def _reconcile(self) -> None:
        """An object of a former life: keep what others wrote, renew what is ours."""
        node = await self._client.get(core_v1.Node, self._settings.name)
        self._seen(node)
        self._found = plain(node.status)
        have = (node.metadata.labels if node.metadata else None) or {}
        wanted = node_status.node_labels(self._settings)
        missing = {key: value for key, value in wanted.items() if have.get(key) != value}
        if missing:
            patch: dict[str, Any] = {"metadata": {"labels": missing}}
            await self._client.patch(core_v1.Node, self._settings.name, patch, type=PatchType.STRATEGIC)
        _log.info("Found node registered", extra=kv(node=self._settings.name))

    # ---- lease ----

    async def _renew_forever(self) -> None:
        await self.registered.wait()
        lease: coordination_v1.Lease | None = None
        retry = 0.2
        while True:
            try:
                lease = await self._renew(lease)
                retry = 0.2
            except (Conflict, AlreadyExists):
                lease = None
                continue
            except StatusError as error:
                lease = None
                _log.warning("Failed to renew lease", extra=kv(node=self._settings.name, error=error.message))
                await self._clock.sleep(retry)  # upstream: 200 ms to 7 s
                retry = min(retry * 2, 7.0)
                continue
            await self._clock.sleep(RENEW_SECONDS * random.uniform(1.0, 1.04))

    async def _renew(self, lease: coordination_v1.Lease | None) -> coordination_v1.Lease:
        name = self._settings.name
        if lease is None:
            try:
                lease = await self._client.get(coordination_v1.Lease, name, LEASE_NAMESPACE)
            except NotFound:
                return await self._client.create(self._new_lease())
        spec = lease.spec or coordination_v1.LeaseSpec()
        spec.holderIdentity, spec.leaseDurationSeconds = name, LEASE_SECONDS
        spec.renewTime = self._clock.now_micro()
        lease.spec = spec
        if lease.metadata is not None and self.uid and not lease.metadata.ownerReferences:
            lease.metadata.ownerReferences = [self._owner()]
        return await self._client.update(lease)

    def _new_lease(self) -> coordination_v1.Lease:
        name = self._settings.name
        return coordination_v1.Lease(
            metadata=meta_v1.ObjectMeta(
                name=name, namespace=LEASE_NAMESPACE, ownerReferences=[self._owner()] if self.uid else None
            ),
            spec=coordination_v1.LeaseSpec(
                holderIdentity=name, leaseDurationSeconds=LEASE_SECONDS, renewTime=self._clock.now_micro()
            ),
        )

    def _owner(self) -> meta_v1.OwnerReference:
        return meta_v1.OwnerReference(apiVersion="v1", kind="Node", name=self._settings.name, uid=self.uid)


def _node(raw: dict[str, Any]) -> core_v1.Node:
    import msgspec

    return msgspec.convert(raw, core_v1.Node)
