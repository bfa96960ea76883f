"""Counts a Job's pods: what runs, what has ended, what the status has counted already.

Pure. A pod counts once: while it carries the tracking finalizer it is counted by looking at it, afterwards by the
status. Called by the controller; plan.py and status.py decide by the Tally.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from api.models import batch_v1, core_v1
from controller_manager.job import indexes
from controller_manager.job.failures import Action, completion_index, index_failures, is_failed, judge
from controller_manager.objects import SUCCEEDED, is_active, is_finished, is_ready, is_terminating

FINALIZER: Final = "batch.kubernetes.io/job-tracking"


def is_indexed(job: batch_v1.Job) -> bool:
    return job.spec.completionMode == "Indexed"


def is_tracked(pod: core_v1.Pod) -> bool:
    """Whether the pod still waits to be counted."""
    return FINALIZER in (pod.metadata.finalizers or ())


def is_suspended(job: batch_v1.Job) -> bool:
    return bool(job.spec.suspend)


@dataclass
class Tally:
    """A Job's pods, sorted out."""

    pods: Sequence[core_v1.Pod]
    active: list[core_v1.Pod] = field(default_factory=list)
    ready: int = 0
    terminating: int = 0
    succeeded: int = 0
    failed: int = 0
    completed: frozenset[int] = frozenset()
    failed_indexes: frozenset[int] | None = None
    newly_succeeded: list[core_v1.Pod] = field(default_factory=list)
    newly_failed: list[core_v1.Pod] = field(default_factory=list)
    delayed: dict[int, core_v1.Pod] = field(default_factory=dict)
    """The last failed pod of an index that may be tried again: it carries the count of failures until replaced."""
    fatal: str | None = None
    """The message of the failure policy's FailJob rule that matched."""


def has_valid_index(job: batch_v1.Job, pod: core_v1.Pod) -> bool:
    if not is_indexed(job):
        return True
    index = completion_index(pod)
    return index is not None and index < (job.spec.completions or 0)


def count(job: batch_v1.Job, pods: Sequence[core_v1.Pod]) -> Tally:
    """Sort out the pods that the Job owns."""
    status = job.status or batch_v1.JobStatus()
    uncounted = status.uncountedTerminatedPods or batch_v1.UncountedTerminatedPods()
    known_succeeded, known_failed = set(uncounted.succeeded or ()), set(uncounted.failed or ())
    tally = Tally(pods)
    for pod in pods:
        if is_active(pod):
            tally.active.append(pod)
            tally.ready += is_ready(pod)
        elif is_terminating(pod) and not is_finished(pod):
            tally.terminating += 1
        if not is_tracked(pod):
            continue
        if is_failed(pod, job):
            verdict = judge(job, pod)
            if verdict.action is Action.FAIL_JOB and tally.fatal is None:
                tally.fatal = verdict.message
        if not has_valid_index(job, pod):
            continue
        if pod.status is not None and pod.status.phase == SUCCEEDED:
            if (pod.metadata.uid or "") not in known_succeeded | known_failed:
                tally.newly_succeeded.append(pod)
        elif is_failed(pod, job) and (pod.metadata.uid or "") not in known_failed:
            tally.newly_failed.append(pod)
    ignored = sum(judge(job, pod).action is Action.IGNORE for pod in tally.newly_failed)
    tally.failed = (status.failed or 0) + len(known_failed) + len(tally.newly_failed) - ignored
    if is_indexed(job):
        _count_indexes(job, tally, status)
    else:
        tally.succeeded = (status.succeeded or 0) + len(known_succeeded) + len(tally.newly_succeeded)
    return tally


def _count_indexes(job: batch_v1.Job, tally: Tally, status: batch_v1.JobStatus) -> None:
    limit = job.spec.completions or 0
    fresh = {index for pod in tally.newly_succeeded if (index := completion_index(pod)) is not None}
    tally.completed = frozenset(i for i in indexes.parse(status.completedIndexes) | fresh if i < limit)
    tally.succeeded = len(tally.completed)
    allowed = job.spec.backoffLimitPerIndex
    if allowed is None:
        return
    failed = set(indexes.parse(status.failedIndexes))
    for pod in tally.pods:
        index = completion_index(pod)
        if index is None or index >= limit or index in tally.completed or not is_tracked(pod):
            continue
        if not is_failed(pod, job):
            continue
        verdict = judge(job, pod).action
        if verdict is Action.FAIL_INDEX or (verdict is not Action.IGNORE and index_failures(pod) >= allowed):
            failed.add(index)
            continue
        other = tally.delayed.get(index)
        if other is None or _later(pod, other):
            tally.delayed[index] = pod
    tally.failed_indexes = frozenset(failed)
    active = {completion_index(pod) for pod in tally.active}
    for index in list(tally.delayed):
        # A successor runs already (it has taken over the count), or none will come.
        if index in active or index in failed:
            del tally.delayed[index]


def _later(one: core_v1.Pod, other: core_v1.Pod) -> bool:
    return (index_failures(one), one.metadata.creationTimestamp, one.metadata.name or "") > (
        index_failures(other),
        other.metadata.creationTimestamp,
        other.metadata.name or "",
    )
