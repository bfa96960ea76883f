"""The status of a VerticalPodAutoscaler: conditions and recommendation, as a patch when something changed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from machinery.meta import rfc3339
from vertical_autoscaler.objects import ContainerRecommendation, Vpa

NO_PODS = ("NoPodsMatched", "No pods match this VPA object")


class Conditions:
    """The conditions as they were, changed step by step; those of which nothing is said go away by `drop`."""

    def __init__(self, vpa: Vpa, now: datetime) -> None:
        before = vpa.status.conditions if vpa.status is not None else []
        self._before: list[dict[str, Any]] = msgspec.to_builtins(before)
        self._found = {each["type"]: dict(each) for each in self._before}
        self._now = rfc3339(now)

    def set(self, kind: str, value: bool, reason: str = "", message: str = "") -> None:
        """Set a condition; its transition time is kept where its value is."""
        told = "True" if value else "False"
        known = self._found.get(kind)
        since = known["lastTransitionTime"] if known is not None and known["status"] == told else self._now
        made = {"type": kind, "status": told, "lastTransitionTime": since, "reason": reason, "message": message}
        self._found[kind] = {key: value for key, value in made.items() if value}

    def drop(self, kind: str) -> None:
        self._found.pop(kind, None)

    def patch(self, vpa: Vpa, recommended: Sequence[ContainerRecommendation]) -> dict[str, Any]:
        """A merge patch of the status; empty when nothing changed. Without a new recommendation the old one stays."""
        changed: dict[str, Any] = {}
        conditions = [self._found[kind] for kind in sorted(self._found)]
        if conditions != self._before:
            changed["conditions"] = conditions
        if recommended:
            told = [each.told() for each in recommended]
            if vpa.status is None or told != _told(vpa):
                changed["recommendation"] = {"containerRecommendations": told}
        return changed


def _told(vpa: Vpa) -> list[dict[str, Any]] | None:
    found = vpa.status.recommendation if vpa.status is not None else None
    return msgspec.to_builtins(found.containerRecommendations) if found is not None else None
