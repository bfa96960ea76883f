"""A real API server, the node pool autoscaler over a scripted cloud, and hands that play scheduler and kubelets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from api.models import core_v1, meta_v1
from cli.nodepools import objects
from client.client import Client
from client.informer import Informers
from machinery.clock import RealClock
from machinery.errors import AlreadyExists, Conflict, NotFound
from nodepool_autoscaler import names
from nodepool_autoscaler.app import SOURCE, Autoscaler
from nodepool_autoscaler.definitions import definitions
from nodepool_autoscaler.disruption.controller import Options
from nodepool_autoscaler.model import Offering
from nodepool_autoscaler.objects import CLAIMS, NODE_CLASSES, NODE_POOLS, POOLS, NodeClaim, NodePool
from nodepool_autoscaler.provider import FakeProvider, Machine
from nodepool_autoscaler.simulation import quantities
from tests.harness.apiserver import RunningApiServer, running_apiserver
from tests.unit.nodepool_autoscaler.scene import offerings
from tests.unit.scheduler.objects import node as node_object
from tests.unit.scheduler.objects import pod as pod_object

SCALE = 30.0
DEADLINE = 90.0
BEAT = 0.03
IDENTITY = "system:serviceaccount:kube-system:nodepool-autoscaler"
GROUPS = ("system:serviceaccounts", "system:serviceaccounts:kube-system")
READY = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
REFUSED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room"}
Obj = dict[str, Any]
T = TypeVar("T")


async def until(true: Callable[[], Awaitable[T]], what: str = "") -> T:
    """What it answers once that is true."""
    try:
        async with asyncio.timeout(DEADLINE):
            while not (found := await true()):  # noqa: ASYNC110
                await asyncio.sleep(BEAT)
            return found
    except TimeoutError:
        raise AssertionError(f"never: {what or getattr(true, '__name__', true)}") from None


def pool(name: str = "default", *, template: Obj | None = None, **spec: Any) -> Obj:
    """A NodePool. `template`: its metadata, and fields of its spec; `spec`: what is beside the template."""
    reference = {"group": names.CLOUD_GROUP, "kind": NODE_CLASSES.kind, "name": "default"}
    wanted = [{"key": names.CAPACITY_TYPE, "operator": "In", "values": ["on-demand"]}]
    fields = {"nodeClassRef": reference, "requirements": wanted, **(template or {})}
    metadata = fields.pop("metadata", {})
    return {
        "apiVersion": NODE_POOLS.group_version,
        "kind": NODE_POOLS.kind,
        "metadata": {"name": name},
        "spec": {
            "template": {"metadata": metadata, "spec": fields},
            "disruption": {"consolidateAfter": "30s"},
            **spec,
        },
    }


class Site:
    """`join`: whether machines become nodes."""

    def __init__(self, client: Client, autoscaler: Autoscaler, provider: FakeProvider, clock: RealClock) -> None:
        self.client = client
        self.autoscaler = autoscaler
        self.provider = provider
        self.clock = clock
        self.join = True

    # --- pods ------------------------------------------------------------------------------------------------------

    async def waiting(self, name: str, cpu: str = "1", **spec: Any) -> None:
        """A pod that the scheduler has refused."""
        made = pod_object(name, {"cpu": cpu}, labels={"app": name}, **spec)
        assert made.metadata is not None
        made.metadata.uid = None
        await self.client.create(made)
        await self.client.patch(
            core_v1.Pod, name, {"status": {"conditions": [REFUSED]}}, "default", subresource="status"
        )

    async def bind(self, name: str, node: str) -> None:
        """The pod runs there."""
        binding = core_v1.Binding(
            metadata=meta_v1.ObjectMeta(name=name, namespace="default"),
            target=core_v1.ObjectReference(kind="Node", name=node),
        )
        await self.client.create_subresource(core_v1.Pod, name, "default", "binding", binding)
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        await self.client.patch(core_v1.Pod, name, {"status": status}, "default", subresource="status")

    # --- what is seen ------------------------------------------------------------------------------------------------

    async def claims(self) -> list[NodeClaim]:
        return (await self.client.list(CLAIMS)).items

    async def pool(self, name: str = "default") -> NodePool:
        return await self.client.get(POOLS, name)

    async def nodes(self) -> dict[str, core_v1.Node]:
        found = (await self.client.list(core_v1.Node)).items
        return {each.metadata.name: each for each in found if each.metadata is not None and each.metadata.name}

    async def initialized(self) -> list[NodeClaim]:
        """All claims, once there are some and each has a node that can take pods."""

        async def ready() -> list[NodeClaim]:
            found = await self.claims()
            return found if found and all(each.is_true(names.INITIALIZED_CONDITION) for each in found) else []

        return await until(ready, "claims that are initialized")

    async def settled(self) -> None:
        """Wait until nothing is left: no claim, no node, no machine."""

        async def empty() -> bool:
            return not await self.claims() and not await self.nodes() and not self.provider.there

        await until(empty, "nothing is left")

    async def told(self, name: str, reason: str) -> str:
        """The message of such an event about an object of that name, once there is one."""

        async def message() -> str:
            for each in (await self.client.list(core_v1.Event)).items:
                if each.reason == reason and each.involvedObject.name == name:
                    return each.message or ""
            return ""

        return await until(message, f"{reason} about {name}")

    # --- everybody else ----------------------------------------------------------------------------------------------

    def beside(self, server: RunningApiServer) -> contextlib.AbstractAsyncContextManager[object]:
        """What else runs."""
        return contextlib.nullcontext()

    # --- kubelets ----------------------------------------------------------------------------------------------------

    async def play(self) -> None:
        """Until cancelled."""
        while True:
            with contextlib.suppress(NotFound, Conflict, AlreadyExists):
                await self._beat()
            await asyncio.sleep(BEAT)

    async def _beat(self) -> None:
        there = {each.spec.providerID for each in (await self.nodes()).values() if each.spec is not None}
        for machine in list(self.provider.there.values()):
            if self.join and machine.provider_id not in there and machine.state == "running":
                await self._join(machine)
        for each in (await self.client.list(core_v1.Pod, "default")).items:
            assert each.metadata is not None and each.metadata.name is not None
            if each.metadata.deletionTimestamp is not None:
                await self.client.delete(core_v1.Pod, each.metadata.name, "default", grace_period_seconds=0)

    async def _join(self, machine: Machine) -> None:
        order = next(each for each in self.provider.orders if each.token == machine.token)
        offer = next(each for each in self.provider.offered if each.key == machine.key)
        made = node_object(machine.name, labels={**offer.labels, **order.labels})
        assert made.spec is not None
        made.spec.providerID = machine.provider_id
        made.spec.taints = list(order.taints) or None
        await self.client.create(made)
        amounts = quantities(offer.allocatable)
        status = {"allocatable": amounts, "capacity": amounts, "conditions": [READY]}
        await self.client.patch(core_v1.Node, machine.name, {"status": status}, subresource="status")
        await until(lambda: self._lift(machine.name), "a node without the taint of its start")

    async def _lift(self, name: str) -> bool:
        """The node lifecycle controller sees that it is ready."""
        found = await self.client.get(core_v1.Node, name)
        assert found.spec is not None and found.metadata is not None
        kept = [each for each in found.spec.taints or () if each.key != "node.kubernetes.io/not-ready"]
        patch = {"spec": {"taints": msgspec.to_builtins(kept)}}
        try:
            await self.client.patch(core_v1.Node, name, patch, resource_version=found.metadata.resourceVersion)
        except Conflict:
            return False
        return True


S = TypeVar("S", bound=Site)


async def prepare(server: RunningApiServer, admin: Client) -> None:
    """Namespaces, the definitions of the kinds, and the node class `default`."""
    for made in (
        core_v1.Namespace(metadata=meta_v1.ObjectMeta(name="default")),
        core_v1.Namespace(metadata=meta_v1.ObjectMeta(name="kube-system")),
        core_v1.ServiceAccount(metadata=meta_v1.ObjectMeta(name="default", namespace="default")),
    ):
        with contextlib.suppress(AlreadyExists):
            await admin.create(made)
    rest = server.rest()
    for where, made_object in objects():
        answer = await rest.post(where, made_object)
        assert answer.status == 201, answer.body
    for definition in definitions():
        spec = definition["spec"]
        path = f"/apis/{spec['group']}/{names.VERSION}/{spec['names']['plural']}"

        async def served(path: str = path) -> bool:
            return (await rest.get(path)).status == 200

        await until(served, path)
    node_class = {
        "apiVersion": NODE_CLASSES.group_version,
        "kind": NODE_CLASSES.kind,
        "metadata": {"name": "default"},
        "spec": {"machines": "Hollow"},
    }
    await admin.create(node_class, resource=NODE_CLASSES)


@contextlib.asynccontextmanager
async def running(
    kind: type[S],
    *,
    offers: Sequence[Offering] | None = None,
    options: Options | None = None,
    scale: float = SCALE,
) -> AsyncIterator[S]:
    """Everything, with a node class `default` and no pool."""
    provider, clock = FakeProvider(offers if offers is not None else offerings()), RealClock(scale)
    async with contextlib.AsyncExitStack() as ends:
        server = await ends.enter_async_context(running_apiserver())
        admin = Client.connect(server.grpc_target, server.admin_tls)
        ends.push_async_callback(admin.close)
        await prepare(server, admin)
        client = Client.connect(server.grpc_target, server.pki.client(IDENTITY, *GROUPS), field_manager=SOURCE)
        ends.push_async_callback(client.close)
        informers = Informers(client, clock)
        autoscaler = Autoscaler(client, clock, informers, provider, options)
        site = kind(admin, autoscaler, provider, clock)
        await ends.enter_async_context(site.beside(server))
        works = (informers.run(), autoscaler.events.run(), autoscaler.run(), site.play())
        tasks = [asyncio.ensure_future(work) for work in works]
        try:
            yield site
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def running_site(scale: float = SCALE) -> contextlib.AbstractAsyncContextManager[Site]:
    """With kubelets only. The autoscaler acts in its own name, with the rights that `up` gives it."""
    return running(Site, scale=scale)
