"""Hands that play scheduler, kubelet and administrator around an autoscaler."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from api.models import core_v1, meta_v1
from client.client import Client
from cluster_autoscaler.autoscaler import Autoscaler
from machinery.clock import RealClock
from machinery.errors import StatusError
from tests.harness.provider import FakeCloud, FakeGroup, FakeInstance
from tests.unit.scheduler.objects import node as node_object
from tests.unit.scheduler.objects import pod as pod_object

SCALE = 100.0
DEADLINE = 20.0
READY = {"type": "Ready", "status": "True", "reason": "KubeletReady"}


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not await true():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@dataclass
class Process:
    """A running autoscaler."""

    autoscaler: Autoscaler
    tasks: Sequence[asyncio.Future[Any]]


class Site:
    """A cluster, its cloud and its autoscaler."""

    def __init__(
        self,
        client: Client,
        cloud: FakeCloud,
        clock: RealClock,
        process: Callable[[], contextlib.AbstractAsyncContextManager[Process]],
        flags: Sequence[str],
    ) -> None:
        """`flags`: with which an autoscaler in a process of its own works here."""
        self.client = client
        self.cloud = cloud
        self.clock = clock
        self._process = process
        self.flags = flags
        self._ends = contextlib.AsyncExitStack()
        self._running: list[Process] = []

    @property
    def autoscaler(self) -> Autoscaler:
        return self._running[-1].autoscaler

    async def start(self) -> None:
        self._running.append(await self._ends.enter_async_context(self._process()))

    async def kill(self) -> None:
        await self._ends.aclose()
        self._running.clear()

    def check(self) -> None:
        """Raise what a loop of the autoscaler ended with."""
        for running in self._running:
            for task in running.tasks:
                if task.done():
                    task.result()

    # --- nodes -----------------------------------------------------------------------------------------------------

    async def join(self, group: FakeGroup, instance: FakeInstance, *, ready: bool = True) -> None:
        """The kubelet of a machine reports."""
        made = node_object(
            instance.name, labels={"group": group.id, **group.labels}, cpu=group.cpu, memory=group.memory, pods="110"
        )
        assert made.spec is not None and made.status is not None
        made.spec.providerID = instance.id
        await self.client.create(made)
        status: dict[str, Any] = {"allocatable": made.status.allocatable, "capacity": made.status.allocatable}
        status["conditions"] = [READY if ready else {**READY, "status": "False"}]
        await self.client.patch(core_v1.Node, instance.name, {"status": status}, subresource="status")
        await self.client.patch(core_v1.Node, instance.name, {"spec": {"taints": None}})

    async def grow(self, group: str, count: int = 1) -> list[str]:
        made = self.cloud.add(group, count)
        for instance in made:
            await self.join(self.cloud.groups[group], instance)
        return [instance.name for instance in made]

    async def node(self, name: str) -> core_v1.Node:
        return await self.client.get(core_v1.Node, name)

    async def taints(self, name: str) -> list[str]:
        found = await self.node(name)
        return [each.key for each in (found.spec.taints if found.spec is not None else None) or ()]

    # --- pods ------------------------------------------------------------------------------------------------------

    async def pod(
        self,
        name: str,
        cpu: str = "1",
        *,
        node: str = "",
        owner: str = "web",
        kind: str = "ReplicaSet",
        refused: bool = True,
        annotations: dict[str, str] | None = None,
        **rest: Any,
    ) -> core_v1.Pod:
        """A pod of `owner` (a ReplicaSet is made when it is missing): on a node, or refused by the scheduler."""
        made = pod_object(name, {"cpu": cpu}, labels={"app": owner or name}, **rest)
        assert made.metadata is not None and made.spec is not None
        made.metadata.uid = None
        made.metadata.annotations = annotations
        made.spec.nodeName = node or None
        if owner:
            uid = await self.replica_set(owner) if kind == "ReplicaSet" else f"uid-{owner}"
            made.metadata.ownerReferences = [
                meta_v1.OwnerReference(apiVersion="apps/v1", kind=kind, name=owner, uid=uid, controller=True)
            ]
        created = await self.client.create(made)
        if node:
            await self._status(name, {"phase": "Running"})
        elif refused:
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room"}
            await self._status(name, {"conditions": [condition]})
        return created

    async def _status(self, name: str, status: dict[str, Any]) -> None:
        await self.client.patch(core_v1.Pod, name, {"status": status}, "default", subresource="status")

    async def replica_set(self, name: str) -> str:
        from api.models import apps_v1

        try:
            found = await self.client.get(apps_v1.ReplicaSet, name, "default")
        except StatusError:
            labels = {"app": name}
            found = await self.client.create(
                apps_v1.ReplicaSet(
                    metadata=meta_v1.ObjectMeta(name=name, namespace="default"),
                    spec=apps_v1.ReplicaSetSpec(
                        selector=meta_v1.LabelSelector(matchLabels=labels),
                        template=core_v1.PodTemplateSpec(
                            metadata=meta_v1.ObjectMeta(labels=labels),
                            spec=core_v1.PodSpec(containers=[core_v1.Container(name="c", image="i")]),
                        ),
                    ),
                )
            )
        assert found.metadata is not None and found.metadata.uid is not None
        return found.metadata.uid

    async def finish_terminating(self) -> None:
        """The kubelet ends what is being deleted."""
        for each in (await self.client.list(core_v1.Pod, "default")).items:
            assert each.metadata is not None and each.metadata.name is not None
            if each.metadata.deletionTimestamp is not None:
                await self.client.delete(core_v1.Pod, each.metadata.name, "default", grace_period_seconds=0)

    # --- what is told ----------------------------------------------------------------------------------------------

    async def events(self, reason: str, name: str = "") -> list[str]:
        found = [
            *(await self.client.list(core_v1.Event, "default")).items,
            *(await self.client.list(core_v1.Event, "kube-system")).items,
        ]
        return [
            each.message or "" for each in found if each.reason == reason and name in ("", each.involvedObject.name)
        ]

    async def told(self, reason: str, text: str, name: str = "") -> None:
        """Wait for an event."""

        async def is_told() -> bool:
            return any(text in message for message in await self.events(reason, name))

        await until(is_told)

    async def status(self) -> dict[str, Any]:
        found = await self.client.get(core_v1.ConfigMap, "cluster-autoscaler-status", "kube-system")
        document: dict[str, Any] = yaml.safe_load((found.data or {})["status"])
        return document
