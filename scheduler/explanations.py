"""Why a pod is where it is, or nowhere: the last decision about it, every node's verdict, its claims.

Owns the answer; the door that gives it is explain.py. Reads what the scheduler keeps, and computes anew on a fork of
the snapshot what was not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from api.models import core_v1
from client.listers import Lister
from machinery.meta import ObjectKey
from scheduler.decisions import DecisionLog, DecisionRecord
from scheduler.framework.decision import NodeVerdict
from scheduler.framework.framework import Framework
from scheduler.framework.pod_info import PodInfo, is_assigned
from scheduler.framework.pod_volumes import told
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.queue import SchedulingQueue


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a pod is where it is, or nowhere. `recomputed`: the verdicts are of now, not of the last attempt."""

    last: DecisionRecord | None
    nodes: Sequence[NodeVerdict]
    place: str = ""  # in the queue
    gate: str = ""  # why it is not even tried
    foreign: str = ""  # the scheduler that answers for it, if it is another one
    recomputed: bool = False
    claims: Sequence[tuple[str, str]] = ()  # the pod's claims, and how it stands with each


class Explainer:
    """Answers for all profiles."""

    def __init__(
        self,
        snapshot: ClusterSnapshot,
        decisions: DecisionLog,
        queue: SchedulingQueue,
        pods: Lister[core_v1.Pod],
        profiles: Mapping[str, Framework],
        framework_of: Callable[[PodInfo], Framework],
    ) -> None:
        self._snapshot = snapshot
        self._decisions = decisions
        self._queue = queue
        self._pods = pods
        self._profiles = profiles
        self._framework_of = framework_of

    def explain(self, key: ObjectKey) -> Explanation | None:
        """The last decision about a pod with every node's verdict and scores; None for a pod nobody knows.

        Verdicts that were not kept are computed as of now, for an assigned pod as if it were not there.
        """
        record = self._decisions.get(str(key))
        pod = self._pods.get(key)
        table = self._decisions.table(str(key))
        kept = table.verdicts() if table is not None else ()
        if pod is None:
            return Explanation(record, kept) if record is not None else None
        info = PodInfo(pod)
        if record is not None and record.uid != info.uid:
            record, kept = None, ()  # of an earlier pod of this name
        queued = self._queue.get(info.uid)
        place = queued.place.value if queued is not None else ""
        framework = self._framework_of(info)
        _, gate = ("", "") if is_assigned(pod) else framework.gate(info)
        if info.scheduler_name not in self._profiles:
            return Explanation(None, (), foreign=info.scheduler_name)
        claims = [(each, told(self._snapshot.volumes, info.namespace, each)) for each in info.claims]
        if kept or gate:
            return Explanation(record, kept, place, gate, claims=claims)
        self._snapshot.fork()
        try:
            self._snapshot.remove_pod(info.uid)
            nodes = framework.explain(info, self._snapshot)
            return Explanation(record, nodes, place, gate, recomputed=True, claims=claims)
        finally:
            self._snapshot.revert()
