"""When the change happened that endpoints are written for: the annotation last-change-trigger-time.

Who programs the network measures by it how long a change takes (SLO "network programming latency"). The time is that
of the earliest change since the last pass: a pod became ready or unready, or the Service was made; none when what
changed has no time. Owns the memory of the last pass, per Service; a restart begins anew with the Service's creation.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from api.models import core_v1
from controller_manager.objects import condition
from machinery.meta import ObjectKey

ANNOTATION: Final = "endpoints.kubernetes.io/last-change-trigger-time"


class TriggerTimes:
    """One controller's memory. Call `of` once in every pass over a Service, `forget` when it is gone."""

    def __init__(self) -> None:
        self._pods: dict[ObjectKey, dict[str, datetime]] = {}

    def of(self, key: ObjectKey, service: core_v1.Service, pods: Iterable[core_v1.Pod]) -> datetime | None:
        """The time of the earliest change since the last pass; `pods` are those that the Service selects."""
        now = {
            pod.metadata.name or "": ready.lastTransitionTime
            for pod in pods
            if (ready := condition(pod, "Ready")) is not None and ready.lastTransitionTime is not None
        }
        before = self._pods.get(key)
        self._pods[key] = now
        if before is None:
            created: datetime | None = service.metadata.creationTimestamp
            return created
        changed = [moment for name, moment in now.items() if name not in before or moment > before[name]]
        return min(changed, default=None)

    def forget(self, key: ObjectKey) -> None:
        self._pods.pop(key, None)


def annotate(metadata: dict[str, Any], moment: datetime | None) -> None:
    """Write the time into an object's metadata, or take an older one out."""
    annotations = {name: text for name, text in (metadata.get("annotations") or {}).items() if name != ANNOTATION}
    if moment is not None:
        utc = moment.astimezone(UTC)
        fraction = f".{utc.microsecond:06}".rstrip("0").rstrip(".")
        annotations[ANNOTATION] = f"{utc:%Y-%m-%dT%H:%M:%S}{fraction}Z"
    if annotations:
        metadata["annotations"] = annotations
    else:
        metadata.pop("annotations", None)
