"""The arithmetic of a PodDisruptionBudget: how many pods there should be, must be and are healthy.

Pure but for the clock that is handed in. Called by controller.py.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from api.models import core_v1, meta_v1, policy_v1
from controller_manager.objects import controller_of, is_ready, wall_seconds
from machinery.clock import Clock

DELETION_TIMEOUT: Final = 120.0
ALLOWED: Final = "DisruptionAllowed"
SUFFICIENT: Final = "SufficientPods"
INSUFFICIENT: Final = "InsufficientPods"
SYNC_FAILED: Final = "SyncFailed"

Budget = policy_v1.PodDisruptionBudget
Pod = core_v1.Pod


class CannotCount(Exception):
    """The number of pods that there should be cannot be known; the budget allows nothing until it can."""


class Expectation(NamedTuple):
    """Pods that there should be, pods that must be healthy, and the pods that no controller could be asked about."""

    expected: int
    desired: int
    unmanaged: tuple[Pod, ...] = ()


Scale = Callable[[Pod], tuple[str, int] | None]
"""Who manages the pod (a uid) and how many pods that one wants; None if nobody knows."""


def plan_expectation(budget: Budget, pods: Sequence[Pod], scale: Scale) -> Expectation:
    """What the budget demands. Raises CannotCount."""
    most, least = budget.spec.maxUnavailable, budget.spec.minAvailable
    if most is not None:
        expected, unmanaged = _expected_scale(pods, scale)
        return Expectation(expected, max(0, expected - scaled(most, expected)), unmanaged)
    if isinstance(least, int):
        return Expectation(len(pods), least)
    if least is not None:
        expected, unmanaged = _expected_scale(pods, scale)
        return Expectation(expected, scaled(least, expected), unmanaged)
    return Expectation(len(pods), 0)


def scaled(value: int | str, total: int) -> int:
    """A number, or a percentage of the total rounded up."""
    if isinstance(value, int):
        return value
    text = value.removesuffix("%")
    if not text.isdigit() or text == value:
        raise CannotCount(f"invalid value for IntOrString: {value}")
    return -(-int(text) * total // 100)


def _expected_scale(pods: Sequence[Pod], scale: Scale) -> tuple[int, tuple[Pod, ...]]:
    wanted: dict[str, int] = {}
    unmanaged: list[Pod] = []
    for pod in pods:
        if controller_of(pod) is None:
            unmanaged.append(pod)
            continue
        found = scale(pod)
        if found is None:
            raise CannotCount(f'found no controllers for pod "{pod.metadata.name}"')
        wanted[found[0]] = found[1]
    return sum(wanted.values()), tuple(unmanaged)


class Disruptions(NamedTuple):
    """Evicted pods that are still to go, those that did not go in time, and when to look again."""

    pending: dict[str, datetime]
    overdue: tuple[Pod, ...]
    recheck: float | None


def plan_disruptions(budget: Budget, pods: Sequence[Pod], clock: Clock) -> Disruptions:
    """Follow up the evictions that the API server has granted."""
    noted: dict[str, Any] = (budget.status.disruptedPods if budget.status is not None else None) or {}
    pending: dict[str, datetime] = {}
    overdue: list[Pod] = []
    recheck: float | None = None
    for pod in pods:
        since = noted.get(pod.metadata.name or "")
        if since is None or pod.metadata.deletionTimestamp is not None:
            continue  # not evicted, or on its way: no reservation needed any more
        moment = since if isinstance(since, datetime) else datetime.fromisoformat(str(since).replace("Z", "+00:00"))
        left = DELETION_TIMEOUT - clock.elapsed(moment)
        if left <= 0:
            overdue.append(pod)
            continue
        pending[pod.metadata.name or ""] = moment
        recheck = left if recheck is None else min(recheck, left)
    return Disruptions(pending, tuple(overdue), recheck)


def count_healthy(pods: Sequence[Pod], pending: dict[str, datetime]) -> int:
    """Ready pods that are neither going nor promised to an eviction."""
    return sum(
        pod.metadata.deletionTimestamp is None and (pod.metadata.name or "") not in pending and is_ready(pod)
        for pod in pods
    )


def status_of(
    budget: Budget, expectation: Expectation, healthy: int, pending: dict[str, datetime], clock: Clock
) -> policy_v1.PodDisruptionBudgetStatus:
    """The status that follows."""
    allowed = max(0, healthy - expectation.desired) if expectation.expected > 0 else 0
    reason = SUFFICIENT if allowed > 0 else INSUFFICIENT
    return policy_v1.PodDisruptionBudgetStatus(
        observedGeneration=budget.metadata.generation,
        disruptionsAllowed=allowed,
        currentHealthy=healthy,
        desiredHealthy=expectation.desired,
        expectedPods=expectation.expected,
        disruptedPods=pending or None,
        conditions=_with_condition(budget, "True" if allowed > 0 else "False", reason, "", clock),
    )


def failed_status(budget: Budget, message: str, clock: Clock) -> policy_v1.PodDisruptionBudgetStatus:
    """The safe status when pods cannot be counted: nothing may be disrupted."""
    before = budget.status or policy_v1.PodDisruptionBudgetStatus()
    return policy_v1.PodDisruptionBudgetStatus(
        observedGeneration=budget.metadata.generation,
        disruptionsAllowed=0,
        currentHealthy=before.currentHealthy or 0,
        desiredHealthy=before.desiredHealthy or 0,
        expectedPods=before.expectedPods or 0,
        disruptedPods=before.disruptedPods,
        conditions=_with_condition(budget, "False", SYNC_FAILED, message, clock),
    )


def _with_condition(budget: Budget, value: str, reason: str, message: str, clock: Clock) -> list[meta_v1.Condition]:
    conditions = list(budget.status.conditions or ()) if budget.status is not None else []
    current = next((each for each in conditions if each.type == ALLOWED), None)
    since = current.lastTransitionTime if current is not None and current.status == value else wall_seconds(clock)
    made = meta_v1.Condition(
        type=ALLOWED,
        status=value,
        reason=reason,
        message=message,
        lastTransitionTime=since,
        observedGeneration=budget.metadata.generation,
    )
    return [*(each for each in conditions if each.type != ALLOWED), made]
