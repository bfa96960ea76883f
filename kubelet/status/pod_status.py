"""v1.PodStatus of a pod, from its machine; and the patch that turns one status into another. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from api.models import core_v1
from kubelet.pod.machine import PodMachine
from kubelet.pod.slot import Kind
from kubelet.qos import qos_class
from kubelet.restart import ALWAYS
from kubelet.status.containers import container_status
from kubelet.status.phase import FAILED, RUNNING, SUCCEEDED, pod_phase
from machinery.meta import rfc3339

READY_TO_START, INITIALIZED, READY = "PodReadyToStartContainers", "Initialized", "Ready"
CONTAINERS_READY, SCHEDULED = "ContainersReady", "PodScheduled"
DISRUPTED, EVICTED = "DisruptionTarget", "Evicted"
RESIZE_PENDING, RESIZE_IN_PROGRESS = "PodResizePending", "PodResizeInProgress"
PASSING = (RESIZE_PENDING, RESIZE_IN_PROGRESS)  # conditions that are there only while they hold
KEYS = (
    "observedGeneration",
    "phase",
    "reason",
    "message",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "startTime",
    "qosClass",
    "initContainerStatuses",
    "containerStatuses",
    "ephemeralContainerStatuses",
)


def pod_status(machine: PodMachine, node_ip: str, scheme: str, now: datetime) -> dict[str, Any]:
    """The whole status as JSON; `lastTransitionTime` of a condition is carried over where its status stays."""
    pod, spec = machine.pod, machine.spec
    meta = pod.metadata or None
    generation = meta.generation if meta else None
    ended = (
        (machine.over or machine.deleting or machine.gone or machine.verdict is not None)
        and machine.idle()
        and (not any(slot.running for slot in machine.slots.values()))
    )
    inits = [slot for slot in machine.slots.values() if slot.kind in (Kind.INIT, Kind.SIDECAR)]
    initialized = all(slot.started if slot.kind is Kind.SIDECAR else slot.succeeded() for slot in inits)
    made = {
        name: container_status(
            slot,
            scheme,
            has_init=bool(inits),
            initialized=initialized,
            ended=ended and machine.verdict is None,
        )
        for name, slot in machine.slots.items()
    }
    if machine.verdict is not None and not any(slot.current for slot in machine.slots.values()):
        made = {}
    phase = pod_phase(spec, made, terminal=ended)
    if machine.verdict is not None and not any(slot.running for slot in machine.slots.values()):
        phase = FAILED
    status: dict[str, Any] = {"phase": phase}
    if generation:
        status["observedGeneration"] = generation
    if machine.verdict is not None:
        status["reason"], status["message"] = machine.verdict
    status["hostIP"], status["hostIPs"] = node_ip, [{"ip": node_ip}]
    ips = pod_ips(machine, node_ip)
    if ips:
        status["podIP"], status["podIPs"] = ips[0], [{"ip": ip} for ip in ips]
    status["startTime"] = rfc3339(machine.start_time)
    status["qosClass"] = (pod.status.qosClass if pod.status else None) or qos_class(spec)
    status["initContainerStatuses"] = [made[slot.name] for slot in inits if slot.name in made]
    mains = sorted(container.name for container in spec.containers)
    status["containerStatuses"] = [made[name] for name in mains if name in made]
    added = sorted(container.name for container in spec.ephemeralContainers or ())
    if added:
        status["ephemeralContainerStatuses"] = [made[name] for name in added if name in made]
    status["conditions"] = _conditions(machine, phase, made, generation, now)
    return status


def pod_ips(machine: PodMachine, node_ip: str) -> tuple[str, ...]:
    """The addresses of the pod; those of a pod that has ended stay in its status."""
    if machine.spec.hostNetwork:
        return (node_ip,) if machine.sandbox is not None else ()
    if machine.sandbox is not None and machine.sandbox.ips:
        return machine.sandbox.ips
    known = machine.pod.status
    return tuple(entry.ip for entry in (known.podIPs if known else None) or () if entry.ip)


def _conditions(
    machine: PodMachine, phase: str, made: Mapping[str, Mapping[str, Any]], generation: int | None, now: datetime
) -> list[dict[str, Any]]:
    spec = machine.spec
    sandbox = machine.sandbox
    has_network = sandbox is not None and sandbox.ready
    containers_ready = _containers_ready(spec, phase, made)
    facts: list[tuple[str, bool, str, str]] = [
        *_resize_conditions(machine),
        (READY_TO_START, has_network, "", ""),
        (INITIALIZED, *_initialized(spec, phase, made)),
        (READY, *_ready(machine.pod, containers_ready)),
        (CONTAINERS_READY, *containers_ready),
        (SCHEDULED, True, "", ""),
    ]
    if machine.verdict is not None and machine.verdict[0] == EVICTED and machine.slots_begun():
        facts.append((DISRUPTED, True, "TerminationByKubelet", machine.verdict[1]))
    before = {
        condition.type: condition for condition in (machine.pod.status.conditions if machine.pod.status else None) or ()
    }
    result = []
    for kind, true, reason, message in facts:
        value = "True" if true else "False"
        old = before.get(kind)
        since = old.lastTransitionTime if old is not None and old.status == value else None
        condition: dict[str, Any] = {
            "type": kind,
            "status": value,
            "lastProbeTime": None,
            "lastTransitionTime": rfc3339(since or now),
        }
        if kind == SCHEDULED and old is not None and old.observedGeneration:
            condition["observedGeneration"] = old.observedGeneration
        elif generation:
            condition["observedGeneration"] = generation
        if reason:
            condition["reason"] = reason
        if message:
            condition["message"] = message
        result.append(condition)
    return result


def _resize_conditions(machine: PodMachine) -> list[tuple[str, bool, str, str]]:
    facts = []
    if machine.resize.pending is not None:
        facts.append((RESIZE_PENDING, True, *machine.resize.pending))
    if machine.resize.in_progress:
        errors = [slot.resize_error for slot in machine.slots.values() if slot.resize_error]
        facts.append((RESIZE_IN_PROGRESS, True, "Error" if errors else "", "; ".join(errors)))
    return facts


def _initialized(spec: core_v1.PodSpec, phase: str, made: Mapping[str, Mapping[str, Any]]) -> tuple[bool, str, str]:
    unknown: list[str] = []
    incomplete: list[str] = []
    for container in spec.initContainers or ():
        status = made.get(container.name)
        if status is None:
            unknown.append(container.name)
        elif container.restartPolicy == ALWAYS:
            if not status.get("started"):
                incomplete.append(container.name)
        elif not status["ready"]:
            incomplete.append(container.name)
    if phase == SUCCEEDED:
        return True, "PodCompleted", ""
    begun = any("running" in (made.get(each.name) or {}).get("state", {}) for each in spec.containers)
    if (unknown or incomplete) and not begun:
        return (
            False,
            "ContainersNotInitialized",
            _named(("with unknown status", unknown), ("with incomplete status", incomplete)),
        )
    return True, "", ""


def _containers_ready(
    spec: core_v1.PodSpec, phase: str, made: Mapping[str, Mapping[str, Any]]
) -> tuple[bool, str, str]:
    unknown: list[str] = []
    unready: list[str] = []
    sidecars = [each for each in spec.initContainers or () if each.restartPolicy == ALWAYS]
    for container in (*sidecars, *spec.containers):
        status = made.get(container.name)
        if status is None:
            unknown.append(container.name)
        elif not status["ready"]:
            unready.append(container.name)
    if phase == SUCCEEDED and not unknown:
        return False, "PodCompleted", ""
    if phase == FAILED:
        return False, "PodFailed", ""
    if unknown or unready:
        return (
            False,
            "ContainersNotReady",
            "containers " + _named(("with unknown status", unknown), ("with unready status", unready), lead=""),
        )
    return True, "", ""


def _ready(pod: core_v1.Pod, containers: tuple[bool, str, str]) -> tuple[bool, str, str]:
    if not containers[0]:
        return containers
    assert pod.spec is not None
    known = {condition.type: condition for condition in (pod.status.conditions if pod.status else None) or ()}
    told = []
    for gate in pod.spec.readinessGates or ():
        condition = known.get(gate.conditionType)
        if condition is None:
            told.append(f'corresponding condition of pod readiness gate "{gate.conditionType}" does not exist.')
        elif condition.status != "True":
            told.append(
                f'the status of pod readiness gate "{gate.conditionType}" is not "True", but {condition.status}'
            )
    return (False, "ReadinessGatesNotReady", ", ".join(told)) if told else (True, "", "")


def _named(*groups: tuple[str, Sequence[str]], lead: str = "containers ") -> str:
    parts = [f"{text}: [{' '.join(names)}]" for text, names in groups if names]
    return lead + ", ".join(parts)


def is_running(status: Mapping[str, Any]) -> bool:
    """A status worth writing at once."""
    return status.get("phase") in (RUNNING, SUCCEEDED, FAILED)


def status_patch(uid: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any] | None:
    """The strategic merge patch from `old` (the API server's) to `new` (ours); None when nothing differs.

    Only fields and conditions that a kubelet owns are looked at; conditions merge by type, so others keep theirs.
    """
    changes: dict[str, Any] = {}
    for key in KEYS:
        was, wanted = old.get(key), new.get(key)
        if was != wanted and (was or wanted):
            # Addresses merge by ip: without the directive a new sandbox's address would join the old one.
            merged = key in ("podIPs", "hostIPs") and was
            changes[key] = [{"$patch": "replace"}, *(wanted or ())] if merged else wanted
    known = {condition.get("type"): condition for condition in old.get("conditions") or ()}
    conditions = []
    for condition in new.get("conditions") or ():
        was = known.get(condition["type"])
        if was is not None and all(_same(was.get(field), condition.get(field)) for field in {*was, *condition}):
            continue
        gone = {field: None for field in ("reason", "message") if was and was.get(field) and field not in condition}
        conditions.append({**condition, **gone})
    told = {condition["type"] for condition in new.get("conditions") or ()}
    conditions += [{"$patch": "delete", "type": kind} for kind in PASSING if kind in known and kind not in told]
    if conditions:
        changes["conditions"] = conditions
    return {"metadata": {"uid": uid}, "status": changes} if changes else None


def _same(one: Any, other: Any) -> bool:
    return bool(one == other or (not one and not other))
