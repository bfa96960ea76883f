"""One decision: from what the cluster and the cloud are, what to add and what to take away. No I/O.

Runs on a fork of the snapshot from start to end: upcoming nodes are added, waiting pods that have room (or will) are
placed, and only what is left asks for more.
"""
# mypy: disable-error-code="union-attr"

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from api.models import apps_v1, core_v1
from cluster_autoscaler import expanders, scale_up, templates
from cluster_autoscaler import node_facts as facts
from cluster_autoscaler.cloud_view import CloudView
from cluster_autoscaler.expanders import Knowledge, Option
from cluster_autoscaler.options import Options
from cluster_autoscaler.pod_groups import grouped, is_waiting
from cluster_autoscaler.registry import ClusterStateRegistry
from cluster_autoscaler.scale_down import Facts, ScaleDown, ScaleDownPlanner
from cluster_autoscaler.scale_up import Resources, ScaleUp
from cluster_autoscaler.simulation import Simulator
from cluster_autoscaler.templates import Template
from scheduler.framework.pod_info import PodInfo


@dataclass(slots=True)
class Plan:
    """`upcoming`: nodes that were counted on, by group; `room`: nodes, upcoming ones too, on which waiting pods
    have room already, by the pods' keys."""

    scale_up: ScaleUp = field(default_factory=ScaleUp)
    scale_down: ScaleDown = field(default_factory=ScaleDown)
    templates: dict[str, Template] = field(default_factory=dict)
    upcoming: dict[str, int] = field(default_factory=dict)
    room: dict[str, str] = field(default_factory=dict)


class Planner:
    """Over one snapshot; remembers what the scale-down planner does."""

    def __init__(self, simulator: Simulator, options: Options, scale_down: ScaleDownPlanner, rng: random.Random):
        self._simulator = simulator
        self._options = options
        self._scale_down = scale_down
        self._rng = rng

    def templates(
        self, view: CloudView, nodes: Sequence[core_v1.Node], daemons: Sequence[apps_v1.DaemonSet]
    ) -> dict[str, Template]:
        """The next node of each group, where anything tells what it is."""
        ours: dict[str, list[core_v1.Node]] = {}
        for node in nodes:
            ours.setdefault(view.group_of.get(facts.name(node), ""), []).append(node)
        found = {
            name: templates.make(self._simulator, name, ours.get(name, ()), group.template, daemons)
            for name, group in view.groups.items()
        }
        return {name: each for name, each in found.items() if each is not None}

    def waiting(self, pods: Sequence[core_v1.Pod], oldest: datetime | None = None) -> list[core_v1.Pod]:
        """Pods that want a node, the most important first."""
        found = [pod for pod in pods if is_waiting(pod, self._options.expendable_cutoff, oldest)]
        return sorted(found, key=lambda pod: (-(pod.spec.priority or 0), pod.metadata.namespace, pod.metadata.name))

    def plan(
        self,
        now: float,
        registry: ClusterStateRegistry,
        made: Mapping[str, Template],
        waiting: Sequence[core_v1.Pod],
        known: Facts,
        prices: Knowledge,
    ) -> Plan:
        """`draft` and `settle` in one, where all expanders are ours."""
        plan = self.draft(now, registry, made, waiting, known)
        self.settle(plan, expanders.best(plan.scale_up.options, self._options.expanders, prices, self._rng), known)
        return plan

    def draft(
        self,
        now: float,
        registry: ClusterStateRegistry,
        made: Mapping[str, Template],
        waiting: Sequence[core_v1.Pod],
        known: Facts,
    ) -> Plan:
        """What could be added, and what taken away (`known.allowed` is about that)."""
        plan = Plan(templates=dict(made))
        simulator = self._simulator
        with simulator.fork():
            self._make_room(simulator)
            plan.upcoming = self._add_upcoming(registry, made)
            short = self._place(waiting, plan)
            plan.scale_up = scale_up.options_for(
                simulator,
                self._options,
                known.view.groups,
                registry.blocked(now, known.view.groups, scale_up.BACKOFF, scale_up.NOT_READY),
                made,
                short,
                self._there(known, made, plan.upcoming),
                {name: registry.expected(view) for name, view in known.view.groups.items()},
            )
            if self._options.scale_down_enabled:
                plan.scale_down = self._scale_down.plan(now, simulator, known)
        return plan

    def settle(self, plan: Plan, best: Option | None, known: Facts) -> None:
        """Add this; nothing is taken away in a pass that adds."""
        scale_up.take(plan.scale_up, best, known.view.groups)
        if plan.scale_up.raises:
            plan.scale_down.removals.clear()

    def _make_room(self, simulator: Simulator) -> None:
        """Expendable pods give way to any other."""
        snapshot, cutoff = simulator.snapshot, self._options.expendable_cutoff
        for record in [each for each in snapshot.records if each is not None]:
            for info in [each for each in record.pods.values() if each.priority < cutoff]:
                snapshot.remove_pod(info.uid)

    def _add_upcoming(self, registry: ClusterStateRegistry, made: Mapping[str, Template]) -> dict[str, int]:
        found: dict[str, int] = {}
        for name, template in made.items():
            counts = registry.counts.get(name)
            for number in range(counts.upcoming if counts is not None else 0):
                template.add_to(self._simulator, f"{facts.name(template.node)}-upcoming-{number}")
                found[name] = found.get(name, 0) + 1
        return found

    def _place(self, waiting: Sequence[core_v1.Pod], plan: Plan) -> list[PodInfo]:
        """Those without room now or soon. A pod that was promised a node waits there for those it displaces."""
        snapshot = self._simulator.snapshot
        infos = []
        for pod in waiting:
            info = PodInfo(pod)
            if info.nominated_node and snapshot.column(info.nominated_node) is not None:
                snapshot.add_pod(info, info.nominated_node)
                plan.room[info.key] = info.nominated_node
            else:
                infos.append(info)
        short: list[PodInfo] = []
        for group in grouped(self._simulator.framework, infos):
            for number, info in enumerate(group.pods):
                node = self._simulator.place(info)
                if not node:
                    short.extend(group.pods[number:])
                    break
                plan.room[info.key] = node
        return short

    @staticmethod
    def _there(known: Facts, made: Mapping[str, Template], upcoming: Mapping[str, int]) -> Resources:
        offered = [facts.allocatable(node) for node in known.nodes if facts.name(node) not in known.busy]
        for name, count in upcoming.items():
            offered += [facts.allocatable(made[name].node)] * count
        return Resources.of(offered)
