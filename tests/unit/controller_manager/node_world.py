"""Nodes, leases and pods in memory on a virtual clock: what the controllers around dead nodes read and write.

Only what these controllers do is understood: patches of conditions, taints and phases, deletions of pods. Living nodes
renew their leases and confirm deletions; dead ones do nothing at all.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import Mock

import msgspec

from api.models import coordination_v1, core_v1
from client.client import key_of
from client.informer import EventHandler
from client.listers import BY_NODE, Lister, pod_node
from controller_manager.environment import Options
from controller_manager.node_lifecycle.controller import NodeLifecycleController
from controller_manager.pod_gc import PodGarbageCollector
from controller_manager.taint_eviction import TaintEvictionController
from machinery.clock import VirtualClock
from machinery.errors import NotFound
from machinery.meta import ObjectKey, rfc3339
from tests.unit.controller_manager.builders import node, pod

TOLERATED = [
    core_v1.Toleration(key=f"node.kubernetes.io/{why}", operator="Exists", effect="NoExecute", tolerationSeconds=300)
    for why in ("not-ready", "unreachable")
]


class Informer:
    """A cache that is always in sync."""

    disconnects = 0

    def __init__(self, resource: Any) -> None:
        self.resource, self.selective = resource, True
        self.lister: Lister[Any] = Lister({BY_NODE: pod_node} if resource is core_v1.Pod else {})
        self._handlers: list[EventHandler[Any]] = []

    async def wait_synced(self) -> None:
        return None

    def add_handler(self, handler: EventHandler[Any]) -> None:
        self._handlers.append(handler)

    def put(self, obj: Any) -> None:
        old = self.lister.put(key_of(obj), obj)
        for each in self._handlers:
            if old is None:
                each.on_add and each.on_add(obj)
            else:
                each.on_update and each.on_update(old, obj)

    def remove(self, key: ObjectKey) -> None:
        old = self.lister.remove(key)
        for each in self._handlers:
            if old is not None and each.on_delete:
                each.on_delete(old)


class World:
    """The cluster; `evicted` and `tainted` tell when (cluster seconds) which pod and node was given up."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.informers = {each: Informer(each) for each in (core_v1.Node, core_v1.Pod, coordination_v1.Lease)}
        self.nodes, self.pods = self.informers[core_v1.Node], self.informers[core_v1.Pod]
        self.alive: set[str] = set()
        self.evicted: dict[str, float] = {}
        self.tainted: dict[str, float] = {}
        env = Mock(clock=self.clock, options=Options(), client=self)
        env.informers.informer = lambda kind, **_: self.informers[kind]
        self.lifecycle = NodeLifecycleController(env)
        self.eviction = TaintEvictionController(env)
        self.collector = PodGarbageCollector(env)

    def add(self, zone: str, count: int) -> list[str]:
        """Living nodes of a zone, a pod with the usual tolerations on each."""
        names = [f"{zone}{number}" for number in range(count)]
        for name in names:
            made = node(name, labels={"topology.kubernetes.io/zone": zone})
            self.nodes.put(made)
            self.pods.put(pod(f"on-{name}", ready=True, node=name, tolerations=TOLERATED))
        self.alive |= set(names)
        return names

    def die(self, *names: str) -> None:
        self.alive -= set(names)

    def recover(self, *names: str) -> None:
        """The kubelet is back: it reports, and ends the pods that were deleted meanwhile."""
        self.alive |= set(names)
        for name in names:
            current = self.node(name)
            back = msgspec.json.decode(msgspec.json.encode(current), type=core_v1.Node)
            assert back.status
            now = self.clock.now()
            back.status.conditions = [core_v1.NodeCondition(type="Ready", status="True", lastHeartbeatTime=now)]
            self.nodes.put(back)
            for each in self.pods.lister.by_index(BY_NODE, name):
                if each.metadata.deletionTimestamp is not None:
                    self.pods.remove(key_of(each))

    async def advance(self, seconds: float) -> None:
        """Let time pass, with turns enough for a pass over all nodes to end before the next begins."""
        await self.clock.advance(seconds, settle=20 + 4 * len(self.nodes.lister))

    def node(self, name: str) -> Any:
        return self.nodes.lister.get(ObjectKey("", name))

    def pod(self, name: str) -> Any:
        """The pod, or None once it is gone."""
        return self.pods.lister.get(ObjectKey("default", name))

    def no_execute(self, name: str) -> bool:
        return any(t.effect == "NoExecute" for t in self.node(name).spec.taints or ())

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        loops = [self._renew(), self.lifecycle.run(), self.lifecycle.controller.run()]
        tasks = [asyncio.ensure_future(each) for each in [*loops, self.eviction.controller.run(), self.collector.run()]]
        try:
            await self.advance(20)
            yield
        finally:
            for task in tasks:
                assert not task.done(), task.result()
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _renew(self) -> None:
        leases = self.informers[coordination_v1.Lease]
        while True:
            for name in self.alive:
                lease = coordination_v1.Lease(spec=coordination_v1.LeaseSpec(renewTime=self.clock.now()))
                leases.lister.put(ObjectKey("kube-node-lease", name), lease)
            await self.clock.sleep(10)

    # The client

    async def get(self, kind: Any, name: str, namespace: str = "") -> Any:
        found = self.informers[kind].lister.get(ObjectKey(namespace, name))
        if found is None:
            raise NotFound(name)
        return found

    async def patch(self, kind: Any, name: str, patch: Any, namespace: str = "", **_: Any) -> Any:
        before = await self.get(kind, name, namespace)
        plain: Any = msgspec.to_builtins(before)
        spec, status = patch.get("spec", {}), patch.get("status", {})
        if "taints" in spec:
            plain["spec"]["taints"] = spec["taints"]
        changed = {each["type"]: each for each in status.get("conditions", ())}
        known = {each["type"]: each for each in plain["status"].get("conditions") or ()}
        merged = {type_: {**known.get(type_, {}), **changed.get(type_, {})} for type_ in {**known, **changed}}
        plain["status"]["conditions"] = list(merged.values())
        plain["status"].update({"phase": status["phase"]} if "phase" in status else {})
        made = msgspec.convert(plain, kind)
        had = kind is core_v1.Node and self.no_execute(name)
        self.informers[kind].put(made)
        if kind is core_v1.Node and not had and self.no_execute(name):
            self.tainted[name] = self.clock.monotonic()
        return made

    async def delete(
        self, kind: Any, name: str, namespace: str = "", *, grace_period_seconds: int | None = None, **_: Any
    ) -> None:
        found = await self.get(kind, name, namespace)
        self.evicted.setdefault(name, self.clock.monotonic())
        if grace_period_seconds == 0 or found.spec.nodeName in self.alive:
            self.pods.remove(key_of(found))
            return
        plain: Any = msgspec.to_builtins(found)
        plain["metadata"]["deletionTimestamp"] = rfc3339(self.clock.now())
        self.pods.put(msgspec.convert(plain, kind))
