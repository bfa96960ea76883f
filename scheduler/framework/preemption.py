"""Preemption's rules as pure functions: who is a victim, which budgets that breaks, which node costs least.

Used by the DefaultPreemption plugin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from machinery.selectors import LabelSelector
from scheduler.framework.pod_info import PodInfo

_LATE = datetime.max.replace(tzinfo=UTC)
# Added to every victim's priority, so that fewer victims of negative priority do not look costlier than more of them.
_OFFSET = 2**31


@dataclass(frozen=True, slots=True)
class Budget:
    """What matters of a PodDisruptionBudget."""

    namespace: str
    selector: LabelSelector
    allowed: int
    disrupted: frozenset[str] = frozenset()

    def covers(self, pod: PodInfo) -> bool:
        """An empty selector covers nothing here, and a pod that is being disrupted already is counted in `allowed`."""
        return (
            self.namespace == pod.namespace
            and bool(pod.labels)
            and not self.selector.empty
            and self.selector.matches(pod.labels)
            and pod.name not in self.disrupted
        )


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that fits once its victims are gone; the most important victim comes first."""

    column: int
    victims: tuple[PodInfo, ...]
    violations: int


def started(pod: PodInfo) -> datetime:
    """When the pod started; one that has not counts as having started just now."""
    return (pod.pod.status.startTime if pod.pod.status is not None else None) or _LATE


def importance(pod: PodInfo) -> tuple[int, datetime]:
    """Sorts the most important first: by priority, then by age."""
    return -pod.priority, started(pod)


def split_by_budget(pods: Iterable[PodInfo], budgets: Sequence[Budget]) -> tuple[list[PodInfo], list[PodInfo]]:
    """(pods whose removal breaks a budget, the others); earlier pods use a budget up first."""
    left = [budget.allowed for budget in budgets]
    breaking: list[PodInfo] = []
    harmless: list[PodInfo] = []
    for pod in pods:
        broken = False
        for index, budget in enumerate(budgets):
            if budget.covers(pod):
                left[index] -= 1
                broken = broken or left[index] < 0
        (breaking if broken else harmless).append(pod)
    return breaking, harmless


def reprieve(
    pods: Iterable[PodInfo], budgets: Sequence[Budget], spare: Callable[[PodInfo], bool]
) -> tuple[tuple[PodInfo, ...], int]:
    """(victims, how many break a budget). `spare(pod)` puts a pod back if there is room for it beside the preemptor;
    those that would break a budget are tried first, and within that the most important ones."""
    breaking, harmless = split_by_budget(sorted(pods, key=importance), budgets)
    victims = [pod for pod in breaking if not spare(pod)]
    violations = len(victims)
    victims += [pod for pod in harmless if not spare(pod)]
    return tuple(sorted(victims, key=importance)), violations


def _latest_first(candidate: Candidate) -> float:
    """By the earliest start among the victims of highest priority: who ran for the shortest time loses least."""
    highest = candidate.victims[0].priority
    return -min(started(pod).timestamp() for pod in candidate.victims if pod.priority == highest)


def cost(candidate: Candidate) -> tuple[int, ...]:
    """The cheapest candidate has the smallest: budgets broken, highest priority, sum of priorities, victims."""
    victims = candidate.victims
    total = _OFFSET * len(victims)
    for pod in victims:
        total += pod.priority
    return candidate.violations, victims[0].priority, total, len(victims)


def pick(candidates: Sequence[Candidate]) -> Candidate:
    """The node to take; a node that needs no victims at all, if there is one. Among equals that whose most important
    victims are youngest, then the first."""
    free = next((each for each in candidates if not each.victims), None)
    if free is not None:
        return free
    costs = [cost(each) for each in candidates]
    least = min(costs)
    cheapest = [each for each, found in zip(candidates, costs, strict=True) if found == least]
    return cheapest[0] if len(cheapest) == 1 else min(cheapest, key=_latest_first)


def candidate_count(nodes: int, percentage: int = 10, least: int = 100) -> int:
    """How many candidates are enough to choose from."""
    return min(max(nodes * percentage // 100, least), nodes)
