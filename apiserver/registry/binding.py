"""`pods/{name}/binding`: the pod as it becomes when it is assigned to a node. Pure; called by `ResourceStore`."""

from __future__ import annotations

from typing import Any

from machinery.errors import Conflict, StatusError

Obj = dict[str, Any]


def bind(pod: Obj, binding: Obj, now: str) -> Obj:
    """A changed copy of the pod. Raises Conflict when it is bound, gated or going away; a bad target is a 500."""
    target = binding.get("target") or {}
    if target.get("kind") not in (None, "", "Node"):
        raise _bad(f'target.kind: Unsupported value: "{target["kind"]}": supported values: "Node", "<empty>"')
    node = target.get("name")
    if not node:
        raise _bad("target.name: Required value")
    name, meta, spec = pod["metadata"]["name"], pod["metadata"], pod["spec"]
    if meta.get("deletionTimestamp"):
        raise _refused(name, f"pod {name} is being deleted, cannot be assigned to a host")
    if spec.get("nodeName"):
        raise _refused(name, f'pod {name} is already assigned to node "{spec["nodeName"]}"')
    if spec.get("schedulingGates"):
        raise _refused(name, f"pod {name} has non-empty .spec.schedulingGates")
    bound_meta = dict(meta)
    for field in ("annotations", "labels"):
        if given := (binding.get("metadata") or {}).get(field):
            bound_meta[field] = {**(meta.get(field) or {}), **given}
    status = pod.get("status") or {}
    return {
        **pod,
        "metadata": bound_meta,
        "spec": {**spec, "nodeName": node},
        "status": {**status, "conditions": _scheduled(status.get("conditions") or [], now)},
    }


def _scheduled(conditions: list[Obj], now: str) -> list[Obj]:
    """The conditions with PodScheduled true."""
    true = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
    rest = [condition for condition in conditions if condition.get("type") != "PodScheduled"]
    return [*rest, true]


def _bad(message: str) -> StatusError:
    # Upstream reports these findings without wrapping them into a Status of their own.
    return StatusError(message, code=500, reason="")


def _refused(name: str, why: str) -> Conflict:
    return Conflict.of("pods/binding", name, "", why)
