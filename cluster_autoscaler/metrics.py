"""The autoscaler's metrics, by cluster-autoscaler's names. Owns the counters; read when scraped."""

from __future__ import annotations

from collections import Counter
from typing import Final

from cluster_autoscaler.registry import ClusterStateRegistry
from machinery.health import HealthServer

PREFIX: Final = "cluster_autoscaler"


class Metrics:
    """Counters of one process."""

    def __init__(self, registry: ClusterStateRegistry) -> None:
        self._registry = registry
        self.counts: Counter[str] = Counter()
        self.unschedulable = 0
        self.unneeded = 0
        self.node_groups = 0
        self.pass_seconds = 0.0
        self._health: HealthServer | None = None

    def expose(self, health: HealthServer) -> None:
        """Everything that is there from the start."""
        self._health = health
        health.metric(f"{PREFIX}_cluster_safe_to_autoscale", lambda: float(self._registry.healthy))
        health.metric(f"{PREFIX}_unschedulable_pods_count", lambda: float(self.unschedulable))
        health.metric(f"{PREFIX}_unneeded_nodes_count", lambda: float(self.unneeded))
        health.metric(f"{PREFIX}_node_groups_count", lambda: float(self.node_groups))
        health.metric(f'{PREFIX}_function_duration_seconds{{function="main"}}', lambda: self.pass_seconds)
        for state in ("ready", "unready", "not_started", "unregistered", "long_unregistered"):
            label = {"not_started": "notStarted", "long_unregistered": "longUnregistered"}.get(state, state)
            health.metric(
                f'{PREFIX}_nodes_count{{state="{label}"}}',
                lambda state=state: float(getattr(self._registry.total, state)),  # type: ignore[misc]
            )
        for name in ("scaled_up_nodes_total", "failed_scale_ups_total", "evicted_pods_total", "errors_total"):
            self.add(name, 0)
        for reason in ("empty", "underutilized", "unready"):
            self.add(f'scaled_down_nodes_total{{reason="{reason}"}}', 0)

    def add(self, name: str, count: int = 1) -> None:
        """Count on; `name` without the prefix, labels may be part of it."""
        if name not in self.counts and self._health is not None:
            self._health.metric(f"{PREFIX}_{name}", lambda: float(self.counts[name]))
        self.counts[name] += count
