"""Decisions of the Job controller: which pods to make or delete, and when the Job is over.

Pure but for the clock that is handed in. Called by controller.py.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from api.models import batch_v1, core_v1
from controller_manager.job import indexes
from controller_manager.job.failures import (
    backoff_of_index,
    backoff_of_job,
    completion_index,
    is_failed,
    only_replaces_failed,
)
from controller_manager.job.tally import Tally, is_indexed, is_suspended
from controller_manager.replicaset.plan import deletion_rank
from machinery.clock import Clock

MAX_PER_SYNC: Final = 500
FAILURE_TARGET: Final = "FailureTarget"
SUCCESS_CRITERIA_MET: Final = "SuccessCriteriaMet"
COMPLETIONS_REACHED: Final = "CompletionsReached"
DEADLINE_EXCEEDED: Final = "DeadlineExceeded"


class PodPlan(NamedTuple):
    """Pods to make (an index each in an Indexed Job, else None) or to delete; `wait` until more may be made."""

    create: tuple[int | None, ...] = ()
    delete: tuple[core_v1.Pod, ...] = ()
    wait: float | None = None


class Outcome(NamedTuple):
    """Why the Job is over: the interim condition that says so."""

    type: str
    reason: str
    message: str


def plan_pods(job: batch_v1.Job, tally: Tally, clock: Clock) -> PodPlan:
    """What to do about a Job that is not over. Deletes or creates, never both at once."""
    if is_suspended(job):
        return PodPlan(delete=tuple(tally.active))
    wanted = wanted_active(job, tally)
    surplus = plan_removal(job, tally.active, max(0, len(tally.active) - wanted), clock.now())
    if surplus:
        return PodPlan(delete=tuple(surplus[:MAX_PER_SYNC]))
    room = wanted - len(tally.active) - (tally.terminating if only_replaces_failed(job) else 0)
    if room <= 0:
        return PodPlan()
    if job.spec.backoffLimitPerIndex is None:
        left = backoff_of_job(job, tally.pods, clock)
        if left > 0:
            return PodPlan(wait=left)
    if not is_indexed(job):
        return PodPlan(create=(None,) * min(room, MAX_PER_SYNC))
    pending = pending_indexes(job, tally, min(room, MAX_PER_SYNC))
    waits = {index: backoff_of_index(tally.delayed[index], clock) for index in pending if index in tally.delayed}
    now = tuple(index for index in pending if not waits.get(index))
    return PodPlan(create=now, wait=min((left for left in waits.values() if left > 0), default=None))


def wanted_active(job: batch_v1.Job, tally: Tally) -> int:
    """How many pods should run now."""
    parallelism = job.spec.parallelism if job.spec.parallelism is not None else 1
    if job.spec.completions is None:
        # A work queue: once one pod has succeeded nothing is started any more, and what runs may finish.
        return min(len(tally.active), parallelism) if tally.succeeded > 0 else parallelism
    return max(0, min(job.spec.completions - tally.succeeded, parallelism))


def pending_indexes(job: batch_v1.Job, tally: Tally, most: int) -> list[int]:
    """The lowest indexes that need a pod."""
    taken = {completion_index(pod) for pod in tally.active} | tally.completed | (tally.failed_indexes or frozenset())
    if only_replaces_failed(job):
        taken |= {completion_index(pod) for pod in tally.pods if _leaving(pod, job)}
    found: list[int] = []
    for index in range(job.spec.completions or 0):
        if len(found) >= most:
            break
        if index not in taken:
            found.append(index)
    return found


def _leaving(pod: core_v1.Pod, job: batch_v1.Job) -> bool:
    return pod.metadata.deletionTimestamp is not None and not is_failed(pod, job)


def plan_removal(job: batch_v1.Job, active: Sequence[core_v1.Pod], least: int, now: datetime) -> list[core_v1.Pod]:
    """Active pods that are too many: doubles of an index and invalid ones first, then as a ReplicaSet chooses."""
    ranked = sorted(active, key=lambda pod: deletion_rank(pod, {}, now))
    remove: list[core_v1.Pod] = []
    left = ranked
    if is_indexed(job):
        left, seen = [], set()
        for pod in reversed(ranked):  # the pod most worth keeping comes first
            index = completion_index(pod)
            if index is None or index >= (job.spec.completions or 0) or index in seen:
                remove.append(pod)
            else:
                seen.add(index)
                left.insert(0, pod)
    return [*remove, *left[: max(0, least - len(remove))]]


def plan_outcome(job: batch_v1.Job, tally: Tally, clock: Clock) -> Outcome | None:
    """Why the Job must stop now, or None. What was decided before stays decided."""
    for each in (job.status.conditions if job.status is not None else None) or ():
        if each.type in (FAILURE_TARGET, SUCCESS_CRITERIA_MET) and each.status == "True":
            return Outcome(each.type, each.reason or "", each.message or "")
    failure = _failure(job, tally, clock)
    if failure is not None:
        return Outcome(FAILURE_TARGET, *failure)
    matched = matched_success_rule(job, tally.completed)
    if matched is not None:
        return Outcome(SUCCESS_CRITERIA_MET, "SuccessPolicy", f"Matched rules at index {matched}")
    return None


def _failure(job: batch_v1.Job, tally: Tally, clock: Clock) -> tuple[str, str] | None:
    spec = job.spec
    if tally.fatal is not None:
        return "PodFailurePolicy", tally.fatal
    limit = spec.backoffLimit if spec.backoffLimit is not None else 6
    if tally.failed > limit or _restarted_too_often(job, tally, limit):
        return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    left = deadline_left(job, clock)
    if left is not None and left <= 0:
        return DEADLINE_EXCEEDED, "Job was active longer than specified deadline"
    if tally.failed_indexes:
        most = spec.maxFailedIndexes
        if most is not None and len(tally.failed_indexes) > most:
            return "MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes"
        if len(tally.failed_indexes | tally.completed) >= (spec.completions or 0):
            return "FailedIndexes", "Job has failed indexes"
    return None


def _restarted_too_often(job: batch_v1.Job, tally: Tally, limit: int) -> bool:
    if job.spec.template.spec is None or job.spec.template.spec.restartPolicy != "OnFailure":
        return False
    restarts = sum(
        status.restartCount or 0
        for pod in tally.active
        if pod.status is not None
        for status in [*(pod.status.initContainerStatuses or ()), *(pod.status.containerStatuses or ())]
    )
    return restarts > 0 if limit == 0 else restarts >= limit


def deadline_left(job: batch_v1.Job, clock: Clock) -> float | None:
    """Cluster seconds until activeDeadlineSeconds are over; None if there is no deadline or the Job is suspended."""
    started = job.status.startTime if job.status is not None else None
    if job.spec.activeDeadlineSeconds is None or started is None or is_suspended(job):
        return None
    return job.spec.activeDeadlineSeconds - clock.elapsed(started)


def matched_success_rule(job: batch_v1.Job, completed: frozenset[int]) -> int | None:
    """The first rule of the success policy that the completed indexes satisfy."""
    if job.spec.successPolicy is None or not is_indexed(job):
        return None
    for number, rule in enumerate(job.spec.successPolicy.rules):
        wanted = indexes.parse(rule.succeededIndexes) if rule.succeededIndexes is not None else None
        met = completed if wanted is None else completed & wanted
        if rule.succeededCount is not None:
            if len(met) >= rule.succeededCount:
                return number
        elif wanted is not None and met == wanted:
            return number
    return None


def is_complete(job: batch_v1.Job, tally: Tally, active: int) -> bool:
    """Whether enough pods have succeeded and none runs any more."""
    if active:
        return False
    if job.spec.completions is None:
        return tally.succeeded > 0
    return tally.succeeded >= job.spec.completions
