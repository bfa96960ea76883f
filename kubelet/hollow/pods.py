"""The pods of hollow nodes: each is told to start, to end and to go, by requests as a kubelet makes them.

Owns which pod is on its way to what. Never decides what a pod looks like (`hollow.simulation` does).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Coroutine
from typing import Any

from api import resources
from api.models import core_v1
from client.client import Client, PatchType
from client.informer import EventHandler, Informer, Informers
from client.kinds import View
from kubelet.hollow import simulation
from kubelet.hollow.fleet import Fleet
from kubelet.hollow.simulation import HollowPod
from machinery import log
from machinery.clock import Clock
from machinery.errors import Conflict, Invalid, NotFound, StatusError
from machinery.log import kv
from machinery.meta import ObjectKey

_log = log.get(__name__)
AT_ONCE = 32
RETRY_FIRST, RETRY_LAST = 0.2, 5.0
STOP_SECONDS = 0.1
"""What a container takes to heed SIGTERM."""


class HollowPods:
    """All pods of the fleet."""

    def __init__(
        self, client: Client, informers: Informers, clock: Clock, fleet: Fleet, *, start_seconds: float
    ) -> None:
        self._client = client
        self._clock = clock
        self._fleet = fleet
        self._start_seconds = start_seconds
        self._pods: Informer[HollowPod] = informers.informer(
            View(resources.of(core_v1.Pod), HollowPod), field_selector="spec.nodeName!="
        )
        self._on_node: dict[str, dict[str, HollowPod]] = defaultdict(dict)
        self._steps: dict[str, tuple[str, asyncio.Task[None]]] = {}
        self._taken: set[int] = set()
        self._next = 1
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._group: asyncio.TaskGroup | None = None

    def on_node(self, name: str) -> list[HollowPod]:
        """The pods bound to that node."""
        return list(self._on_node.get(name, {}).values())

    async def run(self) -> None:
        """Play pods until cancelled."""
        await self._fleet.ready.wait()
        await self._pods.wait_synced()
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._fleet.on_state = self._look_again
            self._pods.add_handler(EventHandler(self._seen, lambda _, pod: self._seen(pod), self._gone))
            await asyncio.get_running_loop().create_future()

    def _look_again(self, node: str) -> None:
        for pod in self.on_node(node):
            self._seen(pod)

    def _seen(self, pod: HollowPod) -> None:
        node, uid = pod.spec.nodeName or "", pod.metadata.uid
        if not self._fleet.settings.owns(node):
            return
        self._on_node[node][uid] = pod
        number = simulation.number_of((pod.status.podIP if pod.status else None) or "")
        if number is not None:
            self._taken.add(number)
        if not self._fleet.alive(node):
            self._halt(uid)
            return
        if pod.metadata.deletionTimestamp is not None:
            self._step(uid, "remove", lambda: self._remove(pod))
        elif pod.phase == "Pending":
            self._step(uid, "start", lambda: self._start(pod))
        elif not pod.over:
            seconds = simulation.run_seconds(pod)
            if seconds is not None:
                self._step(uid, "end", lambda: self._end(pod, seconds))

    def _gone(self, pod: HollowPod) -> None:
        node = pod.spec.nodeName or ""
        if not self._fleet.settings.owns(node):
            return
        pods = self._on_node[node]
        pods.pop(pod.metadata.uid, None)
        if not pods:
            del self._on_node[node]
        self._halt(pod.metadata.uid)
        number = simulation.number_of((pod.status.podIP if pod.status else None) or "")
        if number is not None:
            self._taken.discard(number)

    def _halt(self, uid: str) -> None:
        step = self._steps.pop(uid, None)
        if step is not None:
            step[1].cancel()

    def _step(self, uid: str, name: str, act: Any) -> None:
        """Begin a step unless it was begun; a later step ends an earlier one."""
        known = self._steps.get(uid)
        if known is not None:
            if known[0] == name:
                return
            known[1].cancel()
        assert self._group is not None
        self._steps[uid] = (name, self._group.create_task(act()))

    async def _start(self, pod: HollowPod) -> None:
        await self._clock.sleep(self._start_seconds)
        number = self._address()
        patch = simulation.running(pod, simulation.address(number), self._fleet.settings.address, self._clock.now())
        await self._write(pod, patch)

    async def _end(self, pod: HollowPod, seconds: float) -> None:
        await self._clock.sleep(seconds)
        await self._write(pod, simulation.ended(pod, simulation.exit_code(pod), self._clock.now()))

    async def _remove(self, pod: HollowPod) -> None:
        meta = pod.metadata
        if not pod.over:
            await self._clock.sleep(STOP_SECONDS)
            if meta.finalizers:  # who holds it wants to know how it ended
                await self._write(pod, simulation.ended(pod, simulation.exit_code(pod), self._clock.now()))
        await self._until_done(
            pod,
            lambda: self._client.delete(core_v1.Pod, meta.name, meta.namespace, uid=meta.uid, grace_period_seconds=0),
        )

    async def _write(self, pod: HollowPod, patch: dict[str, Any]) -> None:
        meta = pod.metadata
        await self._until_done(
            pod,
            lambda: self._client.patch(
                core_v1.Pod, meta.name, patch, meta.namespace, type=PatchType.STRATEGIC, subresource="status"
            ),
        )

    async def _until_done(self, pod: HollowPod, request: Any) -> None:
        retry = RETRY_FIRST
        while True:
            try:
                async with self._slots:
                    coroutine: Coroutine[Any, Any, Any] = request()
                    await coroutine
                return
            except (NotFound, Conflict):  # gone, or another pod of that name
                return
            except Invalid as error:
                _log.warning("Refused", extra=kv(pod=pod.metadata.name, error=error.message))
                return
            except StatusError as error:
                _log.debug("Hollow pod waits", extra=kv(pod=pod.metadata.name, error=error.message))
            await asyncio.sleep(retry)
            retry = min(retry * 2, RETRY_LAST)

    def _address(self) -> int:
        """A number nobody has. There are four million of them."""
        while self._next in self._taken:
            self._next = self._next % (simulation.ADDRESS_COUNT - 1) + 1
        self._taken.add(self._next)
        return self._next

    def known(self, namespace: str, name: str) -> bool:
        """Whether a pod of that name is on a hollow node."""
        pod = self._pods.lister.get(ObjectKey(namespace, name))
        return pod is not None and self._fleet.settings.owns(pod.spec.nodeName or "")
