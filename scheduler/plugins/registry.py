"""The table of plugins of a profile, in upstream's order and with its default weights."""

from __future__ import annotations

import random

from scheduler.framework.framework import Framework, PluginEntry
from scheduler.framework.nominations import Nominations
from scheduler.framework.pod_info import DEFAULT_SCHEDULER
from scheduler.framework.scoring import Strategy
from scheduler.plugins.balanced_allocation import BalancedAllocation
from scheduler.plugins.default_binder import CreateBinding, DefaultBinder
from scheduler.plugins.default_preemption import Budgets, DefaultPreemption, no_budgets
from scheduler.plugins.image_locality import ImageLocality
from scheduler.plugins.inter_pod_affinity import InterPodAffinity
from scheduler.plugins.node_affinity import NodeAffinity
from scheduler.plugins.node_name import NodeName
from scheduler.plugins.node_ports import NodePorts
from scheduler.plugins.node_resources_fit import NodeResourcesFit
from scheduler.plugins.node_unschedulable import NodeUnschedulable
from scheduler.plugins.node_volume_limits import NodeVolumeLimits
from scheduler.plugins.pod_topology_spread import PodTopologySpread
from scheduler.plugins.priority_sort import PrioritySort
from scheduler.plugins.scheduling_gates import SchedulingGates
from scheduler.plugins.taint_toleration import TaintToleration
from scheduler.plugins.volume_binding import VolumeBinding
from scheduler.plugins.volume_restrictions import VolumeRestrictions
from scheduler.plugins.volume_zone import VolumeZone


def default_entries(
    strategy: Strategy = Strategy.LEAST_ALLOCATED, budgets: Budgets = no_budgets, rng: random.Random | None = None
) -> list[PluginEntry]:
    """The default profile without a Bind plugin: all that a simulation needs."""
    return [
        PluginEntry(SchedulingGates()),
        PluginEntry(PrioritySort()),
        PluginEntry(NodeUnschedulable()),
        PluginEntry(NodeName()),
        PluginEntry(TaintToleration(), weight=3),
        PluginEntry(NodeAffinity(), weight=2),
        PluginEntry(NodePorts()),
        PluginEntry(NodeResourcesFit(strategy), weight=1),
        PluginEntry(VolumeRestrictions()),
        PluginEntry(NodeVolumeLimits()),
        PluginEntry(VolumeBinding()),
        PluginEntry(VolumeZone()),
        PluginEntry(PodTopologySpread(), weight=2),
        PluginEntry(InterPodAffinity(), weight=2),
        PluginEntry(DefaultPreemption(budgets, rng=rng)),
        PluginEntry(BalancedAllocation(), weight=1),
        PluginEntry(ImageLocality(), weight=1),
    ]


def default_framework(
    *,
    name: str = DEFAULT_SCHEDULER,
    strategy: Strategy = Strategy.LEAST_ALLOCATED,
    create_binding: CreateBinding | None = None,
    rng: random.Random | None = None,
    budgets: Budgets = no_budgets,
    nominations: Nominations | None = None,
) -> Framework:
    """The framework of a profile; with `create_binding` it can bind."""
    entries = default_entries(strategy, budgets, rng)
    if create_binding is not None:
        entries.append(PluginEntry(DefaultBinder(create_binding)))
    return Framework(entries, name=name, rng=rng, nominations=nominations)
