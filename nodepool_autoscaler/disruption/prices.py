"""Leaving of a planned claim only what is cheaper than a price, whatever of it the cloud will have. Pure.

Source: karpenter.sh, "Consolidation" and "Spot consolidation". A claim asks for instance types, capacity types and
zones, not for single offerings: a type stays only if all of its offerings that could be launched are cheaper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from nodepool_autoscaler.disruption.candidates import Candidate
from nodepool_autoscaler.model import Offering, PlannedClaim
from nodepool_autoscaler.names import CAPACITY_TYPE, INSTANCE_TYPE, ON_DEMAND, SPOT, ZONE
from nodepool_autoscaler.requirements import IN, Requirement, merged

ENOUGH_SPOT_TYPES: Final = 15


class PriceError(Exception):
    """Nothing that may be launched is left; why, in upstream's words."""


NO_CHEAPER: Final = "Can't replace with a cheaper node"


def _unmet(requirements: Sequence[Requirement], offerings: Sequence[Offering]) -> list[str]:
    """Labels of which the offerings have fewer values than a requirement's minValues."""
    short = []
    for each in requirements:
        if each.min_values is not None:
            values = {offer.labels[each.key] for offer in offerings if each.key in offer.labels}
            if len(values) < each.min_values:
                short.append(each.key)
    return short


def narrowed(planned: PlannedClaim, offerings: Sequence[Offering]) -> PlannedClaim:
    """With these offerings only. Raises PriceError when they are too few for minValues."""
    short = _unmet(planned.requirements, offerings)
    if short:
        raise PriceError(
            f"Filtering by price: minValues requirement is not met for label(s) (label(s)=[{' '.join(short)}])"
        )
    pinned = [
        Requirement.of(INSTANCE_TYPE, IN, {each.instance_type for each in offerings}),
        Requirement.of(CAPACITY_TYPE, IN, {each.capacity_type for each in offerings}),
        Requirement.of(ZONE, IN, {each.zone for each in offerings}),
    ]
    known = merged(planned.requirements, pinned)
    return replace(planned, offerings=tuple(offerings), requirements=tuple(known.values()))


def _by_worst(offerings: Sequence[Offering], limit: float) -> list[Offering]:
    """Those of types of which every offering is cheaper than the limit."""
    worst: dict[str, float] = {}
    for each in offerings:
        worst[each.instance_type] = max(worst.get(each.instance_type, each.price), each.price)
    return [each for each in offerings if worst[each.instance_type] < limit]


def _zoned(offerings: Sequence[Offering], limit: float) -> list[Offering]:
    """Of one zone, where types are cheaper that elsewhere are not."""
    for first in offerings:
        if first.price < limit:
            return _by_worst([each for each in offerings if each.zone == first.zone], limit)
    return []


def cheaper(planned: PlannedClaim, limit: float) -> PlannedClaim:
    """Bought in one way only: what was found cheaper as spot must not be launched on demand for want of it.
    Raises PriceError."""
    for capacity_type in (SPOT, ON_DEMAND):
        of_type = [each for each in planned.offerings if each.capacity_type == capacity_type]
        kept = _by_worst(of_type, limit) or _zoned(of_type, limit)
        if kept:
            return narrowed(planned, kept)
    raise PriceError(NO_CHEAPER)


def cheaper_spot(planned: PlannedClaim, limit: float, *, single: bool) -> PlannedClaim:
    """For spot nodes that spot replaces. One for one there must be many cheaper types, and only that many are asked
    for: otherwise each replacement could be replaced again. Raises PriceError."""
    kept = _by_worst([each for each in planned.offerings if each.capacity_type == SPOT], limit)
    if not kept:
        raise PriceError(NO_CHEAPER)
    found = narrowed(planned, kept)
    if not single:
        return found
    types = found.instance_types
    if len(types) < ENOUGH_SPOT_TYPES:
        raise PriceError(
            f"SpotToSpotConsolidation requires {ENOUGH_SPOT_TYPES} cheaper instance type options than the current "
            f"candidate to consolidate, got {len(types)}"
        )
    for count in range(ENOUGH_SPOT_TYPES, len(types) + 1):
        chosen = [each for each in kept if each.instance_type in types[:count]]
        if not _unmet(planned.requirements, chosen):
            return narrowed(planned, chosen)
    raise AssertionError("all of them were enough")


def without_same_type(planned: PlannedClaim, candidates: Sequence[Candidate]) -> PlannedClaim:
    """To replace several nodes by one of a type that one of them has is only to keep that one: what comes must be
    cheaper than the cheapest of such nodes. Raises PriceError."""
    kept = {each.price for each in candidates if each.instance_type in planned.instance_types}
    if not kept:
        return planned
    limit = min(kept)
    cheap = _by_worst(planned.offerings, limit)
    if not cheap:
        raise PriceError(NO_CHEAPER)
    return narrowed(planned, cheap)
