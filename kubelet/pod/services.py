"""What all pod workers of a kubelet share: clients, stores, facts. Made once by `kubelet.app`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from api.models import core_v1
from client.client import Client
from client.events import EventRecorder
from client.listers import Lister
from kubelet.cri import Cri
from kubelet.images import Images
from kubelet.pod.cgroups import PodCgroups
from kubelet.pod.config import NodeFacts
from kubelet.pod.remover import PodRemover
from kubelet.pod.timeline import Now
from kubelet.status.writer import StatusWriter
from kubelet.volumes.objects import ObjectReader
from kubelet.volumes.pod_volumes import PodVolumes
from machinery.clock import Clock


@dataclass(slots=True)
class Services:
    """What all workers of a kubelet share."""

    client: Client
    cri: Cri
    clock: Clock
    recorder: EventRecorder
    node: NodeFacts
    volumes: PodVolumes
    reader: ObjectReader
    images: Images
    statuses: StatusWriter
    remover: PodRemover
    cgroups: PodCgroups
    tasks: asyncio.TaskGroup
    services: Lister[core_v1.Service]
    services_synced: Callable[[], Coroutine[Any, Any, None]]
    scheme: str = "nanokube"

    def now(self) -> Now:
        clock = self.clock
        return Now(clock.monotonic(), int(clock.now().timestamp() * 1e9), clock.scale)
