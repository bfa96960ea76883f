"""PodTopologySpread: keep the pods of a group evenly spread over zones, nodes or any other label of nodes.

DoNotSchedule constraints filter: a domain may have at most `maxSkew` matching pods more than the emptiest one.
ScheduleAnyway constraints score. A pod without constraints that belongs to a Service or a workload gets those of the
cluster, by default a weak spreading over nodes and zones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from api.models import core_v1
from machinery.selectors import LabelSelector
from scheduler.framework import node_facts
from scheduler.framework.columns import BoolArray, FloatArray, IdArray, IntArray
from scheduler.framework.events import Action, EventResource, Registration
from scheduler.framework.interface import MAX_SCORE, PreFilterResult, Reads, Refusal
from scheduler.framework.node_selector import RequiredNodes
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.pod_terms import Match, Question, selector_of, with_label_keys
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.framework.tallies import sums
from scheduler.framework.tolerations import keeps_out

SKEWED = "node(s) didn't match pod topology spread constraints"
UNLABELLED = f"{SKEWED} (missing required label)"
HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
DO_NOT_SCHEDULE = "DoNotSchedule"
SCHEDULE_ANYWAY = "ScheduleAnyway"

Constraints = Sequence[core_v1.TopologySpreadConstraint]
SYSTEM_DEFAULTS: Constraints = (
    core_v1.TopologySpreadConstraint(maxSkew=3, topologyKey=HOSTNAME, whenUnsatisfiable=SCHEDULE_ANYWAY),
    core_v1.TopologySpreadConstraint(maxSkew=5, topologyKey=ZONE, whenUnsatisfiable=SCHEDULE_ANYWAY),
)


class Domains:
    """One constraint on one snapshot: whom it counts, and on which nodes."""

    __slots__ = (
        "by_itself",
        "counted",
        "eligible",
        "ids",
        "key",
        "max_skew",
        "min_domains",
        "question",
        "size",
        "whole",
    )

    def __init__(self, made: core_v1.TopologySpreadConstraint, selector: LabelSelector, pod: PodInfo) -> None:
        self.key = made.topologyKey
        self.max_skew = made.maxSkew
        self.min_domains = made.minDomains or 1
        match = Match(frozenset((pod.namespace,)), selector)
        # An empty selector counts nobody, though it would match the pod itself.
        self.question = None if selector.empty else Question((match,), living=True)
        self.by_itself = int(selector.matches(pod.labels))

    def place(self, snapshot: ClusterSnapshot, eligible: BoolArray) -> None:
        """Take over the nodes: `eligible` ones count."""
        label = snapshot.labels.get(self.key)
        self.ids: IdArray = np.zeros(snapshot.width, dtype=np.int32) if label is None else label.ids[: snapshot.width]
        self.size = 1 if label is None else len(label.values)
        self.eligible = eligible
        # Then the sums by value that the snapshot keeps are the ones wanted here.
        self.whole = label is not None and bool(np.array_equal(eligible, self.ids > 0))
        self.counted: IntArray = np.unique(self.ids[eligible])

    def counts(self, snapshot: ClusterSnapshot, *, nameless: bool = False) -> FloatArray:
        """Matching pods on eligible nodes, by the id of the label's value (0: nodes without it, if `nameless`)."""
        if self.question is None:
            return np.zeros(self.size)
        tally = snapshot.tally(self.question)
        if self.whole and not nameless:
            return tally.by_value(self.key, snapshot)
        return sums(self.ids, tally.counts[: snapshot.width] * self.eligible, self.size)

    def least(self, counts: FloatArray) -> float:
        """The count of the emptiest domain, or 0 while there are fewer domains than wanted."""
        counted = self.counted
        return 0.0 if len(counted) < self.min_domains else float(counts[counted].min())


class Soft:
    """State of the score."""

    __slots__ = ("all_keys", "constraints", "known_for", "parts")

    def __init__(self, constraints: list[Domains], all_keys: BoolArray | None) -> None:
        self.constraints = constraints
        self.all_keys = all_keys  # None: nodes that lack a label are scored all the same
        self.known_for: BoolArray | None = None  # the feasible nodes for which `parts` holds
        self.parts: tuple[BoolArray, list[float]] = (np.zeros(0, dtype=np.bool_), [])


class PodTopologySpread:
    """Filter and Score."""

    name = "PodTopologySpread"
    reads = Reads.CLUSTER

    def __init__(self, defaults: Constraints = SYSTEM_DEFAULTS, *, system_defaults: bool = True) -> None:
        self._defaults = defaults
        self._system_defaults = system_defaults

    # --- queueing ------------------------------------------------------------------------------------------------

    def registrations(self) -> Sequence[Registration]:
        return (
            Registration(
                EventResource.ASSIGNED_POD, Action.ADD | Action.DELETE | Action.UPDATE_POD_LABEL, self._after_pod_change
            ),
            Registration(EventResource.TARGET_POD, Action.UPDATE_POD_LABEL),
            Registration(
                EventResource.NODE,
                Action.ADD | Action.DELETE | Action.UPDATE_NODE_LABEL | Action.UPDATE_NODE_TAINT,
                self._after_node_change,
            ),
        )

    def _hard(self, pod: PodInfo) -> list[core_v1.TopologySpreadConstraint]:
        listed = pod.spec.topologySpreadConstraints or self._defaults
        return [each for each in listed if each.whenUnsatisfiable == DO_NOT_SCHEDULE]

    def _after_pod_change(self, pod: PodInfo, old: PodInfo | None, new: PodInfo | None) -> bool:
        if not pod.spec.topologySpreadConstraints:
            sides = [each for each in (old, new) if each is not None]
            return any(each.namespace == pod.namespace for each in sides)

        def counted(other: PodInfo | None, selector: LabelSelector) -> bool:
            return (
                other is not None
                and other.namespace == pod.namespace
                and not other.terminating
                and selector.matches(other.labels)
            )

        return any(counted(old, selector) != counted(new, selector) for selector in self._selectors(pod))

    def _selectors(self, pod: PodInfo) -> list[LabelSelector]:
        return [
            with_label_keys(selector_of(each.labelSelector), pod.labels, each.matchLabelKeys)
            for each in self._hard(pod)
        ]

    def _after_node_change(self, pod: PodInfo, old: core_v1.Node | None, new: core_v1.Node | None) -> bool:
        keys = [each.topologyKey for each in self._hard(pod)]
        sides = [node_facts.labels(node) for node in (old, new) if node is not None]
        having = [all(key in labels for key in keys) for labels in sides]
        if len(sides) < 2:
            return any(having)
        if not any(having):
            return False
        return having[0] != having[1] or any(sides[0].get(key) != sides[1].get(key) for key in keys) or (
            old is not None and new is not None and node_facts.taints(old) != node_facts.taints(new)
        )  # fmt: skip

    def sign(self, pod: PodInfo) -> Any:
        constraints = pod.spec.topologySpreadConstraints
        if not constraints and not self._defaults:
            return None
        # Which pods are counted depends on the nodes that the pod could go to; the owner names the group of pods.
        return [pod.namespace, pod.labels, constraints or pod.owner]

    # --- constraints ---------------------------------------------------------------------------------------------

    def _constraints(self, pod: PodInfo, snapshot: ClusterSnapshot, action: str) -> list[Domains]:
        listed = pod.spec.topologySpreadConstraints
        if listed:
            chosen = [
                (each, with_label_keys(selector_of(each.labelSelector), pod.labels, each.matchLabelKeys))
                for each in listed
                if each.whenUnsatisfiable == action
            ]
        else:
            chosen = []
            defaults = [each for each in self._defaults if each.whenUnsatisfiable == action]
            common = snapshot.workloads.selector(pod) if defaults else None
            if common is not None:
                chosen = [(each, common) for each in defaults]
        return [self._placed(Domains(each, selector, pod), each, pod, snapshot) for each, selector in chosen]

    @staticmethod
    def _placed(
        domains: Domains, made: core_v1.TopologySpreadConstraint, pod: PodInfo, snapshot: ClusterSnapshot
    ) -> Domains:
        """By the constraint's policies alone; who needs all labels narrows it further."""
        eligible = snapshot.exists[: snapshot.width].copy()
        required = RequiredNodes.of(pod.spec) if (made.nodeAffinityPolicy or "Honor") == "Honor" else None
        if required is not None:
            eligible &= required.mask(snapshot)
        if made.nodeTaintsPolicy == "Honor" and not snapshot.taint_sets.is_empty:
            tolerations = pod.spec.tolerations or ()
            welcome = [
                taints is not None and not keeps_out(tolerations, taints) for taints in snapshot.taint_sets.values
            ]
            eligible &= np.array(welcome)[snapshot.taint_sets.ids[: snapshot.width]]
        domains.place(snapshot, eligible)
        return domains

    @staticmethod
    def _all_keys(constraints: Iterable[Domains], snapshot: ClusterSnapshot) -> BoolArray:
        having = snapshot.exists[: snapshot.width].copy()
        for each in constraints:
            having &= each.ids > 0
        return having

    # --- filter --------------------------------------------------------------------------------------------------

    def pre_filter(self, pod: PodInfo, snapshot: ClusterSnapshot) -> PreFilterResult | None:
        constraints = self._constraints(pod, snapshot, DO_NOT_SCHEDULE)
        if not constraints:
            return None
        having = self._all_keys(constraints, snapshot)
        for each in constraints:
            each.place(snapshot, each.eligible & having)
        return PreFilterResult(constraints)

    @staticmethod
    def _mask(domains: Domains, snapshot: ClusterSnapshot) -> BoolArray:
        counts = domains.counts(snapshot)
        allowed = counts <= domains.max_skew + domains.least(counts) - domains.by_itself
        allowed[0] = False
        return allowed[domains.ids]

    def filter(self, state: list[Domains], snapshot: ClusterSnapshot) -> BoolArray:
        mask = self._mask(state[0], snapshot)
        for domains in state[1:]:
            mask &= self._mask(domains, snapshot)
        return mask

    def filter_at(self, state: list[Domains], snapshot: ClusterSnapshot, column: int) -> bool:
        for domains in state:
            id_ = domains.ids[column]
            if not id_:
                return False
            counts = domains.counts(snapshot)
            if counts[id_] + domains.by_itself - domains.least(counts) > domains.max_skew:
                return False
        return True

    def refusals(self, state: list[Domains], snapshot: ClusterSnapshot, columns: IntArray) -> Iterable[Refusal]:
        """A node is refused for the first constraint that it does not meet."""
        remaining = columns
        for domains in state:
            unlabelled = domains.ids[remaining] == 0
            if unlabelled.any():
                yield Refusal(remaining[unlabelled], (UNLABELLED,), resolvable=False)
                remaining = remaining[~unlabelled]
            passed = self._mask(domains, snapshot)[remaining]
            if not passed.all():
                yield Refusal(remaining[~passed], (SKEWED,))
                remaining = remaining[passed]

    # --- score ---------------------------------------------------------------------------------------------------

    def pre_score(self, pod: PodInfo, snapshot: ClusterSnapshot) -> Soft | None:
        constraints = self._constraints(pod, snapshot, SCHEDULE_ANYWAY)
        if not constraints:
            return None
        if not pod.spec.topologySpreadConstraints and self._system_defaults:
            return Soft(constraints, None)
        having = self._all_keys(constraints, snapshot)
        for each in constraints:
            each.place(snapshot, each.eligible & having)
        return Soft(constraints, having)

    @staticmethod
    def _parts(state: Soft, snapshot: ClusterSnapshot, feasible: BoolArray) -> tuple[BoolArray, list[float]]:
        """The nodes to score and the weight of each constraint: the more domains, the more a pod in one counts."""
        if state.known_for is not None and np.array_equal(state.known_for, feasible):
            return state.parts
        scored = feasible.copy() if state.all_keys is None else feasible & state.all_keys
        weights = []
        for each in state.constraints:
            if each.key == HOSTNAME:
                size = int(scored.sum())
            else:
                present = np.bincount(each.ids[scored], minlength=each.size) > 0
                size = int(present.sum())
                empty = _empty_value(each.key, snapshot)
                if empty and present[0] and present[empty]:
                    size -= 1  # a node without the label and one with an empty value are of one domain
            weights.append(math.log(size + 2))
        state.known_for = feasible.copy()
        state.parts = scored, weights
        return state.parts

    def score_among(self, state: Soft, snapshot: ClusterSnapshot, feasible: BoolArray) -> FloatArray:
        """Few matching pods in the node's domains are good: the node with the fewest of them gets 100."""
        width = snapshot.width
        scored, weights = self._parts(state, snapshot, feasible)
        raw: FloatArray = np.zeros(width)
        for each, weight in zip(state.constraints, weights, strict=True):
            labelled = each.ids > 0
            if each.key == HOSTNAME:
                here = snapshot.tally(each.question).counts[:width] if each.question is not None else np.zeros(width)
                value = here * weight
                value += each.max_skew - 1
            else:
                by_value = each.counts(snapshot, nameless=state.all_keys is None)
                empty = _empty_value(each.key, snapshot)
                if empty and state.all_keys is None:
                    by_value = by_value.copy()
                    by_value[empty] += by_value[0]
                value = (by_value * weight + (each.max_skew - 1))[each.ids]
            value *= labelled
            raw += value
        # Rounded half up, as whole numbers from here on.
        floor = np.floor(raw)
        raw -= floor
        floor += raw >= 0.5
        low = float(floor.min(where=scored, initial=np.inf))
        high = float(floor.max(where=scored, initial=0.0))
        if not high:
            return np.where(scored, float(MAX_SCORE), 0.0)
        np.subtract(high + low, floor, out=floor)
        floor *= MAX_SCORE
        floor /= high
        np.floor(floor, out=floor)
        floor *= scored
        return floor


def _empty_value(key: str, snapshot: ClusterSnapshot) -> int:
    """The id of the label value "", or 0 when no node has it."""
    label = snapshot.labels.get(key)
    return 0 if label is None else label.id_of("") or 0
