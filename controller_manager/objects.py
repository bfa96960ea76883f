"""Facts of API objects that several controllers need: owners, pods' state, conditions, status patches.

Pure functions on typed objects, no I/O. Called by the controllers.
"""
# mypy: disable-error-code="union-attr"
# Objects that come from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from api import resources
from api.models import core_v1, meta_v1
from machinery.clock import Clock
from machinery.selectors import LabelSelector

T = TypeVar("T")

SUCCEEDED: Final = "Succeeded"
FAILED: Final = "Failed"
ORPHANS: Final = "orphans"


def wall_seconds(clock: Clock) -> datetime:
    """The time for a metav1.Time field, which has whole seconds."""
    return clock.now().replace(microsecond=0)


def controller_of(obj: Any) -> meta_v1.OwnerReference | None:
    """The reference of the one owner that manages the object."""
    for reference in obj.metadata.ownerReferences or ():
        if reference.controller:
            found: meta_v1.OwnerReference = reference
            return found
    return None


def controller_reference(owner: Any) -> meta_v1.OwnerReference:
    """What an object made by `owner`'s controller carries."""
    model: Any = type(owner)
    resource = resources.of(model)
    return meta_v1.OwnerReference(
        apiVersion=resource.group_version,
        kind=resource.kind,
        name=owner.metadata.name,
        uid=owner.metadata.uid,
        controller=True,
        blockOwnerDeletion=True,
    )


def orphan_namespace(obj: Any) -> Iterable[str]:
    """Indexer for ORPHANS: the namespace of an object that nobody manages."""
    return () if controller_of(obj) is not None else (obj.metadata.namespace or "",)


class Claims(NamedTuple):
    """What an owner has, should take and should let go of."""

    owned: list[Any]
    adopt: list[Any]
    release: list[Any]


def plan_claims(owner: Any, selector: LabelSelector, candidates: Iterable[Any]) -> Claims:
    """Objects of the owner that still match stay, others are released; matching orphans are adopted.

    An owner that is being deleted takes nothing; a selector that matches everything matches nothing here.
    """
    claims = Claims([], [], [])
    for obj in candidates:
        reference = controller_of(obj)
        matches = not selector.empty and selector.matches(obj.metadata.labels)
        if reference is not None:
            if reference.uid == owner.metadata.uid:
                if matches:
                    claims.owned.append(obj)
                elif owner.metadata.deletionTimestamp is None:
                    claims.release.append(obj)
        elif matches and owner.metadata.deletionTimestamp is None and obj.metadata.deletionTimestamp is None:
            claims.adopt.append(obj)
    return claims


def adoption_patch(owner: Any, obj: Any) -> dict[str, Any]:
    """Strategic merge patch by which an orphan gets its owner; its uid is a precondition."""
    reference = msgspec.to_builtins(controller_reference(owner))
    return {"metadata": {"uid": obj.metadata.uid, "ownerReferences": [reference]}}


def release_patch(owner: Any, obj: Any) -> dict[str, Any]:
    """Strategic merge patch by which an object loses its owner."""
    return {
        "metadata": {
            "uid": obj.metadata.uid,
            "ownerReferences": [{"$patch": "delete", "uid": owner.metadata.uid}],
        }
    }


def spec_replicas(obj: Any) -> int:
    """spec.replicas, 0 where it is unset (the server fills in its default)."""
    return int(obj.spec.replicas or 0)


def is_finished(pod: core_v1.Pod) -> bool:
    """Whether no container of the pod will ever run again."""
    return pod.status is not None and pod.status.phase in (SUCCEEDED, FAILED)


def is_active(pod: core_v1.Pod) -> bool:
    """Whether the pod counts as a replica."""
    return not is_finished(pod) and pod.metadata.deletionTimestamp is None


def is_terminating(pod: core_v1.Pod) -> bool:
    return pod.metadata.deletionTimestamp is not None


def condition(obj: Any, type_: str) -> Any | None:
    """The condition of that type in status.conditions, or None."""
    for found in (obj.status.conditions if obj.status is not None else None) or ():
        if found.type == type_:
            return found
    return None


def is_ready(pod: core_v1.Pod) -> bool:
    ready = condition(pod, "Ready")
    return ready is not None and ready.status == "True"


def available_after(pod: core_v1.Pod, min_ready_seconds: int, clock: Clock) -> float | None:
    """Seconds until the pod has been ready for long enough: 0 if it is available, None if it is not ready."""
    ready = condition(pod, "Ready")
    if ready is None or ready.status != "True":
        return None
    if min_ready_seconds <= 0:
        return 0.0
    if ready.lastTransitionTime is None:
        return None
    return max(0.0, min_ready_seconds - clock.elapsed(ready.lastTransitionTime))


def merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON merge patch (RFC 7386) that turns old into new; {} if they are equal."""
    patch: dict[str, Any] = {}
    for name in old.keys() | new.keys():
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            patch[name] = merge_patch(before, after)
        else:
            patch[name] = after
    return patch


def status_patch(old: Any, new: Any) -> dict[str, Any] | None:
    """Merge patch of a typed status, or None if there is nothing to write."""
    before = msgspec.to_builtins(old) if old is not None else {}
    difference = merge_patch(before, msgspec.to_builtins(new))
    return {"status": difference} if difference else None
