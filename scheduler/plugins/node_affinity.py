"""NodeAffinity: nodeSelector and required node affinity keep a pod off nodes, preferred terms add to their score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from api.models import core_v1
from scheduler.framework.columns import BoolArray, FloatArray, IntArray
from scheduler.framework.events import Action, EventResource, Registration
from scheduler.framework.interface import Normalization, PreFilterResult, Reads, Refusal
from scheduler.framework.node_selector import RequiredNodes, Term, names_of, preferred_terms, required_terms
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot

REASON = "node(s) didn't match Pod's node affinity/selector"
ENFORCED = "node(s) didn't match scheduler-enforced node affinity"
CONFLICT = "pod affinity terms conflict"
EVERYWHERE = RequiredNodes((), None)


def _compiled(spec: core_v1.PodSpec) -> list[tuple[int, Term]]:
    return [(each.weight, Term.compile(each.preference)) for each in preferred_terms(spec) if each.weight]


class NodeAffinity:
    """Filter and Score."""

    name = "NodeAffinity"
    reads = Reads.NODE
    normalization = Normalization.LINEAR

    def __init__(self, added: core_v1.NodeAffinity | None = None) -> None:
        """`added`: what the configuration demands of nodes for every pod."""
        affinity = core_v1.Affinity(nodeAffinity=added) if added is not None else None
        spec = core_v1.PodSpec(containers=[], affinity=affinity)
        self._added = RequiredNodes.of(spec)
        self._added_preferred = _compiled(spec)

    def registrations(self) -> Sequence[Registration]:
        return (
            Registration(EventResource.NODE, Action.ADD | Action.UPDATE_NODE_LABEL, self._after_node_change),
            # Gated pods may have their affinity narrowed; any such change is a reason to look again.
            Registration(EventResource.TARGET_POD, Action.UPDATE_OTHER),
        )

    def _after_node_change(self, pod: PodInfo, old: core_v1.Node | None, new: core_v1.Node) -> bool:
        demands = [each for each in (RequiredNodes.of(pod.spec), self._added) if each is not None]
        if not all(each.matches(new) for each in demands):
            return False
        return not demands or old is None or not all(each.matches(old) for each in demands)

    def sign(self, pod: PodInfo) -> Any:
        affinity = pod.spec.affinity
        return (pod.spec.nodeSelector, affinity.nodeAffinity if affinity is not None else None)

    def pre_filter(self, pod: PodInfo, snapshot: ClusterSnapshot) -> PreFilterResult | None:
        required = RequiredNodes.of(pod.spec)
        if required is None:
            return PreFilterResult(EVERYWHERE) if self._added is not None else None
        names = names_of(required_terms(pod.spec) or ())
        if names is not None and not names:
            return PreFilterResult(rejection=CONFLICT)
        return PreFilterResult(required, names)

    def filter(self, state: RequiredNodes, snapshot: ClusterSnapshot) -> BoolArray:
        mask = state.mask(snapshot)
        return mask if self._added is None else mask & self._added.mask(snapshot)

    def filter_at(self, state: RequiredNodes, snapshot: ClusterSnapshot, column: int) -> bool:
        return bool(self.filter(state, snapshot)[column])

    def refusals(self, state: RequiredNodes, snapshot: ClusterSnapshot, columns: IntArray) -> Iterable[Refusal]:
        enforced = (
            ~self._added.mask(snapshot)[columns] if self._added is not None else np.zeros(len(columns), dtype=bool)
        )
        for reason, chosen in ((ENFORCED, columns[enforced]), (REASON, columns[~enforced])):
            if len(chosen):
                yield Refusal(chosen, (reason,), resolvable=False)

    def pre_score(self, pod: PodInfo, snapshot: ClusterSnapshot) -> list[tuple[int, Term]] | None:
        return [*_compiled(pod.spec), *self._added_preferred] or None

    def score(self, state: list[tuple[int, Term]], snapshot: ClusterSnapshot) -> FloatArray:
        total: FloatArray = np.zeros(snapshot.width)
        for weight, term in state:
            total[term.mask(snapshot)] += weight
        return total

    def score_at(self, state: list[tuple[int, Term]], snapshot: ClusterSnapshot, column: int) -> float:
        return float(self.score(state, snapshot)[column])
