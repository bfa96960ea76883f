"""What every controller is built from: client, clock, shared informers, event recorders, options.

Owns nothing that runs. Called by app.py, which makes one Environment, and by each controller's `build`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from client.client import Client
from client.events import EventRecorder
from client.informer import Informers
from controller_manager.aggregated import AggregatedAccess
from machinery.clock import Clock
from machinery.decisions import Explain


@dataclass(frozen=True)
class Options:
    """Settings of single controllers, with upstream's defaults (seconds are cluster seconds)."""

    cluster_cidr: str = ""
    node_cidr_mask_size: int = 24
    allocate_node_cidrs: bool = True
    root_ca: str = ""
    signing_cert: str = ""  # PEM of the authority that signs certificate requests; none: nobody signs
    signing_key: str = ""
    service_account_key: Path | None = None  # signs the tokens of Secrets; none: they stay empty
    node_monitor_period: float = 5.0
    node_monitor_grace_period: float = 50.0
    node_startup_grace_period: float = 60.0
    node_eviction_rate: float = 0.1
    secondary_node_eviction_rate: float = 0.01
    unhealthy_zone_threshold: float = 0.55
    large_cluster_size_threshold: int = 50
    terminated_pod_gc_threshold: int = 12500
    node_volume_folder: str = ""
    hpa_sync_period: float = 15.0
    hpa_tolerance: float = 0.1
    hpa_downscale_stabilization: float = 300.0
    hpa_cpu_initialization_period: float = 300.0
    hpa_initial_readiness_delay: float = 30.0
    concurrent_syncs: int = 5
    concurrent_gc_syncs: int = 20


class RestReader(Protocol):
    """GETs over REST, for the APIs of aggregated servers; `client.rest.RestClient` in a process."""

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]: ...


@dataclass
class Environment:
    """Shared by all controllers of one process."""

    client: Client
    clock: Clock
    informers: Informers
    options: Options = field(default_factory=Options)
    rest: RestReader | None = None
    aggregated: AggregatedAccess | None = None
    """How objects of aggregated APIs are reached; None: they are left alone."""
    explains: dict[str, Explain] = field(default_factory=dict)
    """By kind, who can say why; filled by controllers that remember their decisions."""
    rng: random.Random = field(default_factory=random.Random)
    recorders: dict[str, EventRecorder] = field(default_factory=dict)

    def recorder(self, component: str) -> EventRecorder:
        """The event recorder of a controller; its name is the event's source."""
        found = self.recorders.get(component)
        if found is None:
            found = self.recorders[component] = EventRecorder(self.client, self.clock, component)
        return found


class Runnable(Protocol):
    """Something that works until cancelled."""

    @property
    def name(self) -> str: ...

    async def run(self) -> None: ...


Build = Callable[[Environment], Sequence[Runnable]]
