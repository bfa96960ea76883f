"""Revisions of a Deployment: the annotations that number its ReplicaSets, and which old sets the history drops.

Pure. `kubectl rollout history` and `undo` read what is written here. Called by controller.py.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from api.models import apps_v1

PREFIX: Final = "deployment.kubernetes.io/"
REVISION: Final = f"{PREFIX}revision"
HISTORY: Final = f"{PREFIX}revision-history"
DESIRED: Final = f"{PREFIX}desired-replicas"
MAX: Final = f"{PREFIX}max-replicas"
MAX_HISTORY_LENGTH: Final = 2000
_NOT_COPIED: Final = {
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
}


def annotations_of(obj: Any) -> dict[str, str]:
    return dict(obj.metadata.annotations or {})


def revision_of(obj: Any) -> int:
    """The revision number, 0 if there is none that can be read."""
    return int_annotation(obj, REVISION) or 0


def int_annotation(obj: Any, name: str) -> int | None:
    try:
        return int((obj.metadata.annotations or {})[name])
    except (KeyError, ValueError):
        return None


def plan_annotations(deployment: apps_v1.Deployment, existing: dict[str, str], revision: int) -> dict[str, str]:
    """Annotations of the new set: the Deployment's own, and its revision; a set rolled back to keeps its past ones."""
    planned = dict(existing)
    for name, value in annotations_of(deployment).items():
        if name not in _NOT_COPIED:
            planned[name] = value
    old = existing.get(REVISION)
    try:
        old_number = int(old) if old else 0
    except ValueError:
        return planned  # somebody wrote nonsense: leave it alone rather than renumber
    if old_number >= revision:
        return planned
    planned[REVISION] = str(revision)
    if old:
        planned[HISTORY] = _history(existing.get(HISTORY, ""), old)
    return planned


def _history(history: str, revision: str) -> str:
    if len(revision) >= MAX_HISTORY_LENGTH:
        return history
    parts = [part for part in history.split(",") if part]
    parts.append(revision)
    while len(",".join(parts)) > MAX_HISTORY_LENGTH:
        parts.pop(0)
    return ",".join(parts)


def size_annotations(desired: int, max_surge: int) -> dict[str, str]:
    """What tells a scaling event from a rollout, and in which proportion a set shares it."""
    return {DESIRED: str(desired), MAX: str(desired + max_surge)}


def plan_cleanup(limit: int | None, old: Sequence[apps_v1.ReplicaSet]) -> list[apps_v1.ReplicaSet]:
    """Old sets beyond the history limit that are certainly empty, oldest revision first."""
    if limit is None:
        return []
    alive = [rs for rs in old if rs.metadata.deletionTimestamp is None]
    excess = len(alive) - limit
    if excess <= 0:
        return []
    ordered = sorted(alive, key=lambda rs: (revision_of(rs), rs.metadata.creationTimestamp))
    return [rs for rs in ordered[:excess] if _empty(rs)]


def _empty(rs: apps_v1.ReplicaSet) -> bool:
    status = rs.status
    observed = (status.observedGeneration or 0) if status is not None else 0
    replicas = status.replicas if status is not None else 0
    return not rs.spec.replicas and not replicas and (rs.metadata.generation or 0) <= observed
