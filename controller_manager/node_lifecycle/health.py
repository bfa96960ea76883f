"""Is a node reporting? Its heartbeats and Lease renewals against grace periods.

Owns: the remembered signs of life (by our own clock, because nodes' clocks are not trusted) and the conditions to write
when they stop. No I/O. Called by controller.py.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from api.models import coordination_v1, core_v1
from controller_manager.objects import condition, wall_seconds
from machinery.clock import Clock
from machinery.meta import rfc3339

READY: Final = "Ready"
WATCHED: Final = (READY, "MemoryPressure", "DiskPressure", "PIDPressure")


@dataclass(slots=True)
class SignsOfLife:
    """What was last seen of a node, and when (cluster seconds of our clock)."""

    probed: float
    heartbeat: datetime | None
    renewal: datetime | None
    posted: bool


class Verdict(NamedTuple):
    """Ready condition before and after judging, and the condition changes to write (strategic merge patch items)."""

    before: str  # "True", "False", "Unknown"
    after: str
    changes: list[dict[str, Any]]


class HealthRecords:
    """Signs of life of all nodes; forgets nodes that are gone."""

    def __init__(self, clock: Clock, grace: float, startup_grace: float) -> None:
        self._clock = clock
        self._grace = grace
        self._startup_grace = startup_grace
        self._records: dict[str, SignsOfLife] = {}

    def keep_only(self, names: set[str]) -> None:
        for name in self._records.keys() - names:
            del self._records[name]

    def restart_grace(self) -> None:
        """Give every node its full grace again: the whole cluster was silent, which was rather our own fault."""
        for record in self._records.values():
            record.probed = self._clock.monotonic()

    def judge(self, node: core_v1.Node, lease: coordination_v1.Lease | None) -> Verdict:
        """Note new signs of life; if there were none for the grace period, plan Unknown conditions."""
        now = self._clock.monotonic()
        name = node.metadata.name or ""
        ready = condition(node, READY)
        heartbeat = ready.lastHeartbeatTime if ready is not None else None
        renewal = lease.spec.renewTime if lease is not None and lease.spec is not None else None
        record = self._records.get(name)
        if record is None:
            record = self._records[name] = SignsOfLife(now, heartbeat, renewal, ready is not None)
        else:
            if (ready is not None) != record.posted or heartbeat != record.heartbeat:
                record.probed, record.heartbeat, record.posted = now, heartbeat, ready is not None
            if renewal is not None and (record.renewal is None or renewal > record.renewal):
                record.probed, record.renewal = now, renewal
        before = ready.status if ready is not None else "Unknown"
        grace = self._grace if ready is not None else self._startup_grace
        if now - record.probed <= grace:
            return Verdict(before, before, [])
        return Verdict(before, "Unknown", plan_unknown(node, self._clock))


def plan_unknown(node: core_v1.Node, clock: Clock) -> list[dict[str, Any]]:
    """Condition changes that say: nobody knows how this node is."""
    now = rfc3339(wall_seconds(clock))
    changes: list[dict[str, Any]] = []
    for type_ in WATCHED:
        current = condition(node, type_)
        if current is None:
            created = node.metadata.creationTimestamp
            changes.append(
                {
                    "type": type_,
                    "status": "Unknown",
                    "reason": "NodeStatusNeverUpdated",
                    "message": "Kubelet never posted node status.",
                    "lastHeartbeatTime": rfc3339(created) if created is not None else now,
                    "lastTransitionTime": now,
                }
            )
        elif current.status != "Unknown":
            changes.append(
                {
                    "type": type_,
                    "status": "Unknown",
                    "reason": "NodeStatusUnknown",
                    "message": "Kubelet stopped posting node status.",
                    "lastTransitionTime": now,
                }
            )
    return changes
