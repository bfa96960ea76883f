"""Which pods a term of (anti-)affinity or spreading means, compiled once. Pure.

Terms of a pod are interned by content: all pods of one template share them. `matchLabelKeys` and `mismatchLabelKeys`
are merged into the selector here, whether or not the API server has done so before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from api.models import core_v1
from machinery.selectors import LabelSelector, Requirement

Labels = Mapping[str, str]
Namespaces = Mapping[str, Labels]

_encode = msgspec.json.Encoder(order="deterministic").encode


def selector_of(selector: Any) -> LabelSelector:
    """A metav1.LabelSelector; an invalid one, which the API server refuses, selects nothing."""
    try:
        return LabelSelector.from_object(selector)
    except ValueError:
        return LabelSelector.nothing()


def with_label_keys(
    selector: LabelSelector, labels: Labels, same: Iterable[str] | None, other: Iterable[str] | None = None
) -> LabelSelector:
    """Also require the pod's own values of some labels, or any other values than its own."""
    more = [Requirement(key, "In", frozenset((labels[key],))) for key in same or () if key in labels]
    more += [Requirement(key, "NotIn", frozenset((labels[key],))) for key in other or () if key in labels]
    more = [each for each in more if each not in selector.requirements]
    return LabelSelector((*selector.requirements, *more)) if more else selector


class Match:
    """Pods with certain labels in certain namespaces."""

    __slots__ = ("key", "namespace_selector", "namespaces", "selector")

    def __init__(
        self, namespaces: frozenset[str], selector: LabelSelector, namespace_selector: LabelSelector | None = None
    ) -> None:
        self.namespaces = namespaces
        self.selector = selector
        self.namespace_selector = namespace_selector
        everywhere = "" if namespace_selector is None else f"+({namespace_selector})"
        wanted = ";".join(sorted(str(each) for each in selector.requirements))
        self.key = f"{','.join(sorted(namespaces))}{everywhere}:{wanted}"

    def matches(self, namespace: str, labels: Labels, known: Namespaces) -> bool:
        if namespace not in self.namespaces:
            chosen = self.namespace_selector
            if chosen is None or not (chosen.empty or chosen.matches(known.get(namespace))):
                return False
        return self.selector.matches(labels)


class Question:
    """Pods that match all of some terms; `living` leaves out those that are being deleted."""

    __slots__ = ("key", "living", "matches")

    def __init__(self, matches: Iterable[Match], *, living: bool = False) -> None:
        self.matches = tuple(matches)
        self.living = living
        self.key = f"{'living' if living else 'all'} {'&'.join(match.key for match in self.matches)}"

    def holds(self, namespace: str, labels: Labels, terminating: bool, known: Namespaces) -> bool:
        if self.living and terminating:
            return False
        return all(match.matches(namespace, labels, known) for match in self.matches)


class Term:
    """Near (or away from) pods that match: on a node with the same value of a label."""

    __slots__ = ("match", "topology", "weight")

    def __init__(self, match: Match, topology: str, weight: int = 1) -> None:
        self.match = match
        self.topology = topology
        self.weight = weight


class PodAffinity:
    """All terms of a pod. Preferred anti-affinity is preferred affinity of negative weight."""

    __slots__ = ("__weakref__", "anti", "key", "preferred", "required")

    def __init__(self, key: bytes, namespace: str, labels: Labels, affinity: core_v1.Affinity) -> None:
        def compiled(term: core_v1.PodAffinityTerm, weight: int = 1) -> Term:
            selector = selector_of(term.labelSelector)
            if term.labelSelector is not None:
                selector = with_label_keys(selector, labels, term.matchLabelKeys, term.mismatchLabelKeys)
            namespaces = frozenset(term.namespaces or ())
            chosen = term.namespaceSelector
            if not namespaces and chosen is None:
                namespaces = frozenset((namespace,))
            match = Match(namespaces, selector, None if chosen is None else selector_of(chosen))
            return Term(match, term.topologyKey, weight)

        near, away = affinity.podAffinity, affinity.podAntiAffinity
        self.key = key
        self.required = tuple(
            compiled(each) for each in (near.requiredDuringSchedulingIgnoredDuringExecution if near else None) or ()
        )
        self.anti = tuple(
            compiled(each) for each in (away.requiredDuringSchedulingIgnoredDuringExecution if away else None) or ()
        )
        self.preferred = tuple(
            compiled(each.podAffinityTerm, sign * each.weight)
            for sign, part in ((1, near), (-1, away))
            for each in (part.preferredDuringSchedulingIgnoredDuringExecution if part else None) or ()
        )


_interned: WeakValueDictionary[bytes, PodAffinity] = WeakValueDictionary()


def pod_affinity(namespace: str, labels: Labels, affinity: core_v1.Affinity | None) -> PodAffinity | None:
    """None for a pod without terms about other pods."""
    if affinity is None or (affinity.podAffinity is None and affinity.podAntiAffinity is None):
        return None
    raw = [affinity.podAffinity, affinity.podAntiAffinity]
    encoded = _encode(raw)
    # Only where label keys are named do the pod's own labels change what its terms mean.
    own = labels if b"atchLabelKeys" in encoded else None
    key = _encode([namespace, own]) + encoded
    known = _interned.get(key)
    if known is None:
        known = _interned[key] = PodAffinity(key, namespace, labels, affinity)
    return known if known.required or known.anti or known.preferred else None
