"""What the API server still knows about containers when the runtime does not: a kubelet that was away reads it back.

Pure; called when a `pod.machine` is made. The runtime's own facts, where there are any, replace these at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

from api.models import core_v1
from kubelet.pod.resize import same, with_claim
from kubelet.pod.slot import Slot
from kubelet.pod.timeline import nanos
from kubelet.records import ContainerRecord, ContainerState


def remember(slots: Mapping[str, Slot], status: core_v1.PodStatus) -> bool:
    """Fill slots from the statuses that were last written. Returns whether a container has not what its spec asks."""
    resized = False
    statuses = (status.initContainerStatuses, status.containerStatuses, status.ephemeralContainerStatuses)
    for known in chain.from_iterable(each or () for each in statuses):
        slot = slots.get(known.name)
        if slot is None or not known.containerID:
            continue
        slot.base_attempt = known.restartCount or 0
        slot.current = _record(known, slot)
        if slot.current.running:
            slot.started, slot.ready = bool(known.started), bool(known.ready)
            if slot.resizable and known.resources is not None:
                slot.actuated = known.resources
                if not same(known.resources, slot.spec.resources):
                    slot.spec, resized = with_claim(slot.spec, known.resources), True
    return resized


def _record(known: core_v1.ContainerStatus, slot: Slot) -> ContainerRecord:
    running = known.state.running if known.state else None
    ended = known.state.terminated if known.state else None
    if ended is None and running is None and known.lastState:
        ended = known.lastState.terminated
    started = running.startedAt if running else ended.startedAt if ended else None
    return ContainerRecord(
        id=(known.containerID or "").partition("://")[2],
        name=known.name,
        attempt=slot.base_attempt,
        state=ContainerState.RUNNING if running else ContainerState.EXITED,
        started_at=nanos(started),
        finished_at=nanos(ended.finishedAt if ended else None),
        exit_code=(ended.exitCode if ended else 0) or 0,
        reason=(ended.reason if ended else "") or "",
        message=(ended.message if ended else "") or "",
        image=known.image or "",
        image_ref=known.imageID or "",
        hash=slot.hash,
    )
