"""InterPodAffinity: pods that want to be near others or away from them, and others that want this of the new pod.

Required terms filter, also those of pods that run already: their anti-affinity keeps new pods away. Preferred terms of
either side add to the score or take from it, and so do the required affinities of running pods, a little. Every term
is one look-up of a count by label value, spread over the nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from api.models import core_v1
from scheduler.framework import node_facts
from scheduler.framework.columns import BoolArray, FloatArray, IdArray, IntArray
from scheduler.framework.events import Action, EventResource, Registration
from scheduler.framework.interface import MAX_SCORE, PreFilterResult, Reads, Refusal
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.pod_terms import Question, Term
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.framework.tallies import AffinityGroup, GroupTally, Kind, Tally

AFFINITY = "node(s) didn't match pod affinity rules"
ANTI_AFFINITY = "node(s) didn't match pod anti-affinity rules"
EXISTING = "node(s) didn't satisfy existing pods anti-affinity rules"
HARD_AFFINITY_WEIGHT = 1


class Wanted(NamedTuple):
    """Required affinity: pods that match all terms at once, on every term's topology."""

    pods: Question
    topologies: tuple[str, ...]
    by_itself: bool  # the first pod of a group that wants to be together has nobody to be near to


Pods = Question | AffinityGroup


class Required(NamedTuple):
    """State of the filter: (pods, topology). Terms of running pods refer to their group, whose pods are counted."""

    wanted: Wanted | None
    unwanted: tuple[tuple[Pods, str], ...]
    existing: tuple[tuple[Pods, str], ...]

    @property
    def shunned(self) -> tuple[tuple[Pods, str], ...]:
        return self.unwanted + self.existing


class Preferred(NamedTuple):
    """State of the score: (pods, topology, weight)."""

    terms: tuple[tuple[Pods, str, int], ...]


def _tally(pods: Pods, snapshot: ClusterSnapshot) -> Tally | GroupTally:
    return pods.tally if isinstance(pods, AffinityGroup) else snapshot.tally(pods)


def _ids(key: str, snapshot: ClusterSnapshot) -> IdArray | None:
    label = snapshot.labels.get(key)
    return None if label is None else label.ids[: snapshot.width]


def _matches_all(terms: Iterable[Term], pod: PodInfo, snapshot: ClusterSnapshot) -> bool:
    known = snapshot.pods.namespaces
    return all(term.match.matches(pod.namespace, pod.labels, known) for term in terms)


class InterPodAffinity:
    """Filter and Score."""

    name = "InterPodAffinity"
    reads = Reads.CLUSTER

    def __init__(self, hard_weight: int = HARD_AFFINITY_WEIGHT, ignore_preferred_of_existing: bool = False) -> None:
        self._hard_weight = hard_weight
        self._ignore_existing = ignore_preferred_of_existing

    # --- queueing ------------------------------------------------------------------------------------------------

    def registrations(self) -> Sequence[Registration]:
        return (
            Registration(
                EventResource.ASSIGNED_POD, Action.ADD | Action.DELETE | Action.UPDATE_POD_LABEL, self._after_pod_change
            ),
            Registration(EventResource.TARGET_POD, Action.UPDATE_POD_LABEL),
            Registration(
                EventResource.NODE, Action.ADD | Action.DELETE | Action.UPDATE_NODE_LABEL, self._after_node_change
            ),
            Registration(EventResource.NAMESPACE, Action.ADD | Action.UPDATE, self._after_namespace_change),
        )

    @staticmethod
    def _after_namespace_change(pod: PodInfo, old: core_v1.Namespace | None, new: core_v1.Namespace) -> bool:
        """Terms that choose namespaces by their labels mean other pods once a namespace is labelled otherwise."""

        def labels(namespace: core_v1.Namespace | None) -> Mapping[str, str]:
            meta = namespace.metadata if namespace is not None else None
            return (meta.labels if meta is not None else None) or {}

        if old is not None and labels(old) == labels(new):
            return False
        own = pod.affinity
        terms = (*own.required, *own.anti) if own is not None else ()
        if any(term.match.namespace_selector is not None for term in terms):
            return True
        # Pods of that namespace may also have been what kept this one away, by terms of their own.
        return new.metadata is not None and new.metadata.name == pod.namespace

    @staticmethod
    def _after_pod_change(pod: PodInfo, old: PodInfo | None, new: PodInfo | None) -> bool:
        """Someone to be near to came or went (the first of a group needs nobody), or someone to stay away from went;
        by a change of labels, too."""

        def about(terms: Iterable[Term], asked: PodInfo | None) -> list[bool]:
            if asked is None:
                return [False for _ in terms]
            # Namespaces chosen by their labels are not known here: any may be meant.
            return [
                term.match.selector.matches(asked.labels)
                and (term.match.namespace_selector is not None or asked.namespace in term.match.namespaces)
                for term in terms
            ]

        own = pod.affinity
        if own is not None:
            if about(own.required, old) != about(own.required, new):
                return True
            if any(was and not is_ for was, is_ in zip(about(own.anti, old), about(own.anti, new), strict=True)):
                return True
        if old is None or old.affinity is None or not any(about(old.affinity.anti, pod)):
            return False
        return new is None or new.affinity is not old.affinity

    @staticmethod
    def _after_node_change(pod: PodInfo, old: core_v1.Node | None, new: core_v1.Node | None) -> bool:
        """A node that comes must have the labels the pod wants to be near by. One that goes, or moves to another
        zone, takes its pods along, from which others had to stay away: that is rare enough to look again."""
        if old is not None or new is None:
            return True
        labels = node_facts.labels(new)
        return pod.affinity is None or all(term.topology in labels for term in pod.affinity.required)

    def sign(self, pod: PodInfo) -> Any:
        terms = pod.affinity
        return [pod.namespace, pod.labels, None if terms is None else terms.key.decode()]

    # --- filter --------------------------------------------------------------------------------------------------

    def pre_filter(self, pod: PodInfo, snapshot: ClusterSnapshot) -> PreFilterResult | None:
        existing: dict[tuple[int, str], tuple[Pods, str]] = {
            (id(group), term.topology): (group, term.topology)
            for group, term, kind in snapshot.pods.about(pod)
            if kind is Kind.ANTI
        }
        own = pod.affinity
        if not existing and (own is None or not (own.required or own.anti)):
            return None
        wanted = None
        unwanted: list[tuple[Pods, str]] = []
        if own is not None:
            if own.required:
                question = Question(term.match for term in own.required)
                topologies = tuple(dict.fromkeys(term.topology for term in own.required))
                wanted = Wanted(question, topologies, _matches_all(own.required, pod, snapshot))
            unwanted = [(Question((term.match,)), term.topology) for term in own.anti]
        return PreFilterResult(Required(wanted, tuple(unwanted), tuple(existing.values())))

    @staticmethod
    def _near(wanted: Wanted, snapshot: ClusterSnapshot) -> BoolArray:
        width = snapshot.width
        tally = snapshot.tally(wanted.pods)
        labelled = np.ones(width, dtype=np.bool_)
        near = labelled.copy()
        nobody = True
        for key in wanted.topologies:
            ids = _ids(key, snapshot)
            if ids is None:
                return np.zeros(width, dtype=np.bool_)
            counts = tally.by_value(key, snapshot)
            nobody = nobody and not counts.any()
            labelled &= ids > 0
            near &= (counts > 0)[ids]
        return labelled if nobody and wanted.by_itself else near & labelled

    @staticmethod
    def _away(pods: Pods, key: str, snapshot: ClusterSnapshot) -> BoolArray | None:
        """False where such a pod is too near; None when that is nowhere."""
        ids = _ids(key, snapshot)
        if ids is None:
            return None
        counts = _tally(pods, snapshot).by_value(key, snapshot)
        return (counts <= 0)[ids] if counts.any() else None

    def filter(self, state: Required, snapshot: ClusterSnapshot) -> BoolArray:
        mask = np.ones(snapshot.width, dtype=np.bool_)
        if state.wanted is not None:
            mask &= self._near(state.wanted, snapshot)
        for pods, key in state.shunned:
            away = self._away(pods, key, snapshot)
            if away is not None:
                mask &= away
        return mask

    def filter_at(self, state: Required, snapshot: ClusterSnapshot, column: int) -> bool:
        if state.wanted is not None and not self._near_at(state.wanted, snapshot, column):
            return False
        for pods, key in state.shunned:
            label = snapshot.labels.get(key)
            id_ = 0 if label is None else label.ids[column]
            if id_ and _tally(pods, snapshot).by_value(key, snapshot)[id_] > 0:
                return False
        return True

    @staticmethod
    def _near_at(wanted: Wanted, snapshot: ClusterSnapshot, column: int) -> bool:
        tally = snapshot.tally(wanted.pods)
        near = nobody = True
        for key in wanted.topologies:
            label = snapshot.labels.get(key)
            if label is None or not (id_ := label.ids[column]):
                return False
            counts = tally.by_value(key, snapshot)
            nobody = nobody and not counts.any()
            near = near and bool(counts[id_] > 0)
        return near or (nobody and wanted.by_itself)

    def refusals(self, state: Required, snapshot: ClusterSnapshot, columns: IntArray) -> Iterable[Refusal]:
        remaining = columns
        if state.wanted is not None:
            near = self._near(state.wanted, snapshot)[remaining]
            if not near.all():
                yield Refusal(remaining[~near], (AFFINITY,), resolvable=False)
            remaining = remaining[near]
        away = np.ones(len(remaining), dtype=np.bool_)
        for pods, key in state.unwanted:
            mask = self._away(pods, key, snapshot)
            if mask is not None:
                away &= mask[remaining]
        if not away.all():
            yield Refusal(remaining[~away], (ANTI_AFFINITY,))
        if len(remaining := remaining[away]):
            yield Refusal(remaining, (EXISTING,))

    # --- score ---------------------------------------------------------------------------------------------------

    def pre_score(self, pod: PodInfo, snapshot: ClusterSnapshot) -> Preferred | None:
        own = pod.affinity.preferred if pod.affinity is not None else ()
        terms: list[tuple[Pods, str, int]] = [(Question((term.match,)), term.topology, term.weight) for term in own]
        if own or not self._ignore_existing:
            for group, term, kind in snapshot.pods.about(pod):
                if kind is Kind.PREFERRED:
                    terms.append((group, term.topology, term.weight))
                elif kind is Kind.REQUIRED and self._hard_weight:
                    terms.append((group, term.topology, self._hard_weight))
        terms = [each for each in terms if each[1] in snapshot.labels]
        return Preferred(tuple(terms)) if terms else None

    def score_among(self, state: Preferred, snapshot: ClusterSnapshot, feasible: BoolArray) -> FloatArray:
        """The smallest sum among feasible nodes becomes 0, the largest 100."""
        by_key: dict[str, FloatArray] = {}
        for pods, key, weight in state.terms:
            counts = _tally(pods, snapshot).by_value(key, snapshot) * float(weight)
            by_key[key] = by_key[key] + counts if key in by_key else counts
        raw: FloatArray | None = None
        for key, counts in by_key.items():
            values = counts[snapshot.labels[key].ids[: snapshot.width]]
            raw = values if raw is None else np.add(raw, values, out=raw)
        assert raw is not None
        low = float(raw.min(where=feasible, initial=np.inf))
        spread = float(raw.max(where=feasible, initial=-np.inf)) - low
        if not 0.0 < spread < np.inf:
            return np.zeros(snapshot.width)
        raw -= low
        raw /= spread
        raw *= MAX_SCORE
        return np.floor(raw, out=raw)
