"""The pod row: one word for everything a pod can be in.

The order of the rules is the contract; it follows the phase, then init containers in order, then containers from last
to first, then deletion.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from apiserver.tables.columns import Object, Printer, printer
from apiserver.tables.durations import age, human_duration, moment
from apiserver.tables.texts import NONE, condition, items, mapping, name, number, part, text

_TERMINAL = ("Succeeded", "Failed")


class _Seen(NamedTuple):
    """What a walk over container statuses found."""

    reason: str
    ready: int
    restarts: int
    last_restart: datetime | None


def _latest(known: datetime | None, status: Mapping[str, Any]) -> datetime | None:
    finished = moment(part(status, "lastState", "terminated", "finishedAt"))
    if finished is None or (known is not None and finished <= known):
        return known
    return finished


def _terminated(state: Mapping[str, Any], prefix: str = "") -> str:
    if text(state, "reason"):
        return prefix + text(state, "reason")
    if number(state, "signal"):
        return f"{prefix}Signal:{number(state, 'signal')}"
    return f"{prefix}ExitCode:{number(state, 'exitCode')}"


def _init_reason(status: Mapping[str, Any], position: int, count: int) -> str:
    """Why initialization stands at this container."""
    state = mapping(status, "state")
    if isinstance(part(state, "terminated"), Mapping):
        return _terminated(mapping(state, "terminated"), "Init:")
    waiting = text(state, "waiting", "reason")
    if waiting and waiting != "PodInitializing":
        return f"Init:{waiting}"
    return f"Init:{position}/{count}"


def _walk_init(pod: Object, restartable: set[str], reason: str) -> tuple[_Seen, _Seen, bool]:
    """All init containers, the restartable ones among them, and whether initialization has not finished."""
    ready = restarts = sidecar_restarts = 0
    last = sidecar_last = None
    count = len(items(pod, "spec", "initContainers"))
    for position, status in enumerate(items(pod, "status", "initContainerStatuses")):
        sidecar = text(status, "name") in restartable
        restarts += number(status, "restartCount")
        last = _latest(last, status)
        if sidecar:
            sidecar_restarts += number(status, "restartCount")
            sidecar_last = _latest(sidecar_last, status)
        terminated = part(status, "state", "terminated")
        if isinstance(terminated, Mapping) and number(terminated, "exitCode") == 0:
            continue
        if sidecar and part(status, "started"):
            ready += bool(part(status, "ready"))
            continue
        reason = _init_reason(status, position, count)
        all_seen = _Seen(reason, ready, restarts, last)
        return all_seen, _Seen(reason, ready, sidecar_restarts, sidecar_last), True
    return (
        _Seen(reason, ready, restarts, last),
        _Seen(reason, ready, sidecar_restarts, sidecar_last),
        False,
    )


def _walk_containers(pod: Object, seen: _Seen) -> _Seen:
    reason, ready, restarts, last = seen
    running = False
    for status in reversed(items(pod, "status", "containerStatuses")):
        restarts += number(status, "restartCount")
        last = _latest(last, status)
        state = mapping(status, "state")
        if text(state, "waiting", "reason"):
            reason = text(state, "waiting", "reason")
        elif isinstance(part(state, "terminated"), Mapping):
            reason = _terminated(mapping(state, "terminated"))
        elif part(status, "ready") and isinstance(part(state, "running"), Mapping):
            running = True
            ready += 1
    if reason == "Completed" and running:
        is_ready = text(condition(items(pod, "status", "conditions"), "Ready"), "status") == "True"
        reason = "Running" if is_ready else "NotReady"
    return _Seen(reason, ready, restarts, last)


def pod_state(pod: Object) -> tuple[str, str, int, datetime | None]:
    """READY, STATUS, the number of restarts and when the last one was."""
    conditions = items(pod, "status", "conditions")
    phase = text(pod, "status", "phase")
    reason = text(pod, "status", "reason") or phase
    if text(condition(conditions, "PodScheduled"), "reason") == "SchedulingGated":
        reason = "SchedulingGated"
    restartable = {
        text(c, "name") for c in items(pod, "spec", "initContainers") if text(c, "restartPolicy") == "Always"
    }
    total = len(items(pod, "spec", "containers")) + len(restartable)
    seen, sidecars, initializing = _walk_init(pod, restartable, reason)
    if not initializing or text(condition(conditions, "Initialized"), "status") == "True":
        seen = _walk_containers(pod, sidecars)
    reason = seen.reason
    if part(pod, "metadata", "deletionTimestamp"):
        if text(pod, "status", "reason") == "NodeLost":
            reason = "Unknown"
        elif phase not in _TERMINAL:
            reason = "Terminating"
    return f"{seen.ready}/{total}", reason, seen.restarts, seen.last_restart


def _readiness_gates(pod: Object) -> str:
    gates = items(pod, "spec", "readinessGates")
    if not gates:
        return NONE
    conditions = items(pod, "status", "conditions")
    true = sum(text(condition(conditions, text(gate, "conditionType")), "status") == "True" for gate in gates)
    return f"{true}/{len(gates)}"


def cells(pod: Object, now: datetime) -> list[Any]:
    ready, reason, restarts, last = pod_state(pod)
    restarted = str(restarts)
    if restarts and last is not None:
        restarted = f"{restarts} ({human_duration((now - last).total_seconds())} ago)"
    addresses = items(pod, "status", "podIPs")
    return [
        name(pod),
        ready,
        reason,
        restarted,
        age(pod, now),
        (text(addresses[0], "ip") if addresses else "") or NONE,
        text(pod, "spec", "nodeName") or NONE,
        text(pod, "status", "nominatedNodeName") or NONE,
        _readiness_gates(pod),
    ]


def conditions(pod: Object) -> list[dict[str, str]]:
    """Finished pods are marked, so that clients may hide them."""
    phase = text(pod, "status", "phase")
    messages = {"Succeeded": "The pod has completed successfully.", "Failed": "The pod failed."}
    if phase not in messages:
        return []
    return [{"type": "Completed", "status": "True", "reason": phase, "message": messages[phase]}]


PRINTERS: dict[tuple[str, str], Printer] = {
    ("", "pods"): printer(
        "Ready, Status, Restarts, Age, IP+, Node+, Nominated Node+, Readiness Gates+", cells, conditions
    ),
}
