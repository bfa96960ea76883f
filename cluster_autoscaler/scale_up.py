"""Which group to raise, by how much, for whom; and why not for the others. Pure.

One raise is decided per pass (over similar groups when they are balanced); the next pass sees its nodes as upcoming.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cluster_autoscaler import node_facts as facts
from cluster_autoscaler import similar
from cluster_autoscaler.cloud_view import GroupView
from cluster_autoscaler.estimator import estimate
from cluster_autoscaler.expanders import Option
from cluster_autoscaler.options import Options
from cluster_autoscaler.pod_groups import PodGroup, grouped
from cluster_autoscaler.simulation import Simulator
from cluster_autoscaler.templates import Template
from scheduler.framework import resources
from scheduler.framework.pod_info import PodInfo

BACKOFF: Final = "in backoff after failed scale-up"
MAX_SIZE: Final = "max node group size reached"
NOT_READY: Final = "not ready for scale-up"
MAX_LIMIT: Final = "max cluster {} limit reached"
NO_ROOM_FOR_ALL: Final = "limits leave no room for all nodes of the group, which has all or none"
GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Resources:
    """What the whole cluster has, upcoming nodes included: nodes, cores, bytes."""

    nodes: int = 0
    cores: float = 0.0
    memory: int = 0

    @classmethod
    def of(cls, offered: Sequence[Mapping[str, int]]) -> Resources:
        return cls(
            len(offered),
            sum(each.get(resources.CPU, 0) for each in offered) / 1000,
            sum(each.get(resources.MEMORY, 0) for each in offered),
        )


@dataclass(frozen=True, slots=True)
class Raise:
    """Set `group` from `old` to `new` nodes."""

    group: str
    old: int
    new: int
    maximum: int

    def __str__(self) -> str:
        return f"{{{self.group} {self.old}->{self.new} (max: {self.maximum})}}"


@dataclass(slots=True)
class ScaleUp:
    """`refused`: for each pod that stays without, reasons by group. `skipped`: reasons of groups that took no part."""

    raises: list[Raise] = field(default_factory=list)
    pods: tuple[PodInfo, ...] = ()
    waiting: list[PodInfo] = field(default_factory=list)
    refused: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    skipped: dict[str, tuple[str, ...]] = field(default_factory=dict)
    options: list[Option] = field(default_factory=list)
    sizes: Mapping[str, int] = field(default_factory=dict)
    chosen: str = ""

    def message(self, uid: str) -> str:
        """Why nothing is done for the pod: `pod didn't trigger scale-up: 1 Insufficient cpu, …`."""
        counts: Counter[str] = Counter()
        for reasons in (*self.refused.get(uid, {}).values(), *self.skipped.values()):
            counts.update(reasons)
        told = ", ".join(sorted(f"{count} {reason}" for reason, count in counts.items()))
        return f"pod didn't trigger scale-up: {told}"


def room_for(options: Options, there: Resources, template: Template) -> tuple[int, tuple[str, ...]]:
    """How many nodes like the template the limits of the cluster leave, and what limits when none."""
    offered = facts.allocatable(template.node)
    left: dict[str, float] = {}
    if options.max_nodes_total > 0:
        left["node count"] = options.max_nodes_total - there.nodes
    cores, memory = offered.get(resources.CPU, 0) / 1000, offered.get(resources.MEMORY, 0)
    if cores:
        left["cpu"] = (options.cores_total[1] - there.cores) // cores
    if memory:
        left["memory"] = (options.memory_total[1] * GIB - there.memory) // memory
    room = max(0, int(min(left.values(), default=options.max_nodes_per_scale_up)))
    return room, tuple(MAX_LIMIT.format(name) for name, each in left.items() if each < 1)


def options_for(
    simulator: Simulator,
    options: Options,
    groups: Mapping[str, GroupView],
    blocked: Mapping[str, str],
    templates: Mapping[str, Template],
    waiting: Sequence[PodInfo],
    there: Resources,
    sizes: Mapping[str, int] | None = None,
) -> ScaleUp:
    """What could be raised; nothing is taken yet.

    `waiting`: pods that fit on no node, upcoming ones included; `blocked`: groups that must not grow now, and why;
    `sizes`: what each group is about to have, where that is more than its target says.
    """
    result = ScaleUp(waiting=list(waiting))
    if not waiting:
        return result
    pod_groups = grouped(simulator.framework, waiting)
    size = {name: max(view.target, (sizes or {}).get(name, 0)) for name, view in groups.items()}
    room: dict[str, int] = {}
    fits: dict[str, list[PodGroup]] = {}
    for name, view in groups.items():
        template = templates.get(name)
        if name in blocked:
            result.skipped[name] = (blocked[name],)
        elif size[name] >= view.group.max_size:
            result.skipped[name] = (MAX_SIZE,)
        elif template is None:
            result.skipped[name] = (NOT_READY,)
        else:
            limit, why = room_for(options, there, template)
            if why:
                result.skipped[name] = why
                continue
            room[name] = min(limit, options.max_nodes_per_scale_up)
            if view.options.zero_or_max and room[name] < view.group.max_size - size[name]:
                result.skipped[name] = (NO_ROOM_FOR_ALL,)
                continue
            fits[name] = _fitting(simulator, template, pod_groups, result)
    for name, found in fits.items():
        if not found:
            continue
        made = _option(simulator, options, name, groups, size, room, templates, fits, found)
        if made is not None:
            result.options.append(made)
    result.sizes = size
    return result


def take(result: ScaleUp, best: Option | None, groups: Mapping[str, GroupView]) -> None:
    """Of what could be raised, this."""
    if best is not None:
        result.chosen, result.pods = best.group, best.pods
        result.raises = _raises(best, groups, result.sizes)


def _fitting(
    simulator: Simulator, template: Template, pod_groups: Sequence[PodGroup], result: ScaleUp
) -> list[PodGroup]:
    """Those that would fit on a fresh node; reasons of the others are noted."""
    name = facts.name(template.node)
    found: list[PodGroup] = []
    with simulator.fork():
        template.add_to(simulator, name)
        for group in pod_groups:
            if simulator.fits_on(group.sample, name):
                found.append(group)
                continue
            reasons = simulator.reasons(group.sample, name)
            for info in group.pods:
                result.refused.setdefault(info.uid, {})[template.group] = reasons
    return found


def _option(
    simulator: Simulator,
    options: Options,
    name: str,
    groups: Mapping[str, GroupView],
    size: Mapping[str, int],
    room: Mapping[str, int],
    templates: Mapping[str, Template],
    fits: Mapping[str, list[PodGroup]],
    found: list[PodGroup],
) -> Option | None:
    peers: list[str] = []
    whole = groups[name].options.zero_or_max
    if options.balance_similar_node_groups and not whole:
        wanted = {id(group) for group in found}
        peers = [
            other
            for other in fits
            if other != name
            and not groups[other].options.zero_or_max
            and similar.alike(templates[name], templates[other])
            and wanted <= {id(group) for group in fits[other]}
        ]
    growth = sum(groups[each].group.max_size - size[each] for each in (name, *peers))
    most = min(growth, room[name])
    made = estimate(simulator, templates[name], found, most, options.max_binpacking_seconds)
    if not made.nodes:
        return None
    return Option(name, growth if whole else made.nodes, made.pods, templates[name], tuple(peers))


def _raises(best: Option, groups: Mapping[str, GroupView], size: Mapping[str, int]) -> list[Raise]:
    order = (best.group, *best.similar)
    bounds = {name: (size[name], groups[name].group.max_size) for name in order}
    shares = similar.balanced(best.nodes, bounds, order)
    return [
        Raise(name, size[name], size[name] + more, groups[name].group.max_size) for name, more in shares.items() if more
    ]
