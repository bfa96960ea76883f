"""Nodes of this cloud's machines: who they are, when they are gone, and their drain before an interruption.

Owns spec.providerID and the labels of `cloud.model.node_labels`, the deletion of Nodes whose machine is gone (the cloud
node lifecycle), and the termination handler: taint, cordon, evict within the notice. Decides nothing about machines.
"""

from __future__ import annotations

from typing import Any, Final

from api.models import core_v1
from client.client import Client, PatchType
from client.controller import DONE, Controller, Result
from client.events import NORMAL, WARNING, EventRecorder
from client.informer import Informers
from cloud.core import Told
from cloud.engine import Engine
from cloud.model import GROUP_LABEL, Instance, instance_of, node_labels, provider_id
from cloud.node import NODES, Node, Spec
from cloud.termination import Drain
from machinery.clock import Clock
from machinery.errors import NotFound
from machinery.meta import ObjectKey

NAME: Final = "cloud-node-lifecycle-controller"
INTERRUPTION: Final = "nanokube.io/spot-interruption"
DRAIN_RETRY: Final = 5.0


class NodeController:
    """One key per Node name."""

    def __init__(
        self, client: Client, informers: Informers, clock: Clock, engine: Engine, events: EventRecorder, drain: Drain
    ) -> None:
        self._client = client
        self._clock = clock
        self._engine = engine
        self._events = events
        self._drain = drain
        self._nodes = informers.informer(NODES)
        self._known: dict[str, tuple[str, float | None]] = {}
        self.controller = Controller("cloud-nodes", self.reconcile, clock=clock, informers=[self._nodes], workers=4)
        self.controller.watches(self._nodes)

    def passed(self, told: list[Told]) -> None:
        """The engine has had a look: queue the nodes of instances that changed, and say what there is to say."""
        now: dict[str, tuple[str, float | None]] = {
            name: (each.phase, each.notice) for name, each in self._engine.core.state.instances.items()
        }
        for name in now.keys() | self._known.keys():
            if now.get(name) != self._known.get(name):
                self.controller.enqueue(ObjectKey("", name))
        self._known = now
        for each in told:
            self._tell(each.instance, each.warning, each.reason, each.message)

    def _tell(self, name: str, warning: bool, reason: str, message: str) -> None:
        node = self._nodes.lister.get(ObjectKey("", name))
        uid = node.metadata.uid if node is not None else ""
        about = core_v1.ObjectReference(apiVersion="v1", kind="Node", name=name, uid=uid)
        self._events.event(about, WARNING if warning else NORMAL, reason, message)

    async def reconcile(self, key: ObjectKey) -> Result:
        node = self._nodes.lister.get(key)
        if node is None:
            return DONE
        state = self._engine.core.state
        spec = node.spec or Spec()
        name = instance_of(spec.providerID, state.cluster) if spec.providerID else key.name
        instance = state.instances.get(name)
        if not spec.providerID:
            if instance is not None and instance.phase != "gone":
                await self._introduce(node, instance)
            elif instance is not None and (node.metadata.labels or {}).get(GROUP_LABEL) == instance.group:
                await self._remove(node)  # it registered once more while its machine went
            return DONE
        if name and (instance is None or instance.phase == "gone"):
            await self._remove(node)
            return DONE
        if instance is not None and instance.notice is not None and instance.phase == "running":
            return await self._prepare(node, instance)
        return DONE

    async def _introduce(self, node: Node, instance: Instance) -> None:
        """Tell the Node which machine it is; labels that somebody has set stay as they are."""
        group = self._engine.core.state.group_of(instance)
        wanted = node_labels(group, instance.zone) if group is not None else {}
        present = node.metadata.labels or {}
        patch: dict[str, Any] = {
            "metadata": {"labels": {label: value for label, value in wanted.items() if label not in present}},
            "spec": {"providerID": provider_id(self._engine.core.state.cluster, instance.name)},
        }
        await self._client.patch(core_v1.Node, node.metadata.name, patch)

    async def _remove(self, node: Node) -> None:
        name = node.metadata.name
        self._tell(name, False, "DeletingNode", f"Deleting node {name} because it does not exist in the cloud provider")
        try:
            await self._client.delete(core_v1.Node, name, uid=node.metadata.uid or None)
        except NotFound:
            return

    async def _prepare(self, node: Node, instance: Instance) -> Result:
        """A machine that will be taken away: nothing new on it, and what is there moves while there is time."""
        name, spec = node.metadata.name, node.spec or Spec()
        left = (instance.notice or 0.0) - self._engine.now()
        if not any(each.key == INTERRUPTION for each in spec.taints or ()):
            self._tell(name, True, "SpotInterruption", f"The machine will be taken away in {max(left, 0):.0f} s")
            taint = {"key": INTERRUPTION, "value": "terminating", "effect": "NoSchedule"}
            patch = {"spec": {"unschedulable": True, "taints": [taint]}}
            await self._client.patch(core_v1.Node, name, patch, type=PatchType.STRATEGIC)
        if await self._drain.evict(name):
            return DONE
        return Result(requeue_after=min(DRAIN_RETRY, max(left, 0.1)))
