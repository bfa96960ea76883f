"""A Job's status: conditions, and the two-step bookkeeping that counts every finished pod exactly once.

    1. the uids of finished pods are written to uncountedTerminatedPods (an index: to completedIndexes)
    2. their finalizers are removed
    3. the uids move from the list to the counters

so that a crash between any two steps neither loses nor doubles a pod. Pure but for the clock that is handed in.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from api.models import batch_v1, core_v1
from client.listers import copied
from controller_manager.job import indexes
from controller_manager.job.failures import Action, is_failed, judge
from controller_manager.job.plan import FAILURE_TARGET, SUCCESS_CRITERIA_MET, Outcome
from controller_manager.job.tally import Tally, has_valid_index, is_indexed, is_suspended, is_tracked
from controller_manager.objects import SUCCEEDED, wall_seconds
from machinery.clock import Clock

COMPLETE: Final = "Complete"
FAILED: Final = "Failed"
SUSPENDED: Final = "Suspended"
MAX_UNCOUNTED: Final = 500

Status = batch_v1.JobStatus


def finished_condition(job: batch_v1.Job) -> Any | None:
    """The condition Complete or Failed of a Job that is over."""
    for each in (job.status.conditions if job.status is not None else None) or ():
        if each.type in (COMPLETE, FAILED) and each.status == "True":
            return each
    return None


def with_condition(status: Status, clock: Clock, type_: str, value: str, reason: str, message: str) -> bool:
    """Set a condition; whether its status changed. A condition that is not there is not set to False."""
    conditions = list(status.conditions or ())
    current = next((each for each in conditions if each.type == type_), None)
    if current is None and value != "True":
        return False
    if current is not None and current.status == value:
        return False
    now = wall_seconds(clock)
    made = batch_v1.JobCondition(
        type=type_, status=value, reason=reason, message=message, lastProbeTime=now, lastTransitionTime=now
    )
    status.conditions = [made if each is current else each for each in conditions] if current else [*conditions, made]
    return True


def begin(job: batch_v1.Job, clock: Clock) -> Status:
    """A copy of the status to work on; a Job that runs has a start time."""
    status = copied(job.status) if job.status is not None else Status()
    if status.startTime is None and not is_suspended(job):
        status.startTime = wall_seconds(clock)
    return status


def set_counts(status: Status, active: int, ready: int, terminating: int) -> None:
    status.active = active or None
    status.ready = min(ready, active)
    status.terminating = terminating


def settle_uncounted(status: Status, pods: Sequence[core_v1.Pod]) -> None:
    """Step 3: count the listed pods that are gone or have lost their finalizer."""
    uncounted = status.uncountedTerminatedPods or batch_v1.UncountedTerminatedPods()
    tracked = {pod.metadata.uid for pod in pods if is_tracked(pod)}
    succeeded, failed = list(uncounted.succeeded or ()), list(uncounted.failed or ())
    status.succeeded = ((status.succeeded or 0) + sum(uid not in tracked for uid in succeeded)) or None
    status.failed = ((status.failed or 0) + sum(uid not in tracked for uid in failed)) or None
    status.uncountedTerminatedPods = batch_v1.UncountedTerminatedPods(
        succeeded=[uid for uid in succeeded if uid in tracked] or None,
        failed=[uid for uid in failed if uid in tracked] or None,
    )


def list_uncounted(job: batch_v1.Job, status: Status, tally: Tally, outcome: Outcome | None) -> list[core_v1.Pod]:
    """Step 1: list the uids of pods to count. Returns the pods whose finalizers may go after that is written."""
    uncounted = status.uncountedTerminatedPods or batch_v1.UncountedTerminatedPods()
    succeeded, failed = list(uncounted.succeeded or ()), list(uncounted.failed or ())
    known = {*succeeded, *failed}
    over, failing = outcome is not None, outcome is not None and outcome.type == FAILURE_TARGET
    done: list[core_v1.Pod] = []
    for pod in tally.pods:
        if not is_tracked(pod) or not _may_go(job, pod, tally, over):
            continue
        if len(done) >= MAX_UNCOUNTED:
            break
        done.append(pod)
        uid = pod.metadata.uid or ""
        if uid in known or not has_valid_index(job, pod):
            continue
        if pod.status is not None and pod.status.phase == SUCCEEDED:
            if not is_indexed(job):
                succeeded.append(uid)
        # The pods that a failed Job stops count as failed; those that a succeeded one no longer needs do not.
        elif (is_failed(pod, job) or failing) and judge(job, pod).action is not Action.IGNORE:
            failed.append(uid)
    status.uncountedTerminatedPods = batch_v1.UncountedTerminatedPods(
        succeeded=succeeded or None, failed=failed or None
    )
    if is_indexed(job):
        status.succeeded = len(tally.completed) or None
        status.completedIndexes = indexes.render(tally.completed) or None
        if tally.failed_indexes is not None:
            status.failedIndexes = indexes.render(tally.failed_indexes)
    return done


def _may_go(job: batch_v1.Job, pod: core_v1.Pod, tally: Tally, over: bool) -> bool:
    succeeded = pod.status is not None and pod.status.phase == SUCCEEDED
    if over or succeeded or job.metadata.deletionTimestamp is not None:
        return True
    if not is_failed(pod, job):
        return False
    # An index's last failed pod waits for its successor, which inherits the count of failures.
    return not any(pod.metadata.uid == each.metadata.uid for each in tally.delayed.values())


def finish(status: Status, outcome: Outcome, clock: Clock) -> bool:
    """Declare the Job over once every pod is counted and gone; whether it is."""
    uncounted = status.uncountedTerminatedPods
    if uncounted is not None and (uncounted.succeeded or uncounted.failed):
        return False
    if status.terminating or status.active:
        return False
    type_ = COMPLETE if outcome.type == SUCCESS_CRITERIA_MET else FAILED
    if not with_condition(status, clock, type_, "True", outcome.reason, outcome.message):
        return False
    if type_ == COMPLETE:
        status.completionTime = wall_seconds(clock)
    return True
