"""How many pods of a kind each node has, and each value of a node label: what affinity between pods and spreading ask.

Pods alike (same namespace and labels) form a class. A tally answers one question ("pods that match these terms") per
node; it is made when first asked and kept up to date with every pod that comes or goes, at a cost that depends on the
number of tallies the pod's class is counted in, not on the cluster. Pods with terms of their own are grouped by these
terms, so that a new pod asks each group once. Owned by `ClusterSnapshot`.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from scheduler.framework.columns import FloatArray, IdArray, row_view
from scheduler.framework.pod_terms import Labels, Match, Namespaces, PodAffinity, Question, Term

if TYPE_CHECKING:
    from scheduler.framework.pod_info import ClassKey, PodInfo
    from scheduler.framework.snapshot import ClusterSnapshot

_KEPT_BYTES: Final = 4 << 20
_KEPT_LEAST: Final = 16
_KEPT_MOST: Final = 512
_EMPTY_GROUPS: Final = 256
_FEW: Final = 32


def sums(ids: IdArray, counts: FloatArray, values: int) -> FloatArray:
    """Counts added up by id."""
    return np.bincount(ids, weights=counts, minlength=values).astype(np.float64, copy=False)


class _ByValue:
    """A tally summed up by the values of one label; true as long as the nodes' labels do not change."""

    __slots__ = ("ids", "row", "values", "version")

    def __init__(self, ids: IdArray, values: FloatArray, version: int) -> None:
        self.ids = row_view(ids)
        self.values = values
        self.row = row_view(values)
        self.version = version


class Tally:
    """Counts by column of the snapshot. Floats, because that is what they are multiplied with."""

    __slots__ = ("_by_value", "_row", "counts")

    def __init__(self, capacity: int) -> None:
        self.counts: FloatArray = np.zeros(capacity)
        self._row = row_view(self.counts)
        self._by_value: dict[str, _ByValue] = {}

    def add(self, column: int, amount: int, version: int) -> None:
        self._row[column] += amount
        for known in self._by_value.values():
            if known.version == version:
                id_ = known.ids[column]
                if id_:
                    known.row[id_] += amount

    def by_value(self, key: str, snapshot: ClusterSnapshot) -> FloatArray:
        """Counts by the id of the label's value; nothing is counted for nodes without the label (id 0)."""
        known = self._by_value.get(key)
        if known is not None and known.version == snapshot.static_version:
            return known.values
        label = snapshot.labels[key]
        width = snapshot.width
        values: FloatArray = sums(label.ids[:width], self.counts[:width], len(label.values))
        values[0] = 0.0
        self._by_value[key] = _ByValue(label.ids, values, snapshot.static_version)
        return values

    def grow(self, capacity: int) -> None:
        counts = np.zeros(capacity)
        counts[: len(self.counts)] = self.counts
        self.counts = counts
        self._row = row_view(counts)
        self._by_value.clear()


class GroupTally:
    """A tally of few pods, mostly: kept as a list of nodes until they are many. There may be thousands of groups."""

    __slots__ = ("_capacity", "_columns", "_dense")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._columns: dict[int, int] = {}
        self._dense: Tally | None = None

    def add(self, column: int, amount: int, version: int) -> None:
        left = self._columns.get(column, 0) + amount
        if left:
            self._columns[column] = left
        else:
            self._columns.pop(column, None)
        if self._dense is not None:
            self._dense.add(column, amount, version)
        elif len(self._columns) > _FEW:
            self._dense = Tally(self._capacity)
            for each, count in self._columns.items():
                self._dense.counts[each] = count

    def by_value(self, key: str, snapshot: ClusterSnapshot) -> FloatArray:
        if self._dense is not None:
            return self._dense.by_value(key, snapshot)
        label = snapshot.labels[key]
        values: FloatArray = np.zeros(len(label.values))
        for column, count in self._columns.items():
            values[label.ids[column]] += count
        values[0] = 0.0
        return values

    def grow(self, capacity: int) -> None:
        self._capacity = capacity
        if self._dense is not None:
            self._dense.grow(capacity)


class _PodClass:
    """Pods with the same namespace and labels, that are all being deleted or all not."""

    __slots__ = ("columns", "labels", "namespace", "tallies", "terminating")

    def __init__(self, namespace: str, labels: Labels, terminating: bool) -> None:
        self.namespace = namespace
        self.labels = labels
        self.terminating = terminating
        self.columns: dict[int, int] = {}
        self.tallies: list[Tally] = []


class AffinityGroup:
    """Pods with the same terms about other pods."""

    __slots__ = ("pods", "tally", "terms")

    def __init__(self, terms: PodAffinity, capacity: int) -> None:
        self.terms = terms
        self.tally = GroupTally(capacity)
        self.pods = 0


class Kind(enum.Enum):
    """What a term of a running pod means to a new one."""

    ANTI = "anti-affinity"
    REQUIRED = "required affinity"
    PREFERRED = "preferred affinity"


class TermOfGroup(NamedTuple):
    group: AffinityGroup
    term: Term
    kind: Kind


def _insisted(match: Match) -> tuple[str, str] | None:
    """A label that every matching pod has, if the namespaces are known by name."""
    if match.namespace_selector is None:
        for each in match.selector.requirements:
            if each.operator == "In" and len(each.values) == 1:
                return each.key, next(iter(each.values))
    return None


class _TermIndex:
    """Terms of running pods by one label they insist on, so that a new pod asks few of very many."""

    def __init__(self) -> None:
        self._by_label: dict[tuple[str, str, str], list[TermOfGroup]] = {}
        self._others: list[TermOfGroup] = []

    def add(self, group: AffinityGroup) -> None:
        terms = group.terms
        for kind, listed in (
            (Kind.ANTI, terms.anti),
            (Kind.REQUIRED, terms.required),
            (Kind.PREFERRED, terms.preferred),
        ):
            for term in listed:
                self._add(TermOfGroup(group, term, kind))

    def _add(self, entry: TermOfGroup) -> None:
        match = entry.term.match
        label = _insisted(match)
        if label is None:
            self._others.append(entry)
            return
        for namespace in match.namespaces:
            self._by_label.setdefault((namespace, *label), []).append(entry)

    def about(self, pod: PodInfo, known: Namespaces) -> Iterator[TermOfGroup]:
        """Terms that match the pod. A group may be empty by now."""
        for entry in self._others:
            if entry.term.match.matches(pod.namespace, pod.labels, known):
                yield entry
        for key, value in pod.labels.items():
            for entry in self._by_label.get((pod.namespace, key, value), ()):
                if entry.term.match.matches(pod.namespace, pod.labels, known):
                    yield entry


class PodTallies:
    """All tallies and groups of one snapshot."""

    def __init__(self, capacity: int) -> None:
        self.namespaces: dict[str, Labels] = {}
        self.groups: dict[bytes, AffinityGroup] = {}
        self._index = _TermIndex()
        self._empty_groups = 0
        self._classes: dict[ClassKey, _PodClass] = {}
        self._by_label: dict[tuple[str, str, str], dict[ClassKey, _PodClass]] = {}  # (namespace, label, value)
        self._tallies: OrderedDict[str, tuple[Question, Tally]] = OrderedDict()
        self._capacity = capacity

    def occupy(self, info: PodInfo, column: int, sign: int, version: int, simulating: bool) -> bool:
        """Count a pod in or out. Whether the set of groups changed: then whoever asked them must ask again."""
        key = info.class_key
        known = self._classes.get(key)
        if known is None:
            known = self._classes[key] = _PodClass(info.namespace, info.labels, info.terminating)
            known.tallies = [tally for question, tally in self._tallies.values() if self._holds(question, known)]
            for label in key[1]:
                self._by_label.setdefault((info.namespace, *label), {})[key] = known
        left = known.columns.get(column, 0) + sign
        if left:
            known.columns[column] = left
        else:
            known.columns.pop(column, None)
        for tally in known.tallies:
            tally.add(column, sign, version)
        if not known.columns:
            del self._classes[key]
            for label in key[1]:
                alike = self._by_label[(known.namespace, *label)]
                del alike[key]
                if not alike:
                    del self._by_label[(known.namespace, *label)]
        return info.affinity is not None and self._group(info.affinity, column, sign, version, simulating)

    def _group(self, terms: PodAffinity, column: int, sign: int, version: int, simulating: bool) -> bool:
        changed = False
        group = self.groups.get(terms.key)
        if group is None:
            group = self.groups[terms.key] = AffinityGroup(terms, self._capacity)
            self._index.add(group)
            self._empty_groups += 1
            changed = True
        self._empty_groups -= not group.pods
        group.pods += sign
        group.tally.add(column, sign, version)
        self._empty_groups += not group.pods
        # Empty groups do no harm, and a simulation must find the group again that it emptied.
        if self._empty_groups > _EMPTY_GROUPS and not simulating:
            self.groups = {key: each for key, each in self.groups.items() if each.pods}
            self._index = _TermIndex()
            for each in self.groups.values():
                self._index.add(each)
            self._empty_groups = 0
            changed = True
        return changed

    def about(self, pod: PodInfo) -> Iterator[TermOfGroup]:
        """Terms of running pods that mean this pod."""
        return self._index.about(pod, self.namespaces)

    def _holds(self, question: Question, known: _PodClass) -> bool:
        return question.holds(known.namespace, known.labels, known.terminating, self.namespaces)

    def _candidates(self, question: Question) -> Iterable[_PodClass]:
        """Classes that may match: few of very many when the question insists on a label."""
        for match in question.matches:
            label = _insisted(match)
            if label is not None:
                alike = [self._by_label.get((namespace, *label), {}) for namespace in match.namespaces]
                return [known for each in alike for known in each.values()]
        return self._classes.values()

    def tally(self, question: Question) -> Tally:
        """The answer to a question; do not keep it beyond the current step."""
        kept = self._tallies.get(question.key)
        if kept is not None:
            self._tallies.move_to_end(question.key)
            return kept[1]
        tally = Tally(self._capacity)
        for known in self._candidates(question):
            if self._holds(question, known):
                known.tallies.append(tally)
                for column, count in known.columns.items():
                    tally.counts[column] += count
        self._tallies[question.key] = (question, tally)
        room = _KEPT_BYTES // (8 * self._capacity)
        while len(self._tallies) > max(_KEPT_LEAST, min(room, _KEPT_MOST)):
            _, (forgotten, old) = self._tallies.popitem(last=False)
            for known in self._candidates(forgotten):
                known.tallies = [each for each in known.tallies if each is not old]
        return tally

    def set_namespace(self, name: str, labels: Labels | None) -> bool:
        """Take over a namespace's labels (None: it is gone); whether that changed anything."""
        if self.namespaces.get(name) == labels:
            return False
        if labels is None:
            del self.namespaces[name]
        else:
            self.namespaces[name] = labels
        self._tallies.clear()
        for known in self._classes.values():
            known.tallies = []
        return True

    def grow(self, capacity: int) -> None:
        self._capacity = capacity
        for _, tally in self._tallies.values():
            tally.grow(capacity)
        for group in self.groups.values():
            group.tally.grow(capacity)

    @property
    def kept(self) -> int:
        """How many tallies are kept up to date; for tests."""
        return len(self._tallies)
