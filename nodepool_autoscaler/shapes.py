"""Which offerings a pool may launch, and with which of its own labels. Pure.

A pool's requirements narrow what the cloud offers; labels of its own that may have several values are chosen by what
pods ask for, so a shape is an offering with one choice of these.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from api.models import core_v1
from nodepool_autoscaler import names
from nodepool_autoscaler.model import Offering, Pool, World
from nodepool_autoscaler.requirements import IN, OPERATORS, Requirement, merged, of_labels
from nodepool_autoscaler.simulation import Shape
from scheduler.framework.pod_info import PodInfo

MOST_CHOICES = 32  # of a pool's own labels; more are not looked at


def required_terms(info: PodInfo) -> list[list[Requirement]]:
    """What the pod demands of labels: one list for each alternative of its affinity, its selector in each."""
    selector = of_labels(info.spec.nodeSelector or {})
    affinity = info.spec.affinity.nodeAffinity if info.spec.affinity is not None else None
    required = affinity.requiredDuringSchedulingIgnoredDuringExecution if affinity is not None else None
    terms = list(required.nodeSelectorTerms or ()) if required is not None else []
    return [[*selector, *term_of(each)] for each in terms] or [selector]


def preferred_terms(info: PodInfo) -> list[list[Requirement]]:
    """What the pod would like of labels, the most wanted first."""
    affinity = info.spec.affinity.nodeAffinity if info.spec.affinity is not None else None
    listed = (affinity.preferredDuringSchedulingIgnoredDuringExecution if affinity is not None else None) or []
    return [term_of(each.preference) for each in sorted(listed, key=lambda one: -one.weight)]


def term_of(term: core_v1.NodeSelectorTerm) -> list[Requirement]:
    """Its expressions; those that say nothing sensible, which the API server refuses, are left out."""
    found = []
    for each in term.matchExpressions or ():
        if each.operator in OPERATORS:
            try:
                found.append(Requirement.of(each.key, each.operator, each.values or ()))
            except ValueError:
                continue
    return found


def requirements_of(pool: Pool) -> dict[str, Requirement]:
    """All that a pool demands of its nodes' labels, its labels included."""
    return merged(pool.requirements, of_labels({**pool.labels, names.NODE_POOL: pool.name}))


def usable(pool: Pool, offerings: Iterable[Offering]) -> list[Offering]:
    """Those that the pool's requirements allow; what one of them bears as a label is demanded of all."""
    listed = list(offerings)
    decided = {key for each in listed for key in each.labels}
    labels = of_labels({**pool.labels, names.NODE_POOL: pool.name})
    return [
        each
        for each in listed
        if all(demand.allows(each.labels.get(demand.key)) for demand in pool.requirements if demand.key in decided)
        and all(label.allows(each.labels[label.key]) for label in labels if label.key in each.labels)
    ]


def choices(pool: Pool, offerings: Sequence[Offering], pods: Iterable[PodInfo]) -> list[dict[str, str]]:
    """Values of labels that the pool leaves open and no offering decides: what pods ask for, and what they do not.
    None at all when the pool contradicts itself: its nodes would count as drifted from the start."""
    decided = {key for each in offerings for key in each.labels}
    fixed: dict[str, str] = {names.NODE_POOL: pool.name, **pool.labels}
    if not all(each.allows(fixed[each.key]) for each in pool.requirements if each.key in fixed):
        return []
    open_keys: dict[str, list[str | None]] = {}
    asked: dict[str, set[str]] = {}
    for info in pods:
        for term in required_terms(info) + preferred_terms(info):
            for each in term:
                if not each.complement:
                    asked.setdefault(each.key, set()).update(each.values)
    for key, demand in requirements_of(pool).items():
        if key in decided or key in fixed:
            continue
        if not demand.complement and len(demand.values) == 1:
            fixed[key] = next(iter(demand.values))
            continue
        wanted = sorted(value for value in asked.get(key, ()) if demand.allows(value))
        # A label that must be there gets a value even if no pod cares.
        needed = any(not each.allows(None) for each in pool.requirements if each.key == key)
        default = demand.example() if needed else None
        if needed and default is None:
            return []
        open_keys[key] = [default, *(value for value in wanted if value != default)]
    found = []
    for values in itertools.islice(itertools.product(*open_keys.values()), MOST_CHOICES):
        chosen = {key: value for key, value in zip(open_keys, values, strict=True) if value is not None}
        found.append({**fixed, **chosen})
    return found


def shapes_of(world: World, pool: Pool, pods: Iterable[PodInfo]) -> list[Shape]:
    """The cheapest first; among equals the zone with the fewest of the pool's nodes, then by name."""
    offerings = usable(pool, world.offerings.get(pool.node_class, ()))
    held: Counter[str] = Counter(
        each.offering.zone for each in world.nodes if each.offering is not None and each.pool == pool.name
    )
    ordered = sorted(offerings, key=lambda each: (each.price, held[each.zone], *each.key))
    extra = {names.REGISTERED: "true", names.INITIALIZED: "true"}
    return [
        Shape(offering, {**offering.labels, **labels, **extra})
        for labels in choices(pool, offerings, pods)
        for offering in ordered
    ]


def demands(
    pool: Pool, shapes: Sequence[Shape], labels: Mapping[str, str], pods: Iterable[PodInfo]
) -> tuple[Requirement, ...]:
    """A claim's requirements: the pool's, narrowed to what these shapes have and what the pods demand."""
    found = requirements_of(pool)
    for key in (names.INSTANCE_TYPE, names.ZONE, names.CAPACITY_TYPE):
        values = {each.offering.labels[key] for each in shapes if key in each.offering.labels}
        least = found[key].min_values if key in found else None
        found[key] = Requirement.of(key, IN, values, least)
    for info in pods:
        terms = required_terms(info)
        if len(terms) == 1:
            found = merged(found.values(), (each for each in terms[0] if not names.restricted(each.key)))
    chosen = {key: value for key, value in labels.items() if key in found and key not in shapes[0].offering.labels}
    return tuple(sorted(merged(found.values(), of_labels(chosen)).values(), key=lambda each: each.key))
