"""Hollow nodes and a round-robin scheduler: what controllers need around them to be tried against a real API server.

Pods that are bound to a living hollow node become Running and Ready at once; terminating ones are confirmed. A stopped
node says nothing any more, as one whose kubelet was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from api.models import coordination_v1, core_v1, meta_v1
from client.client import Client, PatchType, key_of
from client.informer import EventHandler
from controller_manager.app import ControllerManager
from controller_manager.daemonset.eligibility import node_of
from controller_manager.environment import Options, RestReader
from machinery.clock import Clock, RealClock
from machinery.errors import AlreadyExists, StatusError
from machinery.meta import rfc3339
from tests.harness.apiserver import running_apiserver

DEADLINE = 60.0


class Cluster:
    """A client, the controllers under test, and hollow nodes."""

    def __init__(self, client: Client, clock: Clock, manager: ControllerManager) -> None:
        self.client = client
        self.clock = clock
        self.manager = manager
        self.alive: set[str] = set()
        self.ready_images: Callable[[core_v1.Pod], bool] = lambda pod: True
        self._addresses = itertools.count(2)
        self._pods = manager.environment.informers.informer(core_v1.Pod)
        self._turn = itertools.count()
        self._work: asyncio.Queue[core_v1.Pod] = asyncio.Queue()
        self._pods.add_handler(EventHandler(self._work.put_nowait, lambda _, new: self._work.put_nowait(new)))

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.manager.run())
            group.create_task(self._heartbeats())
            for _ in range(4):
                group.create_task(self._kubelets())

    async def add_node(self, name: str) -> None:
        now = rfc3339(self.clock.now())
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now}
        await self.client.create(core_v1.Node(metadata=meta_v1.ObjectMeta(name=name)))
        await self.client.patch(
            core_v1.Node,
            name,
            {"status": {"conditions": [ready]}},
            type=PatchType.STRATEGIC,
            subresource="status",
        )
        await self._renew(name)
        self.alive.add(name)

    async def _renew(self, name: str) -> None:
        lease = coordination_v1.Lease(
            metadata=meta_v1.ObjectMeta(name=name, namespace="kube-node-lease"),
            spec=coordination_v1.LeaseSpec(holderIdentity=name, renewTime=self.clock.now_micro()),
        )
        try:
            await self.client.create(lease)
        except AlreadyExists:
            patch = {"spec": {"renewTime": self.clock.now_micro()}}
            await self.client.patch(coordination_v1.Lease, name, patch, "kube-node-lease")

    async def _heartbeats(self) -> None:
        while True:
            for name in tuple(self.alive):
                with contextlib.suppress(StatusError):
                    await self._renew(name)
            await self.clock.sleep(10)

    async def _kubelets(self) -> None:
        while True:
            seen = await self._work.get()
            pod = self._pods.lister.get(key_of(seen))
            if pod is None:
                continue
            try:
                await self._advance(pod)
            except StatusError:
                await asyncio.sleep(0.01)
                self._work.put_nowait(pod)

    async def _advance(self, pod: Any) -> None:
        key = key_of(pod)
        node = pod.spec.nodeName
        if not node:
            wanted = node_of(pod)  # pods of a DaemonSet are made for one node
            names = [wanted] if wanted else sorted(self.alive)
            if pod.metadata.deletionTimestamp is None and names:
                chosen = names[next(self._turn) % len(names)]
                binding = core_v1.Binding(
                    metadata=meta_v1.ObjectMeta(name=key.name, namespace=key.namespace),
                    target=core_v1.ObjectReference(kind="Node", name=chosen, apiVersion="v1"),
                )
                await self.client.create_subresource(core_v1.Pod, key.name, key.namespace, "binding", binding)
            return
        if node not in self.alive:
            return
        if pod.metadata.deletionTimestamp is not None:
            await self.client.delete(core_v1.Pod, key.name, key.namespace, uid=pod.metadata.uid, grace_period_seconds=0)
        elif pod.status is None or pod.status.phase in (None, "Pending"):
            await self._start(pod)

    async def _start(self, pod: Any) -> None:
        number = next(self._addresses)
        address = f"10.244.{number // 250}.{number % 250 + 2}"
        ready = "True" if self.ready_images(pod) else "False"
        status = {
            "phase": "Running",
            "startTime": rfc3339(self.clock.now()),
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": rfc3339(self.clock.now())}],
        }
        patch = {"metadata": {"uid": pod.metadata.uid}, "status": status}
        key = key_of(pod)
        await self.client.patch(
            core_v1.Pod, key.name, patch, key.namespace, type=PatchType.STRATEGIC, subresource="status"
        )


async def eventually(probe: Callable[[], Awaitable[Any]], what: str, timeout: float = DEADLINE) -> Any:
    """Ask until the answer is true (an AssertionError counts as not yet); fail with the last answer."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            answer = await probe()
        except (StatusError, AssertionError, IndexError, KeyError) as error:
            answer = None
            last: object = error
        else:
            last = answer
        if answer:
            return answer
        assert time.monotonic() < deadline, f"waited {timeout:.0f} s for {what}; last: {last!r}"
        await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def running_cluster(
    *,
    nodes: int = 0,
    clock: Clock | None = None,
    options: Options | None = None,
    controllers: list[str] | None = None,
    rest: RestReader | None = None,
) -> AsyncIterator[Cluster]:
    """API server on the memory store, controllers, hollow nodes n1…; checks that nothing is left running."""
    clock = clock or RealClock()
    async with running_apiserver() as server:
        client = Client.connect(server.grpc_target, server.admin_tls, field_manager="kube-controller-manager")
        manager = ControllerManager(client, clock, options or Options(), controllers, rest)
        cluster = Cluster(client, clock, manager)
        task = asyncio.ensure_future(cluster.run())
        try:
            for number in range(nodes):
                await cluster.add_node(f"n{number + 1}")
            yield cluster
        finally:
            assert not task.done(), task.result()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await client.close()
