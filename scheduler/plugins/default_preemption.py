"""DefaultPreemption: says for a pod that fits nowhere whether removing pods could make room.

It names the nodes where that cannot help and those where no victim was found; it selects and evicts no victims.
Nodes with pods of lower priority count as nodes without victims for that reason.
"""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.framework.decision import FitError, available_message
from scheduler.framework.events import Action, EventResource, Registration
from scheduler.framework.interface import PostFilterResult
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot

NEVER = "not eligible due to preemptionPolicy=Never."
NOT_HELPFUL = "Preemption is not helpful for scheduling"
NO_VICTIMS = "No preemption victims found for incoming pod"


class DefaultPreemption:
    """PostFilter."""

    name = "DefaultPreemption"

    def registrations(self) -> Sequence[Registration]:
        return (Registration(EventResource.ASSIGNED_POD, Action.DELETE),)

    def post_filter(self, pod: PodInfo, snapshot: ClusterSnapshot, error: FitError) -> PostFilterResult | None:
        if pod.spec.preemptionPolicy == "Never":
            return PostFilterResult(f"preemption: {NEVER}")
        tried = error.resolvable_count()
        counts = {NO_VICTIMS: tried, NOT_HELPFUL: error.node_count - tried}
        told = {reason: count for reason, count in counts.items() if count}
        return PostFilterResult(f"preemption: {available_message(error.node_count, told)}")
