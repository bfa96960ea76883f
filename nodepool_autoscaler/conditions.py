"""Conditions of NodeClaims, NodePools and node classes, as upstream's library keeps them. Pure.

`Ready` follows from the others: True when all are, False when one is False, else Unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from machinery.meta import rfc3339
from nodepool_autoscaler.names import READY
from nodepool_autoscaler.objects import ConditionStatus

AWAITING = ("AwaitingReconciliation", "object is awaiting reconciliation")


class Conditions:
    """Those of one object, changed step by step. `needed`: what Ready depends on."""

    def __init__(
        self, known: Iterable[ConditionStatus], needed: Sequence[str], now: datetime, generation: int | None = None
    ) -> None:
        self._before = {each.type: _plain(each) for each in known}
        self._found = {kind: dict(each) for kind, each in self._before.items()}
        self._needed = tuple(needed)
        self._now = rfc3339(now)
        self._generation = generation
        for kind in self._needed:
            if kind not in self._found:
                self.set(kind, None, *AWAITING)

    def set(self, kind: str, value: bool | None, reason: str = "", message: str = "") -> None:
        """None: unknown. The time of transition is kept where the value is. Nothing changes when nothing is new."""
        status = "Unknown" if value is None else str(value)
        known = self._found.get(kind)
        reason = reason or kind
        if known is not None and (known["status"], known["reason"], known["message"]) == (status, reason, message):
            return
        since = known["lastTransitionTime"] if known is not None and known["status"] == status else self._now
        made = {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}
        if self._generation is not None:
            made["observedGeneration"] = self._generation
        self._found[kind] = made

    def drop(self, kind: str) -> None:
        self._found.pop(kind, None)

    def is_true(self, kind: str) -> bool:
        return kind in self._found and self._found[kind]["status"] == "True"

    def is_false(self, kind: str) -> bool:
        return kind in self._found and self._found[kind]["status"] == "False"

    def finish(self) -> list[dict[str, Any]] | None:
        """The whole list with Ready; None when nothing changed."""
        if self._needed:
            lacking = [kind for kind in self._needed if not self.is_true(kind)]
            told = ", ".join(f"{kind}={self._found[kind]['status']}" for kind in lacking)
            if not lacking:
                self.set(READY, True)
            elif any(self.is_false(kind) for kind in lacking):
                self.set(READY, False, "UnhealthyDependents", told)
            else:
                self.set(READY, None, "ReconcilingDependents", told)
        if self._found == self._before:
            return None
        return [self._found[kind] for kind in sorted(self._found)]


def _plain(known: ConditionStatus) -> dict[str, Any]:
    made: dict[str, Any] = {
        "type": known.type,
        "status": known.status,
        "reason": known.reason,
        "message": known.message,
        "lastTransitionTime": rfc3339(known.lastTransitionTime) if known.lastTransitionTime is not None else "",
    }
    if known.observedGeneration is not None:
        made["observedGeneration"] = known.observedGeneration
    return made
