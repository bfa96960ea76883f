"""SchedulingGates: a pod with gates waits outside the active queue until they are removed (KEP-3521)."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.framework.events import Action, EventResource, Registration
from scheduler.framework.pod_info import PodInfo


class SchedulingGates:
    """PreEnqueue."""

    name = "SchedulingGates"

    def registrations(self) -> Sequence[Registration]:
        return (Registration(EventResource.TARGET_POD, Action.UPDATE_POD_GATES),)

    def pre_enqueue(self, pod: PodInfo) -> str:
        gates = pod.spec.schedulingGates
        if not gates:
            return ""
        return f"waiting for scheduling gates: [{' '.join(gate.name for gate in gates)}]"
