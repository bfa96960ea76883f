"""Decisions of the ReplicaSet controller: how many pods to make, which to delete, what to report.

Pure: no I/O, no clock but the one handed in, no randomness. Called by controller.py.
"""
# mypy: disable-error-code="union-attr"
# Pods from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from api.models import core_v1
from controller_manager.objects import available_after, condition, is_active, is_finished, is_ready, is_terminating
from machinery.clock import Clock

BURST_REPLICAS: Final = 500
DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
_PHASE_ORDER: Final = {"Pending": 0, "Unknown": 1, "Running": 2}


class ReplicaPlan(NamedTuple):
    """How many pods to create, and which to delete."""

    create: int
    delete: tuple[core_v1.Pod, ...]


class Counts(NamedTuple):
    """What the status reports; `recheck` is when the next pod becomes available by mere waiting."""

    replicas: int
    fully_labeled: int
    ready: int
    available: int
    terminating: int
    recheck: float | None


def plan_replicas(
    replicas: int,
    pods: Sequence[core_v1.Pod],
    related: Iterable[core_v1.Pod],
    now: datetime,
    *,
    burst: int = BURST_REPLICAS,
) -> ReplicaPlan:
    """Decide; never act. `pods` are the set's own, `related` all pods of the same grand-owner (for spreading)."""
    active = [pod for pod in pods if is_active(pod)]
    excess = len(active) - replicas
    if excess <= 0:
        return ReplicaPlan(min(-excess, burst), ())
    count = min(excess, burst)
    if count == len(active):
        return ReplicaPlan(0, tuple(active))
    crowds = Counter(pod.spec.nodeName for pod in related if is_active(pod) and pod.spec.nodeName)
    ranked = sorted(active, key=lambda pod: deletion_rank(pod, crowds, now))
    return ReplicaPlan(0, tuple(ranked[:count]))


def deletion_rank(pod: core_v1.Pod, crowds: Mapping[str, int], now: datetime) -> tuple[Any, ...]:
    """Sort key, first to delete: unassigned, pending, unready, cheap, crowded, recently ready, often restarted, young.

    Ages count by order of magnitude only, so that among pods of one rollout a random one goes, not always the newest.
    """
    node = pod.spec.nodeName
    ready = is_ready(pod)
    ready_since = condition(pod, "Ready").lastTransitionTime if ready else None
    return (
        bool(node),
        _PHASE_ORDER.get((pod.status.phase if pod.status else None) or "Pending", 0),
        ready,
        _deletion_cost(pod),
        -crowds.get(node or "", 0),
        _magnitude(ready_since, now) if ready else 0,
        tuple(-count for count in _restarts(pod)),
        _magnitude(pod.metadata.creationTimestamp, now),
        pod.metadata.uid or "",
    )


def _deletion_cost(pod: core_v1.Pod) -> int:
    try:
        return int((pod.metadata.annotations or {}).get(DELETION_COST, "0"))
    except ValueError:
        return 0


def _magnitude(since: datetime | None, now: datetime) -> int:
    if since is None:
        return 0  # unknown counts as just now
    age = (now - since).total_seconds()
    return int(math.log2(age * 1e9)) if age > 0 else 0


def _restarts(pod: core_v1.Pod) -> tuple[int, int]:
    """The most restarts of a container, and of a restartable init container."""
    status = pod.status
    if status is None:
        return (0, 0)
    sidecars = {c.name for c in pod.spec.initContainers or () if c.restartPolicy == "Always"}
    regular = max((s.restartCount or 0 for s in status.containerStatuses or ()), default=0)
    init = max((s.restartCount or 0 for s in status.initContainerStatuses or () if s.name in sidecars), default=0)
    return (regular, init)


def observe(
    pods: Sequence[core_v1.Pod], template_labels: Mapping[str, str] | None, min_ready_seconds: int, clock: Clock
) -> Counts:
    """Count the set's pods."""
    replicas = labeled = ready = available = terminating = 0
    recheck: float | None = None
    wanted = (template_labels or {}).items()
    for pod in pods:
        if not is_active(pod):
            terminating += is_terminating(pod) and not is_finished(pod)
            continue
        replicas += 1
        labels: dict[str, str] = pod.metadata.labels or {}
        labeled += wanted <= labels.items()
        if not is_ready(pod):
            continue
        ready += 1
        wait = available_after(pod, min_ready_seconds, clock)
        if wait == 0:
            available += 1
        elif wait is not None and (recheck is None or wait < recheck):
            recheck = wait
    return Counts(replicas, labeled, ready, available, terminating, recheck)


def plan_batches(count: int) -> Iterable[int]:
    """Slow start: 1, 2, 4, … so that a failure common to all is met by one request, not by hundreds."""
    size = 1
    while count > 0:
        batch = min(size, count)
        yield batch
        count -= batch
        size *= 2


def related_owner(owner: Any) -> str | None:
    """uid of what manages the set, by which its siblings are found."""
    for reference in owner.metadata.ownerReferences or ():
        if reference.controller:
            return str(reference.uid)
    return None
