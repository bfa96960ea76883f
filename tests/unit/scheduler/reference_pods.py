"""The slow reference of affinity between pods and of spreading, pod by pod and node by node."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from api.models import core_v1, meta_v1
from tests.unit.scheduler.reference_nodes import selected, tolerated

Labels = Mapping[str, str]


@dataclass
class World:
    """What besides nodes and pods decides."""

    namespaces: dict[str, Labels] = field(default_factory=dict)
    services: dict[tuple[str, str], Labels] = field(default_factory=dict)
    owners: dict[tuple[str, str, str], meta_v1.LabelSelector] = field(default_factory=dict)


def labels_of(thing: core_v1.Pod | core_v1.Node) -> Labels:
    assert thing.metadata is not None
    return thing.metadata.labels or {}


def namespace_of(pod: core_v1.Pod) -> str:
    assert pod.metadata is not None
    return pod.metadata.namespace or ""


def chosen(selector: meta_v1.LabelSelector | None, labels: Labels) -> bool:
    if selector is None:
        return False
    for key, value in (selector.matchLabels or {}).items():
        if labels.get(key) != value:
            return False
    for each in selector.matchExpressions or []:
        value, values = labels.get(each.key), each.values or []
        holds = {
            "In": value is not None and value in values,
            "NotIn": value is None or value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[each.operator]
        if not holds:
            return False
    return True


def is_empty(selector: meta_v1.LabelSelector | None) -> bool:
    return selector is not None and not selector.matchLabels and not selector.matchExpressions


# --- affinity ------------------------------------------------------------------------------------------------------


def terms_of(pod: core_v1.Pod, side: str, kind: str) -> list[Any]:
    assert pod.spec is not None
    part = getattr(pod.spec.affinity, side) if pod.spec.affinity else None
    return list((getattr(part, f"{kind}DuringSchedulingIgnoredDuringExecution") if part else None) or [])


def means(term: core_v1.PodAffinityTerm, owner: core_v1.Pod, other: core_v1.Pod, world: World) -> bool:
    """Whether `owner`'s term is about `other`."""
    named = term.namespaces or []
    where = namespace_of(other)
    if not named and term.namespaceSelector is None:
        named = [namespace_of(owner)]
    if where not in named and not chosen(term.namespaceSelector, world.namespaces.get(where, {})):
        return False
    if not chosen(term.labelSelector, labels_of(other)):
        return False
    mine, theirs = labels_of(owner), labels_of(other)
    if any(key in mine and theirs.get(key) != mine[key] for key in term.matchLabelKeys or []):
        return False
    return not any(key in mine and theirs.get(key) == mine[key] for key in term.mismatchLabelKeys or [])


class Affinities:
    """One pod against nodes and running pods."""

    def __init__(self, pod: core_v1.Pod, homes: Sequence[tuple[core_v1.Pod, core_v1.Node]], world: World) -> None:
        self.pod, self.homes, self.world = pod, homes, world

    def refusal(self, node: core_v1.Node) -> tuple[tuple[str, ...], bool]:
        required = terms_of(self.pod, "podAffinity", "required")
        anti = terms_of(self.pod, "podAntiAffinity", "required")
        if required and not self._near(required, node):
            return ("node(s) didn't match pod affinity rules",), False
        for term in anti:

            def unwanted(other: core_v1.Pod, term: core_v1.PodAffinityTerm = term) -> bool:
                return means(term, self.pod, other, self.world)

            if self._together(node, term.topologyKey, unwanted):
                return ("node(s) didn't match pod anti-affinity rules",), True
        for other, home in self.homes:
            for term in terms_of(other, "podAntiAffinity", "required"):
                value = labels_of(home).get(term.topologyKey)
                same = value is not None and labels_of(node).get(term.topologyKey) == value
                if same and means(term, other, self.pod, self.world):
                    return ("node(s) didn't satisfy existing pods anti-affinity rules",), True
        return (), True

    def _together(self, node: core_v1.Node, key: str, about: Callable[[core_v1.Pod], bool]) -> bool:
        value = labels_of(node).get(key)
        return value is not None and any(labels_of(home).get(key) == value and about(pod) for pod, home in self.homes)

    def _near(self, terms: list[core_v1.PodAffinityTerm], node: core_v1.Node) -> bool:
        def all_terms(other: core_v1.Pod) -> bool:
            return all(means(term, self.pod, other, self.world) for term in terms)

        if any(term.topologyKey not in labels_of(node) for term in terms):
            return False
        if all(self._together(node, term.topologyKey, all_terms) for term in terms):
            return True
        somebody = any(
            all_terms(pod) and any(term.topologyKey in labels_of(home) for term in terms) for pod, home in self.homes
        )
        return not somebody and all_terms(self.pod)

    def scores(self, fitting: Sequence[core_v1.Node]) -> list[int]:
        counts: Counter[tuple[str, str]] = Counter()

        def add(
            term: core_v1.PodAffinityTerm, owner: core_v1.Pod, other: core_v1.Pod, home: core_v1.Node, w: int
        ) -> None:
            value = labels_of(home).get(term.topologyKey)
            if value is not None and means(term, owner, other, self.world):
                counts[(term.topologyKey, value)] += w

        for other, home in self.homes:
            for side, sign in (("podAffinity", 1), ("podAntiAffinity", -1)):
                for each in terms_of(self.pod, side, "preferred"):
                    add(each.podAffinityTerm, self.pod, other, home, sign * each.weight)
                for each in terms_of(other, side, "preferred"):
                    add(each.podAffinityTerm, other, self.pod, home, sign * each.weight)
            for term in terms_of(other, "podAffinity", "required"):
                add(term, other, self.pod, home, 1)
        raw = [sum(counts[pair] for pair in labels_of(node).items()) for node in fitting]
        if not raw or max(raw) == min(raw):
            return [0] * len(raw)
        return [int(100.0 * ((value - min(raw)) / (max(raw) - min(raw)))) for value in raw]


# --- spreading -----------------------------------------------------------------------------------------------------

HOSTNAME = "kubernetes.io/hostname"
DEFAULTS = ((HOSTNAME, 3), ("topology.kubernetes.io/zone", 5))


class Spreading:
    """One pod's constraints of one kind."""

    def __init__(
        self,
        pod: core_v1.Pod,
        nodes: Sequence[core_v1.Node],
        homes: Sequence[tuple[core_v1.Pod, core_v1.Node]],
        world: World,
        action: str,
    ) -> None:
        assert pod.spec is not None
        self.pod, self.nodes, self.homes = pod, nodes, homes
        own = pod.spec.topologySpreadConstraints or []
        self.by_default = not own
        self._domains: dict[int, dict[str, int]] = {}
        self._tallies: dict[int, dict[int, int]] = {}
        self.constraints = [each for each in own if each.whenUnsatisfiable == action]
        if not own and action == "ScheduleAnyway":
            selector = _common_selector(pod, world)
            if not is_empty(selector):
                self.constraints = [
                    core_v1.TopologySpreadConstraint(
                        maxSkew=skew, topologyKey=key, whenUnsatisfiable=action, labelSelector=selector
                    )
                    for key, skew in DEFAULTS
                ]

    def _counts(self, each: core_v1.TopologySpreadConstraint, other: core_v1.Pod) -> bool:
        assert other.metadata is not None
        if other.metadata.deletionTimestamp is not None or namespace_of(other) != namespace_of(self.pod):
            return False
        pinned = self._keyed(each)
        if is_empty(each.labelSelector) and not pinned:
            return False
        return chosen(each.labelSelector, labels_of(other)) and pinned.items() <= labels_of(other).items()

    def _keyed(self, each: core_v1.TopologySpreadConstraint) -> dict[str, str]:
        mine = labels_of(self.pod)
        return {key: mine[key] for key in each.matchLabelKeys or [] if key in mine}

    def _on(self, each: core_v1.TopologySpreadConstraint, node: core_v1.Node) -> int:
        """How many pods on the node the constraint counts."""
        if id(each) not in self._tallies:
            tally = self._tallies[id(each)] = {id(every): 0 for every in self.nodes}
            for pod, home in self.homes:
                tally[id(home)] += self._counts(each, pod)
        return self._tallies[id(each)][id(node)]

    def _by_domain(self, each: core_v1.TopologySpreadConstraint) -> dict[str, int]:
        """How many pods of each eligible domain the constraint counts."""
        if id(each) not in self._domains:
            domains = self._domains[id(each)] = {}
            for other in self.nodes:
                if self._has_all(other) and self._counted(each, other):
                    value = labels_of(other)[each.topologyKey]
                    domains[value] = domains.get(value, 0) + self._on(each, other)
        return self._domains[id(each)]

    def _counted(self, each: core_v1.TopologySpreadConstraint, node: core_v1.Node) -> bool:
        assert node.spec is not None
        if (each.nodeAffinityPolicy or "Honor") == "Honor" and not selected(self.pod, node):
            return False
        return each.nodeTaintsPolicy != "Honor" or all(
            taint.effect == "PreferNoSchedule" or tolerated(self.pod, (taint.key, taint.value or "", taint.effect))
            for taint in node.spec.taints or []
        )

    def _has_all(self, node: core_v1.Node) -> bool:
        return all(each.topologyKey in labels_of(node) for each in self.constraints)

    def refusal(self, node: core_v1.Node) -> tuple[tuple[str, ...], bool]:
        text = "node(s) didn't match pod topology spread constraints"
        for each in self.constraints:
            domains = self._by_domain(each)
            if each.topologyKey not in labels_of(node):
                return (f"{text} (missing required label)",), False
            least = min(domains.values(), default=0)
            if len(domains) < (each.minDomains or 1):
                least = 0
            own = int(chosen(each.labelSelector, labels_of(self.pod)))
            if domains.get(labels_of(node)[each.topologyKey], 0) + own - least > each.maxSkew:
                return (text,), True
        return (), True

    def scores(self, fitting: Sequence[core_v1.Node]) -> list[int]:
        if not self.constraints:
            return [0] * len(fitting)
        need_all = not self.by_default
        scored = [node for node in fitting if not need_all or self._has_all(node)]
        raw: dict[int, float] = {id(node): 0.0 for node in scored}
        for each in self.constraints:
            key = each.topologyKey
            domains = {labels_of(node).get(key, "") for node in scored}
            weight = math.log((len(scored) if key == HOSTNAME else len(domains)) + 2)
            totals: Counter[str] = Counter()
            for other in self.nodes:
                if (not need_all or self._has_all(other)) and self._counted(each, other):
                    totals[labels_of(other).get(key, "")] += self._on(each, other)
            for node in scored:
                if key in labels_of(node):
                    count = self._on(each, node) if key == HOSTNAME else totals[labels_of(node)[key]]
                    raw[id(node)] += count * weight + (each.maxSkew - 1)
        rounded = {key: math.floor(value) + (value - math.floor(value) >= 0.5) for key, value in raw.items()}
        low, high = min(rounded.values(), default=0), max(rounded.values(), default=0)
        return [
            0 if id(node) not in rounded else 100 if not high else 100 * (high + low - rounded[id(node)]) // high
            for node in fitting
        ]


def _common_selector(pod: core_v1.Pod, world: World) -> meta_v1.LabelSelector:
    assert pod.metadata is not None
    labels: dict[str, str] = {}
    for (namespace, _), wanted in world.services.items():
        if namespace == namespace_of(pod) and wanted.items() <= labels_of(pod).items():
            labels |= wanted
    expressions: Iterable[meta_v1.LabelSelectorRequirement] = ()
    for owner in pod.metadata.ownerReferences or []:
        selector = world.owners.get((owner.kind, namespace_of(pod), owner.name))
        if owner.controller and selector is not None:
            labels |= selector.matchLabels or {}
            expressions = selector.matchExpressions or ()
    return meta_v1.LabelSelector(matchLabels=labels or None, matchExpressions=list(expressions) or None)
