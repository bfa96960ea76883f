"""v1.ContainerStatus of one container, from its slot. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from api.models import core_v1
from kubelet.pod.slot import Kind, Op, Slot
from kubelet.records import ContainerRecord, ContainerUser
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
        "image": (current.image if current is not None else "") or slot.spec.image or "",
        "imageID": current.image_ref if current is not None else "",
    }
    if slot.kind is not Kind.EPHEMERAL:
        status["started"] = running and slot.started
    if current is not None:
        status["containerID"] = f"{scheme}://{current.id}"
        if current.user is not None:
            status["user"] = {"linux": _user(current.user)}
        if slot.resizable:
            status.update(_resources(slot, running))
    mounts = [_mount(mount) for mount in slot.spec.volumeMounts or ()]
    if mounts:
        status["volumeMounts"] = mounts
    return status


def _ended_before(previous: ContainerRecord | None, current: ContainerRecord) -> bool:
    return previous is not None and previous.ended and previous.attempt < current.attempt


def _ready_to_make(slot: Slot, initialized: bool) -> bool:
    return (slot.kind is Kind.MAIN and initialized) or slot.kind is Kind.EPHEMERAL


def _is_ready(slot: Slot, running: bool, state: dict[str, Any]) -> bool:
    if slot.kind is Kind.EPHEMERAL:
        return False  # nobody probes it
    if slot.kind is Kind.INIT:
        return bool("terminated" in state and state["terminated"]["exitCode"] == 0)
    return running and slot.ready


def _resources(slot: Slot, running: bool) -> dict[str, Any]:
    """What the container has, and what the node has agreed to give it."""
    allocated = slot.spec.resources
    claim = slot.actuated if running and slot.actuated is not None else allocated
    held = {kind: dict(getattr(claim, kind, None) or {}) for kind in ("limits", "requests")}
    result: dict[str, Any] = {"resources": {kind: values for kind, values in held.items() if values}}
    if allocated is not None and allocated.requests:
        result["allocatedResources"] = dict(allocated.requests)
    return result


def _user(user: ContainerUser) -> dict[str, Any]:
    """v1.LinuxContainerUser: what the first process runs as."""
    told: dict[str, Any] = {"uid": user.uid, "gid": user.gid}
    if user.groups:
        told["supplementalGroups"] = list(user.groups)
    return told


def _mount(mount: core_v1.VolumeMount) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": mount.name, "mountPath": mount.mountPath}
    if mount.readOnly:
        entry["readOnly"] = True
        entry["recursiveReadOnly"] = "Disabled"
    return entry
