"""Metrics under upstream's names. Owns what is counted of provisioning; disruption counts its own."""

from __future__ import annotations

from machinery.health import HealthServer
from nodepool_autoscaler.cluster import Cluster
from nodepool_autoscaler.lifecycle import Lifecycle
from nodepool_autoscaler.provisioner import Provisioner


def expose(health: HealthServer, cluster: Cluster, provisioner: Provisioner, lifecycle: Lifecycle) -> None:
    """Read when somebody asks."""
    health.metric("karpenter_pods_pending", lambda: float(len(provisioner.last.waiting)))
    health.metric("karpenter_scheduler_unschedulable_pods_count", lambda: float(len(provisioner.last.outcome.errors)))
    health.metric("karpenter_scheduler_scheduling_duration_seconds", lambda: provisioner.last.seconds)
    health.metric("karpenter_nodeclaims_created_total", lambda: float(sum(provisioner.created.values())))
    health.metric("karpenter_nodeclaims_launched_total", lambda: float(sum(lifecycle.launched.values())))
    health.metric("karpenter_nodeclaims", lambda: float(len(cluster.claims.lister.list())))
