"""What a hollow node says its pods do: statuses, durations, usage. Pure; told to the API server by `hollow.pods`.

A pod's annotations steer its simulation, all optional:
`hollow.nanokube.io/run-seconds` and `/exit-code` end it, `/cpu` and `/memory` (per container) are its usage.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from machinery import quantity
from machinery.meta import rfc3339

PREFIX = "hollow.nanokube.io/"
RUN_SECONDS, EXIT_CODE, CPU, MEMORY = (PREFIX + name for name in ("run-seconds", "exit-code", "cpu", "memory"))
JOB_SECONDS = 1.0
"""How long a Job's pod takes that does not say."""
IDLE_CPU, IDLE_MEMORY = 10, 16 << 20
"""Millicores and bytes of a container without requests."""
ADDRESSES = (100 << 24) + (64 << 16)
"""100.64.0.0: pods that exist nowhere get addresses that lead nowhere (RFC 6598)."""
ADDRESS_COUNT = 1 << 22


class Meta(msgspec.Struct):
    """The part of ObjectMeta that matters here."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    annotations: dict[str, str] | None = None
    deletionTimestamp: str | None = None
    finalizers: list[str] | None = None
    ownerReferences: list[dict[str, Any]] | None = None


class Resources(msgspec.Struct):
    """Requests by resource name."""

    requests: dict[str, str] | None = None


class Container(msgspec.Struct):
    """A container of the pod's spec."""

    name: str = ""
    image: str = ""
    restartPolicy: str | None = None
    resources: Resources | None = None


class Spec(msgspec.Struct):
    """The part of PodSpec that matters here."""

    nodeName: str | None = None
    restartPolicy: str | None = None
    containers: list[Container] = []
    initContainers: list[Container] | None = None


class Status(msgspec.Struct):
    """The part of PodStatus that matters here."""

    phase: str | None = None
    podIP: str | None = None
    startTime: str | None = None


class HollowPod(msgspec.Struct):
    """A pod as far as a hollow node reads it."""

    metadata: Meta
    spec: Spec
    status: Status | None = None

    @property
    def phase(self) -> str:
        return (self.status.phase if self.status else None) or "Pending"

    @property
    def over(self) -> bool:
        return self.phase in ("Succeeded", "Failed")

    def annotation(self, key: str) -> str:
        return (self.metadata.annotations or {}).get(key, "")


def address(number: int) -> str:
    """The pod address of that number."""
    return ".".join(str((ADDRESSES + number) >> shift & 255) for shift in (24, 16, 8, 0))


def number_of(text: str) -> int | None:
    """The inverse of `address`; None for an address that is not ours."""
    parts = text.split(".")
    if len(parts) != 4 or not all(part.isdigit() for part in parts):
        return None
    value = 0
    for part in parts:
        value = value << 8 | int(part)
    number = value - ADDRESSES
    return number if 0 <= number < ADDRESS_COUNT else None


def run_seconds(pod: HollowPod) -> float | None:
    """How long its containers run; None: until it is deleted. What always restarts never ends."""
    if (pod.spec.restartPolicy or "Always") == "Always":
        return None
    try:
        wanted = float(pod.annotation(RUN_SECONDS))
        if 0 <= wanted < float("inf"):
            return wanted
    except ValueError:
        pass
    owned = any(owner.get("kind") == "Job" and owner.get("controller") for owner in pod.metadata.ownerReferences or ())
    return JOB_SECONDS if owned else None


def exit_code(pod: HollowPod) -> int:
    """What its containers end with."""
    text = pod.annotation(EXIT_CODE)
    return int(text) if text.isdigit() and int(text) < 256 else 0


def running(pod: HollowPod, ip: str, host: str, now: datetime) -> dict[str, Any]:
    """The status patch of a pod whose containers have all started and are ready."""
    stamp = rfc3339(now)
    status: dict[str, Any] = {
        "phase": "Running",
        "startTime": stamp,
        "hostIP": host,
        "hostIPs": [{"ip": host}],
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "conditions": _conditions(pod, stamp),
        "containerStatuses": [
            _container(pod, each, {"running": {"startedAt": stamp}}, up=True) for each in pod.spec.containers
        ],
    }
    if pod.spec.initContainers:
        done = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": stamp, "finishedAt": stamp}}
        up = {"running": {"startedAt": stamp}}
        status["initContainerStatuses"] = [
            _container(pod, each, up if each.restartPolicy == "Always" else done, up=True)
            for each in pod.spec.initContainers
        ]
    return _patch(pod, status)


def ended(pod: HollowPod, code: int, now: datetime) -> dict[str, Any]:
    """The status patch of a pod whose containers have all ended."""
    stamp = rfc3339(now)
    state = {
        "terminated": {
            "exitCode": code,
            "reason": "Error" if code else "Completed",
            "startedAt": (pod.status.startTime if pod.status else None) or stamp,
            "finishedAt": stamp,
        }
    }
    reason = "PodFailed" if code else "PodCompleted"
    status = {
        "phase": "Failed" if code else "Succeeded",
        "conditions": _conditions(pod, stamp, over=reason),
        "containerStatuses": [_container(pod, each, state, up=False) for each in pod.spec.containers],
    }
    return _patch(pod, status)


def usage(container: Container, pod: HollowPod) -> tuple[int, int]:
    """(millicores, bytes) that a container uses: as annotated, else half of its cpu request and its memory request."""
    requests = (container.resources.requests if container.resources else None) or {}
    cpu = _quantity(pod.annotation(CPU), quantity.milli)
    memory = _quantity(pod.annotation(MEMORY), quantity.value)
    if cpu is None:
        asked = _quantity(requests.get("cpu", ""), quantity.milli)
        cpu = IDLE_CPU if asked is None else asked // 2
    if memory is None:
        asked = _quantity(requests.get("memory", ""), quantity.value)
        memory = IDLE_MEMORY if asked is None else asked
    return cpu, memory


def _quantity(text: str, read: Any) -> int | None:
    if not text:
        return None
    try:
        return max(0, int(read(text)))
    except ValueError:
        return None


def _patch(pod: HollowPod, status: dict[str, Any]) -> dict[str, Any]:
    status["observedGeneration"] = pod.metadata.generation
    return {"metadata": {"uid": pod.metadata.uid}, "status": status}


def _conditions(pod: HollowPod, stamp: str, over: str = "") -> list[dict[str, Any]]:
    ready = {"status": "False", "reason": over} if over else {"status": "True"}
    values = {
        "PodReadyToStartContainers": {"status": "False" if over else "True"},
        "Initialized": {"status": "True", **({"reason": over} if over == "PodCompleted" else {})},
        "Ready": ready,
        "ContainersReady": ready,
    }
    common = {"lastTransitionTime": stamp, "observedGeneration": pod.metadata.generation}
    return [{"type": kind, **value, **common} for kind, value in values.items()]


def _container(pod: HollowPod, container: Container, state: dict[str, Any], *, up: bool) -> dict[str, Any]:
    return {
        "name": container.name,
        "image": container.image,
        "imageID": "",
        "containerID": f"hollow://{pod.metadata.uid}/{container.name}",
        "restartCount": 0,
        "ready": up,
        "started": up and "running" in state,
        "state": state,
    }
