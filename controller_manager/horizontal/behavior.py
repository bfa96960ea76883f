"""From a wanted count to the next one: stabilization windows, scaling policies, minimum and maximum. Pure.

With `spec.behavior` the rules of "Configurable scaling behavior" hold; without it the older ones: the highest
recommendation of the downscale window, and at most the double (or 4) at a time. Times are seconds of one clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from api.models import autoscaling_v2
from machinery import quantity

WITHIN = ("DesiredWithinRange", "the desired count is within the acceptable range")
TOO_FEW = ("TooFewReplicas", "the desired replica count is less than the minimum replica count")
TOO_MANY = ("TooManyReplicas", "the desired replica count is more than the maximum replica count")
UP_LIMIT = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
DOWN_LIMIT = ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate")
STEADY = ("ReadyForNewScale", "recommended size matches current size")
UP_STABLE = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
)
DOWN_STABLE = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
)
DOUBLE, AT_LEAST = 2, 4
DEFAULT_UP = (("Pods", 4, 15), ("Percent", 100, 15))
DEFAULT_DOWN = (("Percent", 100, 15),)


class Recommendation(NamedTuple):
    """A count that was wanted at a time."""

    replicas: int
    at: float


class Change(NamedTuple):
    """A count that was changed by `delta` (positive) at a time."""

    delta: int
    at: float


class Rules(NamedTuple):
    """One direction of a behavior. Policies are (type, value, periodSeconds)."""

    window: float
    policies: tuple[tuple[str, int, int], ...]
    select: str = "Max"
    tolerance: float | None = None


class Verdict(NamedTuple):
    """The count, and (reason, message) of AbleToScale and of ScalingLimited."""

    replicas: int
    stabilized: int
    able: tuple[str, str]
    limited: tuple[str, str]

    @property
    def is_limited(self) -> bool:
        return self.replicas != self.stabilized


def rules_of(behavior: autoscaling_v2.HorizontalPodAutoscalerBehavior, downscale_window: float) -> tuple[Rules, Rules]:
    """(up, down) of a behavior; what it leaves out has the documented defaults."""
    up, down = behavior.scaleUp, behavior.scaleDown
    return _rules(up, 0.0, DEFAULT_UP), _rules(down, downscale_window, DEFAULT_DOWN)


def _rules(
    rules: autoscaling_v2.HPAScalingRules | None, window: float, policies: tuple[tuple[str, int, int], ...]
) -> Rules:
    if rules is None:
        return Rules(window, policies)
    tolerance = rules.tolerance
    return Rules(
        window if rules.stabilizationWindowSeconds is None else float(rules.stabilizationWindowSeconds),
        tuple((each.type, each.value, each.periodSeconds) for each in rules.policies or ()) or policies,
        rules.selectPolicy or "Max",
        None if tolerance is None else float(quantity.parse(tolerance)),
    )


def plain(
    current: int, desired: int, recent: Iterable[Recommendation], now: float, window: float, low: int, high: int
) -> Verdict:
    """Without a behavior. `recent` does not hold `desired` yet."""
    stabilized = max([desired, *(each.replicas for each in recent if each.at > now - window)])
    able = DOWN_STABLE if stabilized != desired else STEADY
    limit = max(DOUBLE * current, AT_LEAST)
    ceiling, why = (limit, UP_LIMIT) if high > limit else (high, TOO_MANY)
    if stabilized < low:
        return Verdict(low, stabilized, able, TOO_FEW)
    if stabilized > ceiling:
        return Verdict(ceiling, stabilized, able, why)
    return Verdict(stabilized, stabilized, able, WITHIN)


def ruled(
    current: int,
    desired: int,
    recent: Sequence[Recommendation],
    ups: Sequence[Change],
    downs: Sequence[Change],
    rules: tuple[Rules, Rules],
    now: float,
    low: int,
    high: int,
) -> Verdict:
    """With a behavior. `recent` does not hold `desired` yet."""
    up, down = rules
    lowest = min([desired, *(each.replicas for each in recent if each.at > now - up.window)])
    highest = max([desired, *(each.replicas for each in recent if each.at > now - down.window)])
    stabilized = min(max(current, lowest), highest)
    able = STEADY if stabilized == desired else UP_STABLE if desired >= current else DOWN_STABLE
    if stabilized > current:
        limit = max(current, up_limit(current, ups, downs, up, now))
        ceiling, why = (limit, UP_LIMIT) if high > limit else (high, TOO_MANY)
        if stabilized > ceiling:
            return Verdict(ceiling, stabilized, able, why)
    elif stabilized < current:
        limit = min(current, down_limit(current, ups, downs, down, now))
        floor, why = (limit, DOWN_LIMIT) if low < limit else (low, TOO_FEW)
        if stabilized < floor:
            return Verdict(floor, stabilized, able, why)
    return Verdict(stabilized, stabilized, able, WITHIN)


def up_limit(current: int, ups: Sequence[Change], downs: Sequence[Change], rules: Rules, now: float) -> int:
    """The largest count that the policies allow now."""
    if rules.select == "Disabled":
        return current
    limits = []
    for kind, amount, period in rules.policies:
        start = current - _within(ups, period, now) + _within(downs, period, now)
        limits.append(start + amount if kind == "Pods" else _percent_up(start, amount))
    return min(limits) if rules.select == "Min" else max(limits)


def down_limit(current: int, ups: Sequence[Change], downs: Sequence[Change], rules: Rules, now: float) -> int:
    """The smallest count that the policies allow now."""
    if rules.select == "Disabled":
        return current
    limits = []
    for kind, amount, period in rules.policies:
        start = current - _within(ups, period, now) + _within(downs, period, now)
        limits.append(start - amount if kind == "Pods" else start * (100 - amount) // 100)
    return max(limits) if rules.select == "Min" else min(limits)


def _percent_up(start: int, percent: int) -> int:
    return math.ceil(start * (100 + percent) / 100)


def _within(changes: Iterable[Change], period: float, now: float) -> int:
    return sum(each.delta for each in changes if each.at > now - period)


def still_counting(changes: Sequence[Change], up: Rules, down: Rules, now: float) -> list[Change]:
    """Those young enough to matter to a policy of either direction."""
    longest = max((period for _, _, period in (*up.policies, *down.policies)), default=0)
    return [each for each in changes if each.at > now - longest]


def remembered(recent: Sequence[Recommendation], now: float, window: float) -> list[Recommendation]:
    """Those young enough to matter to a window."""
    return [each for each in recent if each.at > now - window]
