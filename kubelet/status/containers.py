"""v1.ContainerStatus of one container, from its slot. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from api.models import core_v1
from kubelet.pod.slot import Kind, Op, Slot
from kubelet.records import ContainerRecord
from machinery.meta import rfc3339

NEVER_RAN = "The container could not be located when the pod was terminated"


def stamp(nanoseconds: int) -> str:
    """A runtime timestamp as metav1.Time."""
    return rfc3339(datetime.fromtimestamp(nanoseconds / 1e9, UTC))


def terminated(record: ContainerRecord, scheme: str) -> dict[str, Any]:
    """v1.ContainerStateTerminated of an ended attempt."""
    state: dict[str, Any] = {
        "exitCode": record.exit_code,
        "reason": record.reason or ("Completed" if record.exit_code == 0 else "Error"),
    }
    if record.message:
        state["message"] = record.message
    if record.started_at:
        state["startedAt"] = stamp(record.started_at)
    if record.finished_at:
        state["finishedAt"] = stamp(record.finished_at)
    state["containerID"] = f"{scheme}://{record.id}"
    return state


def container_status(slot: Slot, scheme: str, *, has_init: bool, initialized: bool, ended: bool) -> dict[str, Any]:
    """`ended`: the pod is at its end, so nothing waits for a restart any more.

    While a restart is under way, the last run is still told: upstream looks at the start of a sync, never inside.
    """
    current = slot.current
    restarting = (
        slot.op is Op.START and current is not None and not current.ended and _ended_before(slot.previous, current)
    )
    if restarting:
        current = slot.previous
    state: dict[str, Any]
    last: dict[str, Any] = {}
    if slot.previous is not None and slot.previous.ended and not restarting:
        last = {"terminated": terminated(slot.previous, scheme)}
    if current is None or (current.state == 0):
        reason, message = slot.waiting or (
            "PodInitializing" if has_init and not _ready_to_make(slot, initialized) else "ContainerCreating",
            "",
        )
        state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        if ended and initialized and current is None:
            lost = {"exitCode": 137, "reason": "ContainerStatusUnknown", "message": NEVER_RAN}
            state = {"terminated": lost}
    elif current.running and slot.op is not Op.START:
        state = {"running": {"startedAt": stamp(current.started_at or current.created_at)}}
    elif current.running:
        state = {
            "waiting": {"reason": "PodInitializing" if has_init and slot.kind is not Kind.MAIN else "ContainerCreating"}
        }
    elif slot.waiting is not None and (restarting or slot.restarts()) and not ended:
        reason, message = slot.waiting
        state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        last = {"terminated": terminated(current, scheme)}
    else:
        state = {"terminated": terminated(current, scheme)}
    running = "running" in state
    status: dict[str, Any] = {
        "name": slot.name,
        "state": state,
        "lastState": last,
        "ready": _is_ready(slot, running, state),
        "restartCount": current.attempt if current is not None else max(slot.base_attempt, 0),
        "image": slot.spec.image or "",
        "imageID": current.image_ref if current is not None else "",
        "started": running and slot.started,
    }
    if current is not None:
        status["containerID"] = f"{scheme}://{current.id}"
    if running:
        status.update(_resources(slot.spec))
    mounts = [_mount(mount) for mount in slot.spec.volumeMounts or ()]
    if mounts:
        status["volumeMounts"] = mounts
    return status


def _ended_before(previous: ContainerRecord | None, current: ContainerRecord) -> bool:
    return previous is not None and previous.ended and previous.attempt < current.attempt


def _ready_to_make(slot: Slot, initialized: bool) -> bool:
    return slot.kind is Kind.MAIN and initialized


def _is_ready(slot: Slot, running: bool, state: dict[str, Any]) -> bool:
    if slot.kind is Kind.INIT:
        return bool("terminated" in state and state["terminated"]["exitCode"] == 0)
    return running and slot.ready


def _resources(container: core_v1.Container) -> dict[str, Any]:
    claim = container.resources
    if claim is None or not (claim.requests or claim.limits):
        return {}
    held: dict[str, Any] = {}
    if claim.limits:
        held["limits"] = dict(claim.limits)
    if claim.requests:
        held["requests"] = dict(claim.requests)
    result: dict[str, Any] = {"resources": held}
    if claim.requests:
        result["allocatedResources"] = dict(claim.requests)
    return result


def _mount(mount: core_v1.VolumeMount) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": mount.name, "mountPath": mount.mountPath}
    if mount.readOnly:
        entry["readOnly"] = True
        entry["recursiveReadOnly"] = "Disabled"
    return entry
