"""The node autoscaler of the simulation: cluster-autoscaler's reading, counting and planning over the simulated cloud.

A pass that could not decide anything new is left out: nothing has changed since the last one, nobody waits, and no
time that it waited for is over.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from api.models import core_v1
from cloud.model import CPU_PRICE, GIB_PRICE, instance_of, provider_id
from cluster_autoscaler.cloud_view import CloudReader, CloudView
from cluster_autoscaler.expanders import Knowledge
from cluster_autoscaler.options import GroupOptions, Options
from cluster_autoscaler.planner import Plan, Planner
from cluster_autoscaler.provider import Instance, NodeGroup, NodeRef, ProviderError, State
from cluster_autoscaler.registry import ClusterStateRegistry, Findings
from cluster_autoscaler.scale_down import Cooldown, Facts, ScaleDownPlanner
from cluster_autoscaler.simulation import Simulator
from machinery.errors import StatusError
from scheduler.framework.pod_info import PodInfo
from tests.simulation.replicas import finished
from tests.simulation.site import Site

_STATES: dict[str, State] = {
    "pending": "creating",
    "launching": "creating",
    "running": "running",
    "deleting": "deleting",
}
OUT_OF_RESOURCES, OTHER = 1, 99


class DirectCloud:
    """cluster-autoscaler's provider over the cloud's requests, without a socket between."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._requests = site.requests

    async def refresh(self) -> None:
        return

    async def close(self) -> None:
        return

    async def node_groups(self) -> list[NodeGroup]:
        return [NodeGroup(each.name, each.min, each.max) for each in self._requests.core.state.groups.values()]

    async def group_of(self, node: NodeRef) -> str:
        found = self._requests.find(node.provider_id, node.name)
        return found.group if found is not None else ""

    async def target_size(self, group: str) -> int:
        return self._requests.group(group).desired

    async def nodes(self, group: str) -> list[Instance]:
        made = []
        for each in self._requests.core.state.of(group):
            if each.phase == "gone":
                continue
            problem = each.problem
            kind = 0 if problem is None else OUT_OF_RESOURCES if problem.out_of_resources else OTHER
            code, message = (problem.code, problem.message) if problem is not None else ("", "")
            made.append(Instance(provider_id("sim", each.name), _STATES[each.phase], code, message, kind))
        return made

    async def template(self, group: str) -> core_v1.Node | None:
        return self._site.template(self._requests.group(group))

    async def options(self, group: str, defaults: GroupOptions) -> GroupOptions:
        return defaults

    async def increase_size(self, group: str, delta: int) -> None:
        self._change(lambda: self._requests.increase(self._requests.group(group), delta))

    async def decrease_target_size(self, group: str, delta: int) -> None:
        self._change(lambda: self._requests.decrease_target(self._requests.group(group), -delta))

    async def delete_nodes(self, group: str, nodes: Sequence[NodeRef]) -> None:
        names = [instance_of(each.provider_id, "sim") for each in nodes]
        self._change(
            lambda: self._requests.delete(
                self._requests.group(group), [self._requests.instance(name) for name in names]
            )
        )

    async def node_price(self, node: core_v1.Node, start: datetime, hours: float) -> float | None:
        labels = (node.metadata.labels if node.metadata is not None else None) or {}
        price = self._requests.price_by_labels(labels)
        return None if price is None else price * hours

    async def pod_price(self, pod: core_v1.Pod, start: datetime, hours: float) -> float | None:
        return (CPU_PRICE + GIB_PRICE) * hours  # one core, one GiB

    def _change(self, act: Callable[[], None]) -> None:
        try:
            act()
        except StatusError as error:
            raise ProviderError("INVALID_ARGUMENT", error.message) from error
        self._site.wake()


@dataclass
class Leaving:
    """A node that is being drained."""

    group: str
    until: float
    empty: bool


class NodeScaler:
    """One node autoscaler; `look` is one pass. `added` and `removed` are (when, group, how many)."""

    DRAIN = 35.0  # node-delete-delay-after-taint and the pods' grace

    def __init__(self, site: Site, options: Options) -> None:
        self._site = site
        self._options = options
        self.cloud = DirectCloud(site)
        self.registry = ClusterStateRegistry(options, site.clock)
        self._reader = CloudReader(self.cloud, site.clock, options.group)
        self._planner = Planner(
            Simulator(site.snapshot), options, ScaleDownPlanner(options, site.clock), random.Random(site.seed)
        )
        self._cooldown = Cooldown(options, site.now)
        self._leaving: dict[str, Leaving] = {}
        self._seen = -1
        self._next = 0.0
        self.passes = 0
        self.added: list[tuple[float, str, int]] = []
        self.removed: list[tuple[float, str, int]] = []

    def look(self) -> None:
        """A pass, when it could matter."""
        self._finish_removals()
        now = self._site.now
        if self._site.version == self._seen and now < self._next:
            return
        self.passes += 1
        self._seen = self._site.version
        plan, found = self._decide(now)
        self._mend(found)
        if self._act(now, plan):
            self._next = now
            return
        unsettled = plan.scale_up.waiting or self.registry.requests or self.registry.backoffs or self._leaving
        upcoming = sum(plan.upcoming.values())
        self._next = now if unsettled or upcoming or found.broken else self._due(now, plan)

    def _due(self, now: float, plan: Plan) -> float:
        """When a time is over that somebody waits for."""
        options = self._options
        waits = [now + options.unremovable_recheck, now + options.group.unready_time]
        for since in plan.scale_down.unneeded.values():
            ends = since + options.group.unneeded_time
            waits.append(max(ends, self._cooldown.added + options.delay_after_add))
        return min(waits)

    def _decide(self, now: float) -> tuple[Plan, Findings]:
        site = self._site
        nodes = [site.nodes[name] for name in sorted(site.nodes)]
        view = finished(self._reader.read(nodes))
        found = self.registry.update(now, view, nodes)
        if not self.registry.healthy:
            return Plan(), found
        waiting = self._planner.waiting(site.waiting)
        templates = self._planner.templates(view, nodes, ())
        plan = self._planner.plan(
            now, self.registry, templates, waiting, self._facts(now, view, nodes), self._prices(view, waiting)
        )
        return plan, found

    def _facts(self, now: float, view: CloudView, nodes: list[core_v1.Node]) -> Facts:
        allowed, why = self._cooldown.check(now)
        leaving: dict[str, int] = {}
        for each in self._leaving.values():
            leaving[each.group] = leaving.get(each.group, 0) + 1
        draining = sum(not each.empty for each in self._leaving.values())
        return Facts(
            view, nodes, (), lambda kind, ns, name: True, frozenset(self._leaving), draining, leaving, allowed, why
        )

    def _prices(self, view: CloudView, waiting: Sequence[core_v1.Pod]) -> Knowledge:
        if "price" not in self._options.expanders:
            return Knowledge()
        start = self._site.clock.now()
        nodes = {
            name: finished(self.cloud.node_price(each.template, start, 1.0)) or 0.0
            for name, each in view.groups.items()
            if each.template is not None
        }
        return Knowledge(nodes, {PodInfo.uid_of(pod): CPU_PRICE + GIB_PRICE for pod in waiting})

    def _mend(self, found: Findings) -> None:
        """Machines that cannot be had are given back."""
        for name, machines in (*found.broken.items(), *found.never_came.items()):
            group = self._site.requests.group(name)
            refs = [NodeRef(each.id, each.id) for each in machines[: max(0, group.desired - group.min)]]
            if refs:
                finished(self.cloud.delete_nodes(name, refs))
        for name, delta in found.too_high.items():
            finished(self.cloud.decrease_target_size(name, delta))

    def _act(self, now: float, plan: Plan) -> bool:
        for each in plan.scale_up.raises:
            assert each.new <= each.maximum, "raised beyond the maximum"
            finished(self.cloud.increase_size(each.group, each.new - each.old))
            self.registry.raised(now, each.group, each.new)
            self._cooldown.added = now
            self.added.append((now, each.group, each.new - each.old))
        for removal in plan.scale_down.removals:
            self._site.mark(removal.node)
            self._site.evict(removal.node)
            self._leaving[removal.node] = Leaving(removal.group, now + self.DRAIN, removal.empty)
            self.removed.append((now, removal.group, 1))
        return bool(plan.scale_up.raises or plan.scale_down.removals)

    def _finish_removals(self) -> None:
        site = self._site
        for name, each in list(self._leaving.items()):
            if site.now < each.until:
                continue
            del self._leaving[name]
            if name in site.machines:
                ref = NodeRef(provider_id("sim", name), name)
                try:
                    finished(self.cloud.delete_nodes(each.group, [ref]))
                except ProviderError:
                    self._cooldown.failed = site.now
                    continue
                self._cooldown.deleted = site.now
