"""What a delete request does to an object: remove it, mark it, or leave it waiting.

Pure plans over copies; the registry carries them out. The rules are upstream's: graceful deletion (pods), finalizers,
propagation policies as finalizers of the garbage collector, and namespaces, which wait for their own finalizers.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple, Protocol

from apiserver.registry.context import DeleteOptions
from machinery.clock import Clock
from machinery.errors import Conflict
from machinery.meta import parse_time, rfc3339

Obj = dict[str, Any]

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"

ORPHAN_BY_DEFAULT = frozenset({("batch", "jobs"), ("", "replicationcontrollers")})
"""Kinds whose v1 API predates garbage collection: their dependents stay unless the client asks otherwise."""

WITHOUT_DEPENDENTS = frozenset({("", "events")})
"""Kinds that the garbage collector leaves alone: however they are deleted, it is not asked for anything."""

ANSWERS_WITH_OBJECT = frozenset(
    {
        ("", "persistentvolumeclaims"),
        ("", "persistentvolumes"),
        ("", "pods"),
        ("", "podtemplates"),
        ("", "resourcequotas"),
        ("", "serviceaccounts"),
        ("", "services"),
        ("storage.k8s.io", "csidrivers"),
        ("storage.k8s.io", "csinodes"),
        ("storage.k8s.io", "csistoragecapacities"),
        ("storage.k8s.io", "storageclasses"),
        ("storage.k8s.io", "volumeattachments"),
        ("storage.k8s.io", "volumeattributesclasses"),
    }
)
"""Kinds whose DELETE answers with the deleted object instead of a Status."""


class GracefulStrategy(Protocol):
    """The part of a Strategy that deletion asks."""

    def grace_period(self, obj: Obj, requested: int | None) -> int | None:
        """Seconds, or None for kinds without graceful deletion."""

    def prepare_graceful_delete(self, obj: Obj) -> None:
        """The deletionTimestamp was set for the first time."""


class Deletion(NamedTuple):
    """`update` (if any) is written first; then, with `remove`, the object is taken away."""

    update: Obj | None
    remove: bool


def check_preconditions(obj: Obj, options: DeleteOptions, kind: str, group: str) -> None:
    """Raises Conflict when the object is not the one the client means."""
    meta = obj["metadata"]
    if options.uid and options.uid != meta.get("uid"):
        why = (
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({meta.get('uid', '')}). "
            "The object might have been deleted and then recreated"
        )
        raise Conflict.of(kind, meta["name"], group, why)
    if options.resource_version and options.resource_version != meta.get("resourceVersion"):
        why = (
            f"the ResourceVersion in the precondition ({options.resource_version}) does not match the ResourceVersion "
            f"in record ({meta.get('resourceVersion', '')}). The object might have been modified"
        )
        raise Conflict.of(kind, meta["name"], group, why)


def gc_finalizers(finalizers: list[str], options: DeleteOptions, *, orphan_by_default: bool) -> list[str]:
    """The finalizers that tell the garbage collector what to do with dependents."""
    policy = options.propagation_policy
    if options.orphan_dependents is not None:
        orphan = options.orphan_dependents
    elif policy is not None:
        orphan = policy == "Orphan"
    else:
        orphan = ORPHAN in finalizers or orphan_by_default
    if options.orphan_dependents is not None:
        foreground = False
    elif policy is not None:
        foreground = policy == "Foreground"
    else:
        foreground = FOREGROUND in finalizers
    kept = [name for name in finalizers if name not in (ORPHAN, FOREGROUND)]
    return kept + [ORPHAN] * orphan + [FOREGROUND] * foreground


def plan_deletion(
    obj: Obj, options: DeleteOptions, strategy: GracefulStrategy, clock: Clock, *, orphan_by_default: bool = False
) -> Deletion:
    """What this request does to an object of a regular kind. `obj` is not changed."""
    meta = obj["metadata"]
    grace = strategy.grace_period(obj, options.grace_period_seconds)
    marked = dict(obj, metadata=dict(meta))
    graceful = False
    if grace is not None:
        if meta.get("deletionTimestamp") and meta.get("deletionGracePeriodSeconds"):
            # Without a grace period left, the removal that should have followed was cut off: it is done now.
            last = meta["deletionGracePeriodSeconds"]
            asked = options.grace_period_seconds
            if asked is None or max(asked, 0) >= last:
                return Deletion(None, remove=False)  # under way; only a shorter period changes anything
            _set_deadline(marked, _started(meta, last, clock), asked, clock)
            grace, graceful = asked, True
        elif not meta.get("deletionTimestamp"):
            _set_deadline(marked, clock.now(), grace, clock)
            strategy.prepare_graceful_delete(marked)
            graceful = True
    before = list(meta.get("finalizers") or ())
    finalizers = gc_finalizers(before, options, orphan_by_default=orphan_by_default)
    if finalizers != before:
        _set_finalizers(marked, finalizers)
    if graceful:
        return Deletion(marked, remove=not finalizers and not grace)
    if finalizers:
        _mark(marked, clock)
        return Deletion(marked, remove=False)
    return Deletion(None, remove=True)


def plan_namespace_deletion(obj: Obj, options: DeleteOptions, clock: Clock) -> Deletion:
    """Namespaces: the first request marks them Terminating; they go when both kinds of finalizers are empty."""
    meta = obj["metadata"]
    if not meta.get("deletionTimestamp"):
        marked = dict(obj, metadata=dict(meta, deletionTimestamp=rfc3339(clock.now())))
        marked["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
        before = list(meta.get("finalizers") or ())
        finalizers = gc_finalizers(before, options, orphan_by_default=False)
        if finalizers != before:
            _set_finalizers(marked, finalizers)
        waits = bool((obj.get("spec") or {}).get("finalizers") or finalizers)
        return Deletion(marked, remove=not waits)
    waits = bool((obj.get("spec") or {}).get("finalizers") or meta.get("finalizers"))
    return Deletion(None, remove=not waits)


def finished(new: Obj, old: Obj) -> bool:
    """Did this update take away the last thing that a marked object waited for?"""
    meta = old["metadata"]
    if not meta.get("deletionTimestamp") or new["metadata"].get("finalizers"):
        return False
    if (new.get("spec") or {}).get("finalizers") and new.get("kind") == "Namespace":
        return False
    return not meta.get("deletionGracePeriodSeconds")


def _started(meta: Obj, grace: int, clock: Clock) -> datetime:
    deadline = parse_time(meta["deletionTimestamp"])
    return deadline - (clock.deadline(grace) - clock.now())


def _set_deadline(obj: Obj, start: datetime, grace: int, clock: Clock) -> None:
    meta = obj["metadata"]
    meta["deletionTimestamp"] = rfc3339(start + (clock.deadline(grace) - clock.now()))
    meta["deletionGracePeriodSeconds"] = grace


def _set_finalizers(obj: Obj, finalizers: list[str]) -> None:
    if finalizers:
        obj["metadata"]["finalizers"] = finalizers
    else:
        obj["metadata"].pop("finalizers", None)


def _mark(obj: Obj, clock: Clock) -> None:
    """Deleted, but something still holds it: no grace is left, only finalizers."""
    meta = obj["metadata"]
    if not meta.get("deletionTimestamp"):
        if meta.get("generation"):
            meta["generation"] += 1
        meta["deletionTimestamp"] = rfc3339(clock.now())
    elif parse_time(meta["deletionTimestamp"]) > clock.now():
        meta["deletionTimestamp"] = rfc3339(clock.now())
    meta["deletionGracePeriodSeconds"] = 0
