"""What an informer's update of a node or pod means to scheduling. Pure; called by the scheduler's event handlers."""

from __future__ import annotations

from api.models import core_v1
from scheduler.framework import node_facts
from scheduler.framework.events import Action
from scheduler.framework.pod_info import PodInfo

NOTHING = Action(0)


def node_change(old: core_v1.Node, new: core_v1.Node) -> Action:
    """Heartbeats, addresses and the like are no change."""
    action = NOTHING
    if node_facts.allocatable(old) != node_facts.allocatable(new):
        action |= Action.UPDATE_NODE_ALLOCATABLE
    if node_facts.labels(old) != node_facts.labels(new):
        action |= Action.UPDATE_NODE_LABEL
    if node_facts.taints(old) != node_facts.taints(new) or node_facts.unschedulable(old) != node_facts.unschedulable(
        new
    ):
        action |= Action.UPDATE_NODE_TAINT
    return action


def pod_change(old: PodInfo, new: PodInfo) -> Action:
    """Status and annotations are no change; resizes count what the scheduler counts."""
    action = NOTHING
    before, after = old.spec, new.spec
    # A pod that is being deleted no longer counts for spreading, as if its labels had changed.
    if old.labels != new.labels or old.terminating != new.terminating:
        action |= Action.UPDATE_POD_LABEL
    if any(amount > new.requests.get(name, 0) for name, amount in old.requests.items()):
        action |= Action.UPDATE_POD_SCALE_DOWN
    if before.tolerations != after.tolerations:
        action |= Action.UPDATE_POD_TOLERATION
    if len(before.schedulingGates or ()) > len(after.schedulingGates or ()):
        action |= Action.UPDATE_POD_GATES
    if before.nodeSelector != after.nodeSelector or before.affinity != after.affinity:
        action |= Action.UPDATE_OTHER
    return action
