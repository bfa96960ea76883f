"""A real API server in this process, a scheduler beside it, and an administrator's hands."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from api.models import core_v1, meta_v1
from client.client import Client
from client.events import EventRecorder
from client.informer import Informers
from machinery.clock import RealClock
from machinery.errors import AlreadyExists
from scheduler import app
from scheduler.binder import find_condition
from scheduler.plugins.default_binder import CreateBinding, DefaultBinder
from scheduler.plugins.registry import default_framework
from scheduler.scheduler import Scheduler
from tests.harness.apiserver import RunningApiServer

SCALE = 20.0
DEADLINE = 60.0
IDENTITY = "system:kube-scheduler"


Wrap = Callable[[CreateBinding], CreateBinding]


@contextlib.asynccontextmanager
async def running_scheduler(server: RunningApiServer, wrap: Wrap | None = None) -> AsyncIterator[Scheduler]:
    args = app.parser().parse_args(["--api-server", server.grpc_target, "--seed", "1"])
    clock = RealClock(SCALE)
    client = Client.connect(server.grpc_target, server.pki.client(IDENTITY))
    informers = Informers(client, clock)
    recorder = EventRecorder(client, clock, args.scheduler_name)
    profiles = app.profiles(args, client)
    if wrap is not None:
        (binder,) = profiles[args.scheduler_name].bind
        assert isinstance(binder, DefaultBinder)
        profiles = {args.scheduler_name: default_framework(create_binding=wrap(binder.create))}
    scheduler = Scheduler(client, clock, informers, recorder, profiles)
    tasks = [asyncio.ensure_future(work) for work in (informers.run(), recorder.run(), scheduler.run())]
    try:
        yield scheduler
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.close()


class Cluster:
    """An administrator's hands."""

    def __init__(self, server: RunningApiServer) -> None:
        self.server = server
        self.client = Client.connect(server.grpc_target, server.admin_tls)

    async def add_node(self, made: core_v1.Node) -> None:
        created = await self.client.create(made)
        assert created.metadata is not None
        status = made.status
        assert status is not None
        await self.client.patch(
            core_v1.Node,
            created.metadata.name or "",
            {"status": {"allocatable": status.allocatable, "capacity": status.allocatable}},
            subresource="status",
        )
        # A new node carries the not-ready taint; the node lifecycle controller would lift it.
        await self.client.patch(core_v1.Node, created.metadata.name or "", {"spec": {"taints": None}})

    async def add_pod(self, made: core_v1.Pod) -> None:
        assert made.metadata is not None
        made.metadata.uid = None
        await self.client.create(made)

    async def pod(self, name: str) -> core_v1.Pod:
        return await self.client.get(core_v1.Pod, name, "default")

    async def node_of(self, name: str) -> str:
        spec = (await self.pod(name)).spec
        return (spec.nodeName if spec is not None else None) or ""

    async def condition(self, name: str) -> core_v1.PodCondition | None:
        return find_condition(await self.pod(name), "PodScheduled")

    async def messages(self, name: str, reason: str) -> list[str]:
        events = (await self.client.list(core_v1.Event, "default")).items
        return [event.message or "" for event in events if event.involvedObject.name == name and event.reason == reason]


async def ensure_namespace(cluster: Cluster) -> None:
    """What the controller manager would make."""
    for made in (
        core_v1.Namespace(metadata=meta_v1.ObjectMeta(name="default")),
        core_v1.ServiceAccount(metadata=meta_v1.ObjectMeta(name="default", namespace="default")),
    ):
        with contextlib.suppress(AlreadyExists):
            await cluster.client.create(made)


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not await true():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def bound(cluster: Cluster, name: str) -> str:
    await until(lambda: is_bound(cluster, name))
    return await cluster.node_of(name)


async def is_bound(cluster: Cluster, name: str) -> bool:
    return bool(await cluster.node_of(name))


async def refused(cluster: Cluster, name: str, saying: str = "") -> str:
    """Wait until the pod is told so; the scheduler may have tried before it had seen all that a test has just done."""

    async def told() -> bool:
        condition = await cluster.condition(name)
        return condition is not None and condition.reason == "Unschedulable" and saying in (condition.message or "")

    await until(told)
    condition = await cluster.condition(name)
    assert condition is not None and condition.status == "False"
    return condition.message or ""
