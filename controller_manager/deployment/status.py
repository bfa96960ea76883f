"""A Deployment's status: counts, and the conditions Available, Progressing and ReplicaFailure.

Pure but for the clock that is handed in (conditions carry times; the progress deadline is measured). Reasons and
messages are upstream's: `kubectl rollout status` reads them. Called by controller.py.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from api.models import apps_v1
from controller_manager.deployment.rolling import Limits
from controller_manager.objects import spec_replicas, wall_seconds
from machinery.clock import Clock

AVAILABLE: Final = "Available"
PROGRESSING: Final = "Progressing"
REPLICA_FAILURE: Final = "ReplicaFailure"

NEW_SET_CREATED: Final = "NewReplicaSetCreated"
NEW_SET_FOUND: Final = "FoundNewReplicaSet"
NEW_SET_AVAILABLE: Final = "NewReplicaSetAvailable"
SET_UPDATED: Final = "ReplicaSetUpdated"
SET_CREATE_ERROR: Final = "ReplicaSetCreateError"
TIMED_OUT: Final = "ProgressDeadlineExceeded"
PAUSED: Final = "DeploymentPaused"
RESUMED: Final = "DeploymentResumed"
NO_DEADLINE: Final = 2**31 - 1

Condition = apps_v1.DeploymentCondition
Conditions = list[Any]


def has_deadline(deployment: apps_v1.Deployment) -> bool:
    return deployment.spec.progressDeadlineSeconds not in (None, NO_DEADLINE)


def conditions_of(deployment: apps_v1.Deployment) -> Conditions:
    return list(deployment.status.conditions or ()) if deployment.status is not None else []


def find(conditions: Conditions, type_: str) -> Any | None:
    return next((each for each in conditions if each.type == type_), None)


def without(conditions: Conditions, type_: str) -> Conditions:
    return [each for each in conditions if each.type != type_]


def make(clock: Clock, type_: str, status: str, reason: str, message: str) -> Any:
    now = wall_seconds(clock)
    return Condition(
        type=type_, status=status, reason=reason, message=message, lastUpdateTime=now, lastTransitionTime=now
    )


def put(conditions: Conditions, new: Any) -> Conditions:
    """Set a condition; one with the same status and reason stays as it is, one with the same status keeps its time."""
    current = find(conditions, new.type)
    if current is not None and current.status == new.status:
        if current.reason == new.reason:
            return conditions
        new.lastTransitionTime = current.lastTransitionTime
    return [*without(conditions, new.type), new]


def count(
    deployment: apps_v1.Deployment,
    sets: Sequence[apps_v1.ReplicaSet],
    new: apps_v1.ReplicaSet | None,
    limits: Limits,
    clock: Clock,
) -> apps_v1.DeploymentStatus:
    """The counts of all sets, and the Available condition."""
    wanted = sum(map(spec_replicas, sets))
    statuses = [rs.status for rs in sets if rs.status is not None]
    available = sum(status.availableReplicas or 0 for status in statuses)
    terminating = [status.terminatingReplicas for status in statuses]
    if available >= limits.desired - limits.max_unavailable:
        message = "Deployment has minimum availability."
        minimum = make(clock, AVAILABLE, "True", "MinimumReplicasAvailable", message)
    else:
        message = "Deployment does not have minimum availability."
        minimum = make(clock, AVAILABLE, "False", "MinimumReplicasUnavailable", message)
    return apps_v1.DeploymentStatus(
        observedGeneration=deployment.metadata.generation,
        replicas=sum(status.replicas or 0 for status in statuses) or None,
        updatedReplicas=(new.status.replicas or None) if new is not None and new.status is not None else None,
        readyReplicas=sum(status.readyReplicas or 0 for status in statuses) or None,
        availableReplicas=available or None,
        unavailableReplicas=max(wanted - available, 0) or None,
        terminatingReplicas=None if None in terminating else sum(each or 0 for each in terminating),
        collisionCount=deployment.status.collisionCount if deployment.status is not None else None,
        conditions=put(conditions_of(deployment), minimum),
    )


def is_complete(deployment: apps_v1.Deployment, status: apps_v1.DeploymentStatus) -> bool:
    """Whether all desired replicas are of the new set, available, and no old one is left."""
    desired = deployment.spec.replicas or 0
    return (
        (status.updatedReplicas or 0) == desired
        and (status.replicas or 0) == desired
        and (status.availableReplicas or 0) == desired
        and (status.observedGeneration or 0) >= (deployment.metadata.generation or 0)
    )


def _progressed(old: apps_v1.DeploymentStatus | None, new: apps_v1.DeploymentStatus) -> bool:
    before = old or apps_v1.DeploymentStatus()

    def outdated(status: apps_v1.DeploymentStatus) -> int:
        return (status.replicas or 0) - (status.updatedReplicas or 0)

    return (
        (new.updatedReplicas or 0) > (before.updatedReplicas or 0)
        or outdated(new) < outdated(before)
        or (new.readyReplicas or 0) > (before.readyReplicas or 0)
        or (new.availableReplicas or 0) > (before.availableReplicas or 0)
    )


def deadline_left(deployment: apps_v1.Deployment, current: Any, clock: Clock) -> float:
    """Cluster seconds until the rollout counts as stuck, by its last sign of progress."""
    deadline = float(deployment.spec.progressDeadlineSeconds or 0)
    since = current.lastUpdateTime or current.lastTransitionTime
    return deadline - (clock.elapsed(since) if since is not None else 0.0)


def _timed_out(deployment: apps_v1.Deployment, conditions: Conditions, clock: Clock) -> bool:
    current = find(conditions, PROGRESSING)
    if current is None or current.reason == NEW_SET_AVAILABLE:
        return False
    return current.reason == TIMED_OUT or deadline_left(deployment, current, clock) < 0


def with_progress(
    deployment: apps_v1.Deployment,
    status: apps_v1.DeploymentStatus,
    sets: Sequence[apps_v1.ReplicaSet],
    new: apps_v1.ReplicaSet | None,
    clock: Clock,
) -> apps_v1.DeploymentStatus:
    """The status with Progressing and ReplicaFailure brought up to date during a rollout."""
    conditions: Conditions = list(status.conditions or ())
    if not has_deadline(deployment):
        conditions = without(conditions, PROGRESSING)
    current = find(conditions_of(deployment), PROGRESSING)
    over = (
        (status.replicas or 0) == (status.updatedReplicas or 0)
        and current is not None
        and current.reason == NEW_SET_AVAILABLE
    )
    if has_deadline(deployment) and not over:
        subject = f'ReplicaSet "{new.metadata.name}"' if new is not None else f'Deployment "{deployment.metadata.name}"'
        if is_complete(deployment, status):
            message = f"{subject} has successfully progressed."
            conditions = put(conditions, make(clock, PROGRESSING, "True", NEW_SET_AVAILABLE, message))
        elif _progressed(deployment.status, status):
            # The same reason must still renew lastUpdateTime: the deadline counts from the last progress.
            step = make(clock, PROGRESSING, "True", SET_UPDATED, f"{subject} is progressing.")
            if current is not None and current.status == "True":
                step.lastTransitionTime = current.lastTransitionTime
            conditions = [*without(conditions, PROGRESSING), step]
        elif _timed_out(deployment, conditions, clock):
            message = f"{subject} has timed out progressing."
            conditions = put(conditions, make(clock, PROGRESSING, "False", TIMED_OUT, message))
    failure = _replica_failure([*([new] if new is not None else []), *sets])
    conditions = put(conditions, failure) if failure is not None else without(conditions, REPLICA_FAILURE)
    status.conditions = conditions or None
    return status


def _replica_failure(sets: Sequence[apps_v1.ReplicaSet]) -> Any | None:
    for rs in sets:
        for each in (rs.status.conditions if rs.status is not None else None) or ():
            if each.type == REPLICA_FAILURE:
                return Condition(
                    type=REPLICA_FAILURE,
                    status=each.status,
                    reason=each.reason,
                    message=each.message,
                    lastTransitionTime=each.lastTransitionTime,
                    lastUpdateTime=each.lastTransitionTime,
                )
    return None
