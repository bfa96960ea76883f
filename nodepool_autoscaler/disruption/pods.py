"""What disruption asks about a pod. Pure.

Source: karpenter.sh, "Pod-Level Controls" and "Termination Controller". An annotation karpenter.sh/do-not-disrupt is
"true" or a duration since the pod's start; one that cannot be read is as good as none.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Final

from api.models import core_v1
from nodepool_autoscaler.names import DISRUPTED, DO_NOT_DISRUPT
from scheduler.framework.pod_info import PodInfo, is_terminal
from scheduler.framework.tolerations import tolerates

DISRUPTED_TAINT: Final = (DISRUPTED, "", "NoSchedule")

Elapsed = Callable[[datetime], float]
"""Cluster seconds since a wall instant (`Clock.elapsed`)."""

_DURATION: Final = re.compile(r"\+?(?:[0-9]+(?:\.[0-9]*)?(?:h|ms|us|ns|m|s))+")
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?)(h|ms|us|ns|m|s)")
_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def duration(text: str) -> float | None:
    """A positive Go duration (`1h30m`) in seconds; None for anything else."""
    if not _DURATION.fullmatch(text):
        return None
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    return seconds if seconds > 0 else None


def owned_by(pod: core_v1.Pod, kind: str) -> bool:
    """By any owner reference, as upstream looks at it."""
    owners = (pod.metadata.ownerReferences if pod.metadata is not None else None) or ()
    return any(owner.kind == kind for owner in owners)


def active(pod: PodInfo) -> bool:
    """Neither ended nor being deleted."""
    return not pod.terminating and not is_terminal(pod.pod)


def reschedulable(pod: PodInfo) -> bool:
    """Whether it will need room elsewhere when its node goes. A StatefulSet's pod does even while it terminates: its
    successor is made only then."""
    alive = active(pod) or (pod.terminating and not is_terminal(pod.pod) and owned_by(pod.pod, "StatefulSet"))
    return alive and not owned_by(pod.pod, "DaemonSet") and not owned_by(pod.pod, "Node")


def tolerates_disruption(pod: PodInfo) -> bool:
    """Whether the pod stays on a node that is being disrupted."""
    return any(tolerates(each, DISRUPTED_TAINT) for each in pod.spec.tolerations or ())


def protected(pod: PodInfo, elapsed: Elapsed) -> bool:
    """Whether its annotation forbids to disrupt it now."""
    value = ((pod.pod.metadata.annotations if pod.pod.metadata is not None else None) or {}).get(DO_NOT_DISRUPT)
    if value is None or value == "true":
        return value == "true"
    seconds = duration(value)
    if seconds is None:
        return False
    started = pod.pod.status.startTime if pod.pod.status is not None else None
    return started is None or elapsed(started) < seconds


def evictable(pod: PodInfo, elapsed: Elapsed) -> bool:
    """Whether draining its node would evict it by the API."""
    return (
        active(pod) and not tolerates_disruption(pod) and not owned_by(pod.pod, "Node") and not protected(pod, elapsed)
    )
