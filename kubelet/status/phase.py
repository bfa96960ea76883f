"""The phase of a pod from the states of its containers, in upstream's order of cases. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.models import core_v1
from kubelet.restart import ALWAYS, NEVER

Status = Mapping[str, Any]  # a v1.ContainerStatus as JSON

PENDING, RUNNING, SUCCEEDED, FAILED = "Pending", "Running", "Succeeded", "Failed"


def _state(status: Status | None, name: str) -> Any:
    return None if status is None else (status.get("state") or {}).get(name)


def _last_ended(status: Status | None) -> Any:
    return None if status is None else (status.get("lastState") or {}).get("terminated")


def pod_phase(spec: core_v1.PodSpec, statuses: Mapping[str, Status], *, terminal: bool = False) -> str:
    """The phase. `terminal`: the pod has been ended and nothing of it will run again."""
    pending_init, failed_init = _initialization(spec, statuses)
    unknown = running = waiting = stopped = succeeded = 0
    for container in spec.containers:
        status = statuses.get(container.name)
        if _state(status, "running") is not None:
            running += 1
        elif (ended := _state(status, "terminated")) is not None:
            stopped += 1
            succeeded += ended["exitCode"] == 0
        elif _state(status, "waiting") is not None:
            if _last_ended(status) is not None:
                stopped += 1
            else:
                waiting += 1
        else:
            unknown += 1
    policy = spec.restartPolicy or ALWAYS
    if failed_init and policy == NEVER:
        return FAILED
    if pending_init and not terminal:
        return PENDING
    if waiting:
        return FAILED if terminal else PENDING
    if running and not unknown:
        return RUNNING
    if not running and stopped and not unknown:
        if terminal:
            return SUCCEEDED if stopped == succeeded else FAILED
        if policy == ALWAYS:
            return RUNNING
        if stopped == succeeded:
            return SUCCEEDED
        return FAILED if policy == NEVER else RUNNING
    return PENDING


def _initialization(spec: core_v1.PodSpec, statuses: Mapping[str, Status]) -> tuple[int, int]:
    """How many init containers are not through yet, and how many failed."""
    pending = failed = 0
    for container in spec.initContainers or ():
        status = statuses.get(container.name)
        ended = _state(status, "terminated")
        if container.restartPolicy == ALWAYS:
            up = _state(status, "running") is not None and bool(status and status.get("started"))
            if not up and ended is None and _last_ended(status) is None:
                pending += 1
            continue
        if ended is not None:
            failed += ended["exitCode"] != 0
        elif _state(status, "waiting") is not None and (last := _last_ended(status)) is not None:
            if last["exitCode"] != 0:
                failed += 1
                pending += 1
        else:
            pending += 1
    policy = spec.restartPolicy or ALWAYS
    if failed and policy != NEVER:
        pending += 1  # it will be tried again
    return pending, failed
