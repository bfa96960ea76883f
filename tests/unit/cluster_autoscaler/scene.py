"""A cluster and a cloud as plain facts, on the virtual clock: what decisions are made from."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

from api.models import apps_v1, core_v1, meta_v1
from cluster_autoscaler.cloud_view import CloudView, GroupView
from cluster_autoscaler.expanders import Knowledge
from cluster_autoscaler.options import Options
from cluster_autoscaler.planner import Plan, Planner
from cluster_autoscaler.provider import Instance, NodeGroup
from cluster_autoscaler.registry import ClusterStateRegistry, Findings
from cluster_autoscaler.scale_down import Cooldown, Facts, ScaleDownPlanner
from cluster_autoscaler.simulation import Simulator
from machinery.clock import VirtualClock
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.preemption import Budget
from scheduler.framework.snapshot import ClusterSnapshot
from tests.unit.scheduler.objects import node as node_object
from tests.unit.scheduler.objects import pod as pod_object

READY = core_v1.NodeCondition(type="Ready", status="True")
REFUSED = core_v1.PodStatus(
    conditions=[core_v1.PodCondition(type="PodScheduled", status="False", reason="Unschedulable")]
)


class Scene:
    """Groups, nodes and pods; `decide` is one pass, `act` carries it out at once."""

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()
        self.clock = VirtualClock()
        self.snapshot = ClusterSnapshot()
        self.simulator = Simulator(self.snapshot)
        self.registry = ClusterStateRegistry(self.options, self.clock)
        self.planner = Planner(
            self.simulator, self.options, ScaleDownPlanner(self.options, self.clock), random.Random(1)
        )
        self.cooldown = Cooldown(self.options, self.now)
        self.view = CloudView()
        self.nodes: dict[str, core_v1.Node] = {}
        self.waiting: list[core_v1.Pod] = []
        self.daemons: list[apps_v1.DaemonSet] = []
        self.budgets: list[Budget] = []
        self.knowledge = Knowledge()
        self.found = Findings()
        self._sizes: dict[str, dict[str, Any]] = {}
        self._made = 0

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    def group(self, name: str, least: int, most: int, **amounts: Any) -> str:
        """`amounts`: cpu, memory, labels, taints of its nodes; `whole`: it has all nodes or none."""
        options = replace(self.options.group, zero_or_max=amounts.pop("whole", False))
        self._sizes[name] = amounts
        template = node_object(f"template-{name}", **self._kind(name))
        assert template.status is not None
        template.status.conditions = [READY]
        self.view.groups[name] = GroupView(NodeGroup(name, least, most), 0, [], options, template)
        return name

    def _kind(self, group: str) -> dict[str, Any]:
        amounts = dict(self._sizes[group])
        labels = {"group": group, **amounts.pop("labels", {})}
        return {"cpu": "2", "memory": "4Gi", "labels": labels, **amounts}

    def node(self, group: str, *, ready: bool = True, age: float = 3600.0, count: bool = True) -> str:
        """A node of the group, which has one more in its target (`count`)."""
        self._made += 1
        name = f"{group}-{self._made}"
        made = node_object(name, **self._kind(group))
        assert made.metadata is not None and made.spec is not None and made.status is not None
        made.metadata.creationTimestamp = self.clock.now() - timedelta(seconds=age)
        made.spec.providerID = f"fake://{name}"
        made.status.conditions = [READY if ready else core_v1.NodeCondition(type="Ready", status="False")]
        self.set_node(made)
        view = self.view.groups[group]
        self.view.group_of[name] = group
        view.instances.append(Instance(f"fake://{name}", "running"))
        view.target += count
        return name

    def set_node(self, node: core_v1.Node) -> None:
        assert node.metadata is not None and node.metadata.name is not None
        self.nodes[node.metadata.name] = node
        self.snapshot.set_node(node)

    def remove_node(self, name: str) -> None:
        """The cloud took it away; its pods are gone."""
        record = self.snapshot.record(name)
        for uid in list(record.pods) if record is not None else ():
            self.snapshot.remove_pod(uid)
        self.snapshot.remove_node(name)
        del self.nodes[name]
        view = self.view.groups[self.view.group_of.pop(name)]
        view.instances = [each for each in view.instances if each.id != f"fake://{name}"]
        view.target -= 1

    def pod(
        self,
        name: str,
        cpu: str = "1",
        memory: str = "128Mi",
        *,
        node: str = "",
        owner: str = "web",
        kind: str = "ReplicaSet",
        annotations: dict[str, str] | None = None,
        **rest: Any,
    ) -> core_v1.Pod:
        """On a node, or waiting."""
        made = pod_object(name, {"cpu": cpu, "memory": memory}, labels=rest.pop("labels", {"app": owner}), **rest)
        assert made.metadata is not None and made.spec is not None
        made.metadata.annotations = annotations
        if owner:
            made.metadata.ownerReferences = [
                meta_v1.OwnerReference(apiVersion="apps/v1", kind=kind, name=owner, uid=owner, controller=True)
            ]
        if node:
            made.spec.nodeName = node
            self.snapshot.add_pod(PodInfo(made), node)
        else:
            made.status = REFUSED
            self.waiting.append(made)
        return made

    def update(self) -> Findings:
        self.found = self.registry.update(self.now, self.view, list(self.nodes.values()))
        return self.found

    def decide(self) -> Plan:
        """One pass, nothing carried out."""
        self.update()
        nodes = [self.nodes[name] for name in sorted(self.nodes)]
        allowed, why = self.cooldown.check(self.now)
        facts = Facts(self.view, nodes, self.budgets, lambda kind, ns, name: True, allowed=allowed, why_not=why)
        return self.planner.plan(
            self.now,
            self.registry,
            self.planner.templates(self.view, nodes, self.daemons),
            self.planner.waiting(self.waiting),
            facts,
            self.knowledge,
        )

    def schedule(self) -> None:
        """What the scheduler does with waiting pods that have room."""
        left = []
        for pod in self.waiting:
            info = PodInfo(pod)
            node = self.simulator.place(info)
            if not node:
                left.append(pod)
                continue
            self.snapshot.remove_pod(info.uid)
            assert pod.spec is not None
            pod.spec.nodeName, pod.status = node, None
            self.snapshot.add_pod(PodInfo(pod), node)
        self.waiting = left

    def act(self, plan: Plan) -> None:
        """Machines come and go at once, evicted pods wait again."""
        for each in plan.scale_up.raises:
            for _ in range(each.new - each.old):
                self.node(each.group, age=0.0)
            self.registry.raised(self.now, each.group, each.new)
            self.cooldown.added = self.now
        for removal in plan.scale_down.removals:
            for info in removal.moving:
                assert info.pod.spec is not None
                info.pod.spec.nodeName, info.pod.status = None, REFUSED
                self.waiting.append(info.pod)
            self.remove_node(removal.node)
            self.cooldown.deleted = self.now
        self.schedule()

    async def passes(self, seconds: float) -> list[Plan]:
        """Decide and act every scan interval for so long."""
        plans = []
        for _ in range(int(seconds / self.options.scan_interval)):
            plans.append(self.decide())
            self.act(plans[-1])
            await self.clock.advance(self.options.scan_interval, settle=1)
        return plans
