"""The status of an autoscaler: what changes in it by one look. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from api.models import autoscaling_v2
from machinery.meta import rfc3339

stamp = rfc3339


class Conditions:
    """The status as it was, changed step by step; `patch` is what to write."""

    def __init__(self, hpa: autoscaling_v2.HorizontalPodAutoscaler, now: datetime) -> None:
        self._before: dict[str, Any] = msgspec.to_builtins(hpa.status) if hpa.status is not None else {}
        self._now = rfc3339(now)
        self._after: dict[str, Any] = {}
        self._conditions = [dict(each) for each in self._before.get("conditions") or ()]

    def set(self, kind: str, value: str, reason: str, message: str) -> None:
        """Set a condition; its transition time is kept where its value is."""
        found = next((each for each in self._conditions if each["type"] == kind), None)
        if found is None:
            found = {"type": kind}
            self._conditions.append(found)
        if found.get("status") != value:
            found["lastTransitionTime"] = self._now
        found |= {"status": value, "reason": reason, "message": message}

    def observe(self, current: int, desired: int, metrics: list[dict[str, Any]], *, rescaled: bool = False) -> None:
        """The counts and what the metrics were."""
        self._after |= {"currentReplicas": current, "desiredReplicas": desired, "currentMetrics": metrics or None}
        if rescaled:
            self._after["lastScaleTime"] = self._now

    def patch(self) -> dict[str, Any] | None:
        """A merge patch of the status; None when nothing changed."""
        after = {**self._after, "conditions": self._conditions}
        changed = {key: value for key, value in after.items() if self._before.get(key) != value}
        return changed or None
