"""TaintToleration: NoSchedule and NoExecute taints keep a pod out, PreferNoSchedule ones cost score.

Nodes that are not ready are kept out by this plugin too, as upstream does it: the node lifecycle controller and the
kubelet taint them. The question is asked once per distinct set of taints, not per node.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from api.models import core_v1
from scheduler.framework import node_facts
from scheduler.framework.columns import BoolArray, FloatArray, IntArray
from scheduler.framework.events import Action, EventResource, Registration
from scheduler.framework.interface import Normalization, PreFilterResult, Reads, Refusal
from scheduler.framework.node_facts import TaintSet
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.framework.tolerations import PREFER_NO_SCHEDULE, count_unwelcome, keeps_out

# Since 1.34.2 taints are no longer named here: they may be confidential (kubernetes#134740).
REASON = "node(s) had untolerated taint(s)"


class TaintToleration:
    """Filter and Score."""

    name = "TaintToleration"
    reads = Reads.NODE
    normalization = Normalization.REVERSED

    def registrations(self) -> Sequence[Registration]:
        return (
            Registration(EventResource.NODE, Action.ADD | Action.UPDATE_NODE_TAINT, self._after_node_change),
            Registration(EventResource.TARGET_POD, Action.UPDATE_POD_TOLERATION),
        )

    @staticmethod
    def _after_node_change(pod: PodInfo, old: core_v1.Node | None, new: core_v1.Node) -> bool:
        tolerations = pod.spec.tolerations or ()
        if keeps_out(tolerations, node_facts.taints(new)):
            return False
        return old is None or keeps_out(tolerations, node_facts.taints(old))

    def sign(self, pod: PodInfo) -> Any:
        # tolerationSeconds is for the eviction, it does not change where a pod fits.
        return [(each.key, each.operator, each.value, each.effect) for each in pod.spec.tolerations or ()]

    def pre_filter(self, pod: PodInfo, snapshot: ClusterSnapshot) -> PreFilterResult | None:
        sets = snapshot.taint_sets
        if sets.is_empty:
            return None
        tolerations = pod.spec.tolerations or ()

        def ask(values: Sequence[TaintSet | None]) -> BoolArray:
            return np.array([taints is not None and not keeps_out(tolerations, taints) for taints in values])

        return PreFilterResult(sets.answer((True, *self.sign(pod)), ask))

    def filter(self, state: BoolArray, snapshot: ClusterSnapshot) -> BoolArray:
        return state[snapshot.taint_sets.ids[: snapshot.width]]

    def filter_at(self, state: BoolArray, snapshot: ClusterSnapshot, column: int) -> bool:
        return bool(state[snapshot.taint_sets.ids[column]])

    def refusals(self, state: BoolArray, snapshot: ClusterSnapshot, columns: IntArray) -> Iterable[Refusal]:
        yield Refusal(columns, (REASON,), resolvable=False)

    def pre_score(self, pod: PodInfo, snapshot: ClusterSnapshot) -> FloatArray | None:
        sets = snapshot.taint_sets
        if sets.is_empty:
            return None

        def ask(values: Sequence[TaintSet | None]) -> FloatArray:
            # A toleration that names another effect than PreferNoSchedule does not count here.
            matching = [each for each in pod.spec.tolerations or () if each.effect in (None, "", PREFER_NO_SCHEDULE)]
            return np.array([float(count_unwelcome(matching, taints or ())) for taints in values])

        table = sets.answer((False, *self.sign(pod)), ask)
        # Without such taints every node would get the same score: it would decide nothing.
        return table if table.any() else None

    def score(self, state: FloatArray, snapshot: ClusterSnapshot) -> FloatArray:
        return state[snapshot.taint_sets.ids[: snapshot.width]]

    def score_at(self, state: FloatArray, snapshot: ClusterSnapshot, column: int) -> float:
        return float(state[snapshot.taint_sets.ids[column]])
