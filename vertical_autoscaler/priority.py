"""Which pods the updater changes, in which order, and how many at a time. Pure.

Source of the rules: the vertical pod autoscaler's documentation of its updater and flags. Times are cluster seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from vertical_autoscaler.objects import ContainerRecommendation, EvictionRequirement
from vertical_autoscaler.resources import Change

MIN_CHANGE: Final = 0.1
LIFETIME: Final = 12 * 3600.0
QUICK_OOM: Final = 600.0
MIN_REPLICAS: Final = 2
TOLERANCE: Final = 0.5
DEFERRED: Final = 300.0
IN_PROGRESS: Final = 3600.0


class Priority(NamedTuple):
    """How much a pod's requests are wrong. Compares as upstream orders: who must grow first, then the difference."""

    scale_up: bool
    diff: float
    outside: bool


class PodFacts(NamedTuple):
    """What of a pod matters besides its containers; `age`: seconds since its start, None before."""

    age: float | None
    quick_oom: bool


class Judgement(NamedTuple):
    """Whether to change a pod, and why or why not."""

    update: bool
    reason: str


def priority(changes: Sequence[Change], recommended: Mapping[str, ContainerRecommendation]) -> Priority:
    """Of a pod, by the changes that are wanted for its containers."""
    outside = scale_up = False
    requested: dict[str, int] = {}
    wanted: dict[str, int] = {}
    for change in changes:
        bounds = recommended[change.container.name]
        for name, amount in change.requests.items():
            wanted[name] = wanted.get(name, 0) + amount
            request = change.container.requests.get(name)
            if request is None:  # none is the same as too little
                outside = scale_up = True
                continue
            requested[name] = requested.get(name, 0) + request
            scale_up = scale_up or amount > request
            low, high = bounds.lower.get(name), bounds.upper.get(name)
            outside = outside or (low is not None and request < low) or (high is not None and request > high)
    diff = sum(abs(requested.get(name, 0) - total) / max(requested.get(name, 0), 1) for name, total in wanted.items())
    return Priority(scale_up, diff, outside)


def judge(found: Priority, facts: PodFacts) -> Judgement:
    """A pod is changed when its requests are out of bounds, when it died soon of too little memory, or in time."""
    if facts.quick_oom:
        if found.diff == 0:
            return Judgement(False, "it ran out of memory soon after its start, but its requests would not change")
        return Judgement(True, "it ran out of memory soon after its start")
    if found.outside:
        if found.diff == 0:
            return Judgement(False, "its requests would not change")
        return Judgement(True, "its requests are outside the recommended range")
    if facts.age is None:
        return Judgement(False, "it has not started")
    if facts.age < LIFETIME:
        return Judgement(False, "its requests are within the recommended range, and it is younger than 12 h")
    if found.diff < MIN_CHANGE:
        return Judgement(False, f"its requests differ by less than {MIN_CHANGE:.0%} from the recommended ones")
    return Judgement(True, f"it is older than 12 h and its requests differ by {found.diff:.0%}")


def admitted(changes: Sequence[Change], requirements: Sequence[EvictionRequirement]) -> bool:
    """Whether a container meets all eviction requirements, each by one of its resources."""

    def met(change: Change, requirement: EvictionRequirement) -> bool:
        for name in requirement.resources:
            target, request = change.requests.get(name), change.container.requests.get(name, 0)
            if target is None:
                continue
            if requirement.changeRequirement == "TargetHigherThanRequests" and target > request:
                return True
            if requirement.changeRequirement == "TargetLowerThanRequests" and target < request:
                return True
        return False

    return not requirements or any(all(met(change, each) for each in requirements) for change in changes)


@dataclass(slots=True)
class Group:
    """The pods of one replica set (or the like) in one turn."""

    configured: int
    pending: int
    running: int
    evicted: int = 0
    resized: int = 0

    @property
    def tolerance(self) -> int:
        return int(self.configured * TOLERANCE)

    def disruptable(self) -> bool:
        """Whether one more pod may be disturbed now."""
        alive = self.running - self.evicted - self.resized
        if alive > self.configured - self.tolerance:
            return True
        alone = self.configured == self.running and self.tolerance == 0
        return alone and self.evicted == 0 and self.resized == 0


class Resize(NamedTuple):
    """How far a pod's resize has come, by its conditions; `age`: seconds since it was asked for."""

    pending: str
    in_progress: bool
    failed: bool
    age: float

    @property
    def ongoing(self) -> bool:
        return bool(self.pending) or self.in_progress

    def hopeless(self) -> bool:
        """Whether the pod has to be recreated instead."""
        if self.pending:
            return self.pending != "Deferred" or self.age > DEFERRED
        return self.in_progress and (self.failed or self.age > IN_PROGRESS)
