"""The arithmetic of rollouts: how many replicas each ReplicaSet of a Deployment should have next.

Pure numbers, so that properties can be checked over random failures: during a rolling update never more than desired +
maxSurge replicas are asked for, and no set is shrunk so far that fewer than desired - maxUnavailable stay available.
Called by controller.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple


class SetSize(NamedTuple):
    """One ReplicaSet as the arithmetic sees it."""

    name: str
    replicas: int  # spec
    available: int  # status, at most `replicas`: what is about to be deleted is not to be counted on
    created: datetime
    annotated_max: int | None = None
    annotated_desired: int | None = None


class Limits(NamedTuple):
    """What the Deployment wants: replicas, and how far a rolling update may stray from them."""

    desired: int
    max_surge: int = 0
    max_unavailable: int = 0


Targets = dict[str, int]
"""New spec.replicas by name; only what changes."""


def resolve_fenceposts(max_surge: int | str | None, max_unavailable: int | str | None, desired: int) -> tuple[int, int]:
    """Absolute (surge, unavailable): percents round up and down; never both zero, or nothing would move."""
    surge = _absolute(max_surge, desired, round_up=True)
    unavailable = _absolute(max_unavailable, desired, round_up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, desired)


def _absolute(value: int | str | None, total: int, *, round_up: bool) -> int:
    if value is None:
        return 0
    if isinstance(value, int):
        return value
    percent = int(value.rstrip("%"))
    return -(-percent * total // 100) if round_up else percent * total // 100


def new_set_replicas(limits: Limits, rolling: bool, total: int, current: int) -> int:
    """How large the new set may be now, given all replicas of all sets (`total`)."""
    if not rolling:
        return limits.desired
    room = limits.desired + limits.max_surge - total
    if room <= 0:
        return current
    return current + min(room, limits.desired - current)


def plan_rolling(limits: Limits, new: SetSize, old: Sequence[SetSize]) -> Targets:
    """One step of a rolling update: resize the new set if it may grow (or must shrink), else shrink old ones."""
    if new.replicas > limits.desired:
        return {new.name: limits.desired}
    total = new.replicas + sum(each.replicas for each in old)
    if new.replicas < limits.desired:
        wanted = new_set_replicas(limits, True, total, new.replicas)
        if wanted != new.replicas:
            return {new.name: wanted}
    return _shrink_old(limits, new, [each for each in old if each.replicas > 0], total)


def _shrink_old(limits: Limits, new: SetSize, old: Sequence[SetSize], total: int) -> Targets:
    minimum = limits.desired - limits.max_unavailable
    # What the new set has not made available yet counts as lost, or shrinking would add to it.
    spare = total - minimum - (new.replicas - new.available)
    if not old or spare <= 0:
        return {}
    sizes = {each.name: each.replicas for each in old}
    ordered = sorted(old, key=lambda each: (each.created, each.name))
    # Unavailable replicas of old sets first: they help nobody and would block the rollout for ever.
    for each in ordered:
        unhealthy = min(spare, each.replicas - each.available)
        if unhealthy > 0:
            sizes[each.name] -= unhealthy
            spare -= unhealthy
    removable = new.available + sum(each.available for each in old) - minimum
    for each in ordered:
        step = min(sizes[each.name], removable)
        if step <= 0:
            continue
        sizes[each.name] -= step
        removable -= step
    return {each.name: sizes[each.name] for each in old if sizes[each.name] != each.replicas}


def plan_scale(limits: Limits, rolling: bool, new: SetSize | None, old: Sequence[SetSize]) -> Targets:
    """React to a changed spec.replicas outside or amidst a rollout, without advancing the rollout."""
    sets = [*([new] if new is not None else []), *old]
    active = [each for each in sets if each.replicas > 0]
    if len(active) <= 1:
        target = active[0] if active else (new or (max(old, key=lambda each: each.created) if old else None))
        if target is None or target.replicas == limits.desired:
            return {}
        return {target.name: limits.desired}
    if new is not None and is_saturated(limits, new):
        return {each.name: 0 for each in old if each.replicas > 0}
    if not rolling:
        return {}
    return _proportional(limits, active)


def is_saturated(limits: Limits, new: SetSize) -> bool:
    """Whether the new set alone serves what is desired."""
    return new.annotated_desired == new.replicas == new.available == limits.desired


def _proportional(limits: Limits, active: Sequence[SetSize]) -> Targets:
    """Share the difference among the sets by their size, so that the risk of a bad rollout stays in proportion."""
    allowed = limits.desired + limits.max_surge if limits.desired > 0 else 0
    to_add = allowed - sum(each.replicas for each in active)
    growing = to_add > 0
    ordered = sorted(
        active, key=lambda each: (-each.replicas, -each.created.timestamp() if growing else each.created.timestamp())
    )
    sizes: Targets = {}
    added = 0
    for each in ordered:
        share = _share(limits, each, allowed, to_add, added)
        sizes[each.name] = each.replicas + share
        added += share
    left = to_add - added  # by rounding: the largest sets bear it
    for each in ordered:
        step = max(left, -sizes[each.name])
        sizes[each.name] += step
        left -= step
    return {each.name: sizes[each.name] for each in ordered if sizes[each.name] != each.replicas}


def _share(limits: Limits, each: SetSize, allowed: int, to_add: int, added: int) -> int:
    left = to_add - added
    if each.replicas == 0 or to_add == 0 or left == 0:
        return 0
    if limits.desired == 0:
        fraction = -each.replicas
    else:
        base = each.annotated_max or allowed
        # Half away from zero, as upstream rounds: Python's round() goes to even.
        fraction = int(each.replicas * allowed / base + 0.5) - each.replicas
    return min(fraction, left) if to_add > 0 else max(fraction, left)
