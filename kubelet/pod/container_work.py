"""What everybody needs who works on one container of a pod: the pod's worker, hooks' targets, the runtime's facts.

Owns nothing. Base of `starting`, `resizing` and `ending`.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

from api.models import core_v1
from kubelet.cri import CriError
from kubelet.downward import PodFacts
from kubelet.pod import events as ev
from kubelet.pod.machine import PodMachine
from kubelet.pod.services import Services
from kubelet.probes.handlers import target_of
from kubelet.records import ContainerRecord, container_record
from kubelet.status.pod_status import pod_ips


class PodWork(Protocol):
    """A pod's worker, as those see it that work for it: facts, and a way to tell what became of things."""

    shared: Services
    machine: PodMachine
    uid: str

    @property
    def pod(self) -> core_v1.Pod: ...

    @property
    def allocated(self) -> core_v1.Pod: ...

    @property
    def name(self) -> str: ...

    def facts(self) -> PodFacts: ...

    def post(self, event: ev.Event) -> None: ...

    def tell(self, kind: str, reason: str, message: str, container: str = "") -> None: ...

    def read(self, record: ContainerRecord) -> ContainerRecord: ...


class ContainerWork:
    """Works for one pod."""

    def __init__(self, of: PodWork) -> None:
        self._of = of

    def target(self, spec: core_v1.Container, container_id: str) -> Any:
        """Where probes and hooks of a container go."""
        ips = pod_ips(self._of.machine, self._of.shared.node.ip)
        return target_of(spec, container_id, ips[0] if ips else "127.0.0.1")

    async def status(self, container_id: str, sandbox_id: str) -> ContainerRecord | None:
        """What the runtime says of it; None when it says nothing."""
        try:
            status = await self._of.shared.cri.container_status(container_id)
        except CriError:
            return None
        return self._of.read(container_record(status, sandbox_id))

    def real_grace(self, grace: float) -> int:
        """Cluster seconds as the runtime counts them."""
        return math.ceil(self._of.shared.clock.real(grace)) if grace > 0 else 0
