"""Node selectors compiled once: evaluated over all nodes of a snapshot, or on one Node object.

A requirement asks its question once per distinct value of its label. Invalid expressions (which the API server
refuses, but which may be stored from elsewhere) make their term match nothing, as upstream does: never an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from api.models import core_v1
from api.node_selectors import NAME_FIELD, integer
from scheduler.framework import node_facts
from scheduler.framework.columns import BoolArray
from scheduler.framework.snapshot import ClusterSnapshot


@dataclass(frozen=True, slots=True)
class LabelRequirement:
    """One label, one question. `verdict` takes the label's value, or None when the node lacks it."""

    key: str
    verdict: Callable[[str | None], bool]
    listed: frozenset[str] | None = None  # for In and NotIn: only these values differ from `otherwise`
    otherwise: bool = False

    def matches(self, labels: Mapping[str, str]) -> bool:
        return self.verdict(labels.get(self.key))

    def mask(self, snapshot: ClusterSnapshot) -> BoolArray:
        column = snapshot.labels.get(self.key)
        width = snapshot.width
        if column is None:
            return np.full(width, self.verdict(None))
        if self.listed is not None:
            table = np.full(len(column.values), self.otherwise)
            for value in self.listed:
                id_ = column.id_of(value)
                if id_:
                    table[id_] = not self.otherwise
        else:
            # The first value stands for nodes without the label; None for ids not in use.
            table = np.array([index > 0 and self.verdict(value) for index, value in enumerate(column.values)])
            table[0] = self.verdict(None)
        return table[column.ids[:width]]


@dataclass(frozen=True, slots=True)
class NameRequirement:
    """The node's name is, or is not, this one."""

    name: str
    wanted: bool

    def matches(self, name: str) -> bool:
        return (name == self.name) is self.wanted

    def mask(self, snapshot: ClusterSnapshot) -> BoolArray:
        mask = np.full(snapshot.width, not self.wanted)
        column = snapshot.column(self.name)
        if column is not None:
            mask[column] = self.wanted
        return mask


def _label_requirement(expression: core_v1.NodeSelectorRequirement) -> LabelRequirement | None:
    key, values = expression.key, list(expression.values or ())
    listed = frozenset(values)
    if expression.operator == "In" and values:
        return LabelRequirement(key, lambda value: value in listed, listed)
    if expression.operator == "NotIn" and values:
        return LabelRequirement(key, lambda value: value not in listed, listed, otherwise=True)
    if expression.operator == "Exists" and not values:
        return LabelRequirement(key, lambda value: value is not None)
    if expression.operator == "DoesNotExist" and not values:
        return LabelRequirement(key, lambda value: value is None)
    if expression.operator in ("Gt", "Lt") and len(values) == 1 and (bound := integer(values[0])) is not None:
        greater = expression.operator == "Gt"

        def compare(value: str | None) -> bool:
            number = integer(value)
            return number is not None and (number > bound if greater else number < bound)

        return LabelRequirement(key, compare)
    return None


def _name_requirement(expression: core_v1.NodeSelectorRequirement) -> NameRequirement | None:
    values = list(expression.values or ())
    if expression.key != NAME_FIELD or expression.operator not in ("In", "NotIn") or len(values) != 1:
        return None
    return NameRequirement(values[0], expression.operator == "In")


@dataclass(frozen=True, slots=True)
class Term:
    """All requirements must hold; an empty or invalid term holds nowhere."""

    labels: tuple[LabelRequirement, ...]
    names: tuple[NameRequirement, ...]
    valid: bool

    @classmethod
    def compile(cls, term: core_v1.NodeSelectorTerm) -> Term:
        labels = [_label_requirement(each) for each in term.matchExpressions or ()]
        names = [_name_requirement(each) for each in term.matchFields or ()]
        return cls(
            tuple(each for each in labels if each is not None),
            tuple(each for each in names if each is not None),
            bool(labels or names) and None not in labels and None not in names,
        )

    def matches(self, node: core_v1.Node) -> bool:
        if not self.valid:
            return False
        labels, name = node_facts.labels(node), node_facts.name(node)
        return all(each.matches(labels) for each in self.labels) and all(each.matches(name) for each in self.names)

    def mask(self, snapshot: ClusterSnapshot) -> BoolArray:
        if not self.valid:
            return np.zeros(snapshot.width, dtype=np.bool_)
        masks = [each.mask(snapshot) for each in self.labels]
        masks += [each.mask(snapshot) for each in self.names]
        result = masks[0]
        for mask in masks[1:]:
            result = result & mask
        return result


@dataclass(frozen=True, slots=True)
class RequiredNodes:
    """A pod's nodeSelector and required node affinity: both must hold."""

    selector: tuple[LabelRequirement, ...]
    terms: tuple[Term, ...] | None  # any of them; None when the pod has no required affinity

    @classmethod
    def of(cls, spec: core_v1.PodSpec) -> RequiredNodes | None:
        """None when the pod may run anywhere."""
        required = required_terms(spec)
        if not spec.nodeSelector and required is None:
            return None
        return cls(
            tuple(_equals(key, value) for key, value in (spec.nodeSelector or {}).items()),
            None if required is None else tuple(Term.compile(term) for term in required),
        )

    def matches(self, node: core_v1.Node) -> bool:
        labels = node_facts.labels(node)
        if not all(each.matches(labels) for each in self.selector):
            return False
        return self.terms is None or any(term.matches(node) for term in self.terms)

    def mask(self, snapshot: ClusterSnapshot) -> BoolArray:
        result = np.ones(snapshot.width, dtype=np.bool_)
        for each in self.selector:
            result &= each.mask(snapshot)
        if self.terms is not None:
            anywhere = np.zeros(snapshot.width, dtype=np.bool_)
            for term in self.terms:
                anywhere |= term.mask(snapshot)
            result &= anywhere
        return result


def _equals(key: str, value: str) -> LabelRequirement:
    return LabelRequirement(key, lambda actual: actual == value, frozenset((value,)))


def required_terms(spec: core_v1.PodSpec) -> Iterable[core_v1.NodeSelectorTerm] | None:
    affinity = spec.affinity.nodeAffinity if spec.affinity is not None else None
    required = affinity.requiredDuringSchedulingIgnoredDuringExecution if affinity is not None else None
    return None if required is None else required.nodeSelectorTerms or ()


def preferred_terms(spec: core_v1.PodSpec) -> Iterable[core_v1.PreferredSchedulingTerm]:
    affinity = spec.affinity.nodeAffinity if spec.affinity is not None else None
    return (affinity.preferredDuringSchedulingIgnoredDuringExecution if affinity is not None else None) or ()


def names_of(terms: Iterable[core_v1.NodeSelectorTerm]) -> frozenset[str] | None:
    """The only nodes that terms with `matchFields: metadata.name In …` leave; None when some term leaves it open."""
    union: frozenset[str] | None = None
    for term in terms:
        names: frozenset[str] | None = None
        for field in term.matchFields or ():
            if field.key == NAME_FIELD and field.operator == "In":
                listed = frozenset(field.values or ())
                names = listed if names is None else names & listed
        if names is None:
            return None
        union = names if union is None else union | names
    return union
