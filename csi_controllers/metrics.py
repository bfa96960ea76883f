"""What /metrics tells: calls of the driver (upstream's csi_sidecar_operations_seconds), and queues."""

from __future__ import annotations

from typing import Final

from client.controller import Controller
from machinery.health import HealthServer

OPERATIONS: Final = "csi_sidecar_operations_seconds"


class CallMetrics:
    """Sums of one driver's calls; a series is made known when it first has something to tell."""

    def __init__(self, health: HealthServer, driver: str) -> None:
        self._health = health
        self._driver = driver
        self._sums: dict[str, list[float]] = {}

    def observe(self, method: str, code: str, seconds: float) -> None:
        """A call has ended."""
        labels = f'{{driver_name="{self._driver}",grpc_status_code="{code}",method_name="/csi.v1.Controller/{method}"}}'
        known = self._sums.get(labels)
        if known is None:
            known = self._sums[labels] = [0.0, 0.0]
            self._health.metric(f"{OPERATIONS}_count{labels}", lambda: known[0])
            self._health.metric(f"{OPERATIONS}_sum{labels}", lambda: known[1])
        known[0] += 1
        known[1] += seconds


def expose(health: HealthServer, controller: Controller) -> None:
    """A loop's passes, failures and queue."""
    metrics, label = controller.metrics, f'{{controller="{controller.name}"}}'
    health.metric(f"controller_reconcile_total{label}", lambda: float(metrics.reconciles))
    health.metric(f"controller_reconcile_errors_total{label}", lambda: float(metrics.errors))
    health.metric(f"workqueue_depth{label}", lambda: float(len(controller.queue)))
