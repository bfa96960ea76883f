"""If these nodes were gone and these pods pending: where do pods go, and which claims are needed, at what price. Pure.

Runs on a fork of the scheduler's snapshot, with the scheduler's own filters; everything is undone at the end. Pods go
to nodes and claims that are there first; what is left opens new claims in the pool of highest weight that fits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from api.models import apps_v1
from nodepool_autoscaler.model import Outcome, World
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot


class Solver:
    """Over one snapshot, which holds the real nodes and the pods on them."""

    def __init__(self, snapshot: ClusterSnapshot, daemons: Iterable[apps_v1.DaemonSet] = ()) -> None:
        self._snapshot = snapshot
        self._daemons = tuple(daemons)

    def solve(self, world: World, pods: Sequence[PodInfo], *, without: Collection[str] = ()) -> Outcome:
        """`pods`: those to be placed. `without`: names of NodeStates that are taken away; the pods that would have to
        move from there are placed too, after `pods`. Nodes that are marked are no room either, but their pods are
        placed only if they are in `pods` (see `movable`)."""
        raise NotImplementedError
