"""What the autoscaler can be told; names and defaults are those of cluster-autoscaler's flags.

All durations are cluster seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

EXPANDERS: Final = ("random", "most-pods", "least-waste", "price", "priority", "grpc")
UNLIMITED: Final = 1 << 50


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """Those that a provider may set for each group."""

    utilization_threshold: float = 0.5
    unneeded_time: float = 600.0
    unready_time: float = 1200.0
    max_node_provision_time: float = 900.0
    max_node_startup_time: float = 900.0
    ignore_daemonsets_utilization: bool = False
    zero_or_max: bool = False
    """All nodes of the group come together and go together."""


@dataclass(frozen=True, slots=True)
class Options:
    """The whole process. Cores are cores, memory is GiB."""

    group: GroupOptions = GroupOptions()
    scan_interval: float = 10.0
    scale_down_enabled: bool = True
    scale_down_unready_enabled: bool = True
    delay_after_add: float = 600.0
    delay_after_delete: float = 0.0
    delay_after_failure: float = 180.0
    new_pod_scale_up_delay: float = 0.0
    max_graceful_termination: float = 600.0
    max_pod_eviction_time: float = 120.0
    node_delete_delay_after_taint: float = 5.0
    unremovable_recheck: float = 300.0
    max_nodes_per_scale_up: int = 1000
    max_nodes_total: int = 0
    cores_total: tuple[int, int] = (0, 320_000)
    memory_total: tuple[int, int] = (0, 6_400_000)
    max_scale_down_parallelism: int = 10
    max_drain_parallelism: int = 1
    max_bulk_soft_taint_count: int = 10
    non_empty_candidates: int = 30
    max_binpacking_seconds: float = 10.0  # real ones: of one group
    backoff_initial: float = 300.0
    backoff_max: float = 1800.0
    backoff_reset: float = 10_800.0
    ok_total_unready: int = 3
    max_total_unready_percentage: float = 45.0
    expendable_cutoff: int = -10
    skip_system_pods: bool = True
    skip_local_storage: bool = True
    skip_custom_controllers: bool = True
    daemonset_eviction_empty: bool = False
    daemonset_eviction_occupied: bool = True
    ignore_mirror_pods_utilization: bool = False
    balance_similar_node_groups: bool = False
    cordon_node_before_terminating: bool = False
    expanders: tuple[str, ...] = ("least-waste",)
    namespace: str = "kube-system"
    status_config_map: str = "cluster-autoscaler-status"
