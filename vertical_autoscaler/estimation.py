"""From histograms to a recommendation: percentiles, margin, confidence, minimum, and the policy's limits. Pure.

Amounts are whole: CPU in millicores, memory in bytes. Source of the rules: the vertical pod autoscaler's documentation
of its recommender and flags.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from vertical_autoscaler.objects import ContainerPolicy, ContainerRecommendation
from vertical_autoscaler.usage import Aggregate

CPU, MEMORY = "cpu", "memory"
RESOURCES: Final = (CPU, MEMORY)
TARGET, LOWER, UPPER = 0.9, 0.5, 0.95
MARGIN: Final = 0.15
MIN_CPU: Final = 25
MIN_MEMORY: Final = 250 * 2**20
MOST: Final = 10**14
LOW_CONFIDENCE: Final = 1 / 24
"""Days of history below which the lower bound is far from what was measured."""

Amounts = dict[str, int]


class Estimate(NamedTuple):
    """What the history of a container says, before any policy."""

    target: Amounts
    lower: Amounts
    upper: Amounts


def whole(amount: float) -> int:
    """Between 0 and the highest amount there is; infinity included."""
    return MOST if amount > MOST else int(max(amount, 0.0))


def estimate(history: Aggregate, containers: int) -> Estimate:
    """Of one container of a pod that has so many: the pod's minimum is shared among them."""
    days = history.confidence()
    widen = 1 + 1 / days if days > 0 else float("inf")
    narrow = (1 + 0.001 / days) ** -2 if days > 0 else 0.0
    floor = {CPU: whole(MIN_CPU / containers), MEMORY: whole(MIN_MEMORY / containers)}

    def at(share: float, factor: float) -> Amounts:
        base = {CPU: whole(history.cpu.percentile(share) * 1000), MEMORY: whole(history.memory.percentile(share))}
        safe = {name: amount + whole(amount * MARGIN) for name, amount in base.items()}
        scaled = {name: whole(amount * factor) if amount else 0 for name, amount in safe.items()}
        return {name: max(amount, floor[name]) for name, amount in scaled.items()}

    return Estimate(at(TARGET, 1.0), at(LOWER, narrow), at(UPPER, widen))


def allowed(amounts: Mapping[str, int], policy: ContainerPolicy) -> Amounts:
    """Within minAllowed and maxAllowed; where they contradict each other the maximum holds."""
    found = {}
    for name, amount in amounts.items():
        low, high = policy.lowest(name), policy.highest(name)
        raised = amount if low is None else max(amount, low)
        found[name] = raised if high is None else min(raised, high)
    return found


def recommend(name: str, history: Aggregate, containers: int, policy: ContainerPolicy) -> ContainerRecommendation:
    """The recommendation for a container that the policy lets be scaled."""
    found = estimate(history, containers)
    controlled = [each for each in RESOURCES if each in policy.resources]

    def only(amounts: Amounts) -> Amounts:
        return {each: amounts[each] for each in controlled}

    return ContainerRecommendation(
        name,
        target=allowed(only(found.target), policy),
        lower=allowed(only(found.lower), policy),
        upper=allowed(only(found.upper), policy),
        uncapped=only(found.target),
    )
