"""In-place resize of a pod: what was asked, what the node agreed to, what the containers have.

Three levels, as upstream keeps them: *desired* is the API server's spec, *allocated* is what the node has agreed to
(the slots' specs), *actuated* is what the runtime was told (`Slot.actuated`). Owns the comparison of the three and the
texts of events. Never asks the node and never calls the runtime: the machine turns findings into instructions. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import structs

from api.models import core_v1
from kubelet.pod.slot import Slot
from machinery import quantity

RESIZABLE = ("cpu", "memory")
DEFERRED, INFEASIBLE = "Deferred", "Infeasible"
RETRY = 10.0  # cluster seconds between tries of a resize that the runtime refused

Claim = core_v1.ResourceRequirements | None


@dataclass(slots=True)
class Resize:
    """How far the resize of one pod is."""

    wanted: bool = False  # desired and allocated differ, and the node has not been asked yet
    pending: tuple[str, str] | None = None  # why the node did not agree: (reason, message)
    in_progress: bool = False  # allocated, but not actuated everywhere


def amounts(claim: Claim) -> dict[tuple[str, str], Any]:
    """cpu and memory of a claim as comparable numbers, by (limits or requests, resource)."""
    found = {}
    for kind in ("limits", "requests"):
        for name, amount in (getattr(claim, kind, None) or {}).items():
            if name in RESIZABLE:
                found[kind, name] = quantity.parse(amount)
    return found


def same(one: Claim, other: Claim) -> bool:
    """Whether two claims mean the same cpu and memory."""
    return amounts(one) == amounts(other)


def with_claim(container: core_v1.Container, claim: Claim) -> core_v1.Container:
    """The container with other resources."""
    return structs.replace(container, resources=claim)


def settled(slot: Slot) -> bool:
    """Whether the running container has what was allocated; nothing is known to differ where nothing is known."""
    return not slot.resizable or not slot.running or slot.actuated is None or same(slot.actuated, slot.spec.resources)


def needs_restart(slot: Slot) -> bool:
    """Whether the container's own resize policy wants a restart for what changes."""
    before, after = amounts(slot.actuated), amounts(slot.spec.resources)
    changed = {name for (kind, name) in {*before, *after} if before.get((kind, name)) != after.get((kind, name))}
    return any(
        policy.resourceName in changed and policy.restartPolicy == "RestartContainer"
        for policy in slot.spec.resizePolicy or ()
    )


def allocated_pod(pod: core_v1.Pod, slots: Mapping[str, Slot]) -> core_v1.Pod:
    """The pod as the node has agreed to it."""
    spec = pod.spec
    assert spec is not None

    def agreed(containers: Iterable[core_v1.Container] | None) -> list[core_v1.Container]:
        return [slots[each.name].spec if each.name in slots else each for each in containers or ()]

    agreed_spec = structs.replace(
        spec,
        containers=agreed(spec.containers),
        initContainers=agreed(spec.initContainers) if spec.initContainers else spec.initContainers,
    )
    return structs.replace(pod, spec=agreed_spec)


def event_message(what: str, pod: core_v1.Pod, slots: Iterable[Slot], error: str = "") -> str:
    """`Pod resize <what>: {…}` as upstream words it: the allocation of every container that has one."""
    summary: dict[str, Any] = {}
    for slot in slots:
        if not slot.resizable:
            continue
        claim = slot.spec.resources
        held = {kind: dict(getattr(claim, kind, None) or {}) for kind in ("limits", "requests")}
        held = {kind: values for kind, values in held.items() if values}
        summary.setdefault(slot.field, []).append({"name": slot.name, "resources": held})
    ordered: dict[str, Any] = {name: summary[name] for name in ("initContainers", "containers") if name in summary}
    ordered["generation"] = (pod.metadata.generation if pod.metadata else None) or 0
    if error:
        ordered["error"] = error
    return f"Pod resize {what}: {json.dumps(ordered, separators=(',', ':'))}"
