"""What a failed pod means for its Job: the failure policy's verdict, the back-off, the failures of its index.

Pure but for the clock that is handed in. Called by tally.py and plan.py.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import Enum
from typing import Any, Final, NamedTuple

from api.models import batch_v1, core_v1
from controller_manager.objects import FAILED, SUCCEEDED, condition
from machinery.clock import Clock

INDEX: Final = "batch.kubernetes.io/job-completion-index"
INDEX_FAILURES: Final = "batch.kubernetes.io/job-index-failure-count"
INDEX_IGNORED: Final = "batch.kubernetes.io/job-index-ignored-failure-count"
BACKOFF: Final = 10.0
MAX_BACKOFF: Final = 600.0


class Action(Enum):
    """What a rule of the failure policy asks for."""

    FAIL_JOB = "FailJob"
    FAIL_INDEX = "FailIndex"
    IGNORE = "Ignore"
    COUNT = "Count"


class Verdict(NamedTuple):
    """The first rule that matches a failed pod; `message` tells why a Job fails by it."""

    action: Action = Action.COUNT
    message: str = ""


def only_replaces_failed(job: batch_v1.Job) -> bool:
    return job.spec.podReplacementPolicy == "Failed"


def is_failed(pod: core_v1.Pod, job: batch_v1.Job) -> bool:
    """Whether the pod counts as failed: by its phase, or because it is being deleted (if the Job replaces
    pods that soon).
    """
    phase = pod.status.phase if pod.status is not None else None
    if phase == FAILED:
        return True
    if pod.metadata.deletionTimestamp is None or phase == SUCCEEDED:
        return False
    # A pod without a node has no kubelet that could ever report its end.
    return not only_replaces_failed(job) or not pod.spec.nodeName


def completion_index(pod: core_v1.Pod) -> int | None:
    """The pod's index in an Indexed Job; None if it has none that can be read."""
    return _number(pod, INDEX)


def index_failures(pod: core_v1.Pod) -> int:
    """Counted failures of the pod's index before this pod."""
    return _number(pod, INDEX_FAILURES) or 0


def index_ignored(pod: core_v1.Pod) -> int:
    """Ignored failures of the pod's index before this pod."""
    return _number(pod, INDEX_IGNORED) or 0


def _number(pod: core_v1.Pod, annotation: str) -> int | None:
    text = (pod.metadata.annotations or {}).get(annotation, "")
    return int(text) if text.isdigit() else None


def judge(job: batch_v1.Job, pod: core_v1.Pod) -> Verdict:
    """The failure policy's verdict on a failed pod; without a policy every failure counts."""
    policy = job.spec.podFailurePolicy
    if policy is None or pod.status is None or pod.status.phase != FAILED:
        return Verdict()  # a pod that is still terminating shows no exit codes to judge by
    name = f"{pod.metadata.namespace}/{pod.metadata.name}"
    for number, rule in enumerate(policy.rules):
        told = _exit_code_match(rule.onExitCodes, pod, name) or _condition_match(rule.onPodConditions or (), pod, name)
        if told:
            return Verdict(Action(rule.action), f"{told} matching {rule.action} rule at index {number}")
    return Verdict()


def _exit_code_match(requirement: Any, pod: core_v1.Pod, name: str) -> str | None:
    if requirement is None:
        return None
    for status in [*(pod.status.initContainerStatuses or ()), *(pod.status.containerStatuses or ())]:
        terminated = status.state.terminated if status.state is not None else None
        if requirement.containerName not in (None, status.name) or terminated is None or terminated.exitCode == 0:
            continue
        if (terminated.exitCode in requirement.values) == (requirement.operator == "In"):
            return f"Container {status.name} for pod {name} failed with exit code {terminated.exitCode}"
    return None


def _condition_match(patterns: Iterable[Any], pod: core_v1.Pod, name: str) -> str | None:
    for pattern in patterns:
        found = condition(pod, pattern.type)
        if found is not None and found.status == (pattern.status or "True"):
            return f"Pod {name} has condition {pattern.type}"
    return None


def finish_time(pod: core_v1.Pod) -> datetime | None:
    """When the pod ended, as well as it can be known."""
    statuses = pod.status.containerStatuses if pod.status is not None else None
    ends = [
        status.state.terminated.finishedAt
        for status in statuses or ()
        if status.state is not None and status.state.terminated is not None
    ]
    latest = max((end for end in ends if end is not None), default=None)
    if latest is not None and len(ends) == len(statuses or ()):
        return latest
    ready = condition(pod, "Ready")
    if ready is not None and ready.lastTransitionTime is not None and pod.metadata.deletionTimestamp is None:
        moment: datetime = ready.lastTransitionTime
        return moment
    return pod.metadata.deletionTimestamp or pod.metadata.creationTimestamp


def backoff_left(failures: int, last: datetime | None, clock: Clock) -> float:
    """Cluster seconds until the next pod may be made after so many failures in a row."""
    if failures <= 0 or last is None:
        return 0.0
    delay = min(BACKOFF * 2.0 ** min(failures - 1, 10), MAX_BACKOFF)
    return min(delay, max(0.0, delay - clock.elapsed(last)))


def backoff_of_job(job: batch_v1.Job, pods: Iterable[core_v1.Pod], clock: Clock) -> float:
    """Back-off by the failures since the last success, among the pods that still exist."""
    successes = [end for pod in pods if pod.status and pod.status.phase == SUCCEEDED and (end := finish_time(pod))]
    failures = [end for pod in pods if is_failed(pod, job) and (end := finish_time(pod))]
    last_success = max(successes, default=None)
    recent = [end for end in failures if last_success is None or end > last_success]
    return backoff_left(len(recent), max(recent, default=None), clock)


def backoff_of_index(pod: core_v1.Pod, clock: Clock) -> float:
    """Back-off of an index whose last pod failed."""
    return backoff_left(index_failures(pod) + index_ignored(pod) + 1, finish_time(pod), clock)
