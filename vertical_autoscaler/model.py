"""What is remembered of the containers under one autoscaler, and the recommendation that follows from it. Pure.

Times are cluster seconds of one axis (`Timeline`), so that a day is a day at any time scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from machinery.clock import Clock
from machinery.meta import parse_time, rfc3339
from vertical_autoscaler.estimation import recommend
from vertical_autoscaler.histogram import Histogram
from vertical_autoscaler.objects import ContainerRecommendation, Vpa
from vertical_autoscaler.usage import Aggregate, Container

CHECKPOINT_VERSION: Final = "v3"


class Timeline:
    """Wall instants as cluster seconds since the process began, and back."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start = clock.now()
        self._scale = 1 / clock.real(1.0)

    def now(self) -> float:
        return self.seconds(self._clock.now())

    def seconds(self, moment: datetime) -> float:
        return (moment - self._start).total_seconds() * self._scale

    def moment(self, seconds: float) -> datetime:
        return self._start + timedelta(seconds=seconds / self._scale)


class Usage(NamedTuple):
    """What a container used, and what it had asked for."""

    pod: str
    container: str
    cores: float | None
    memory: float | None
    request: float
    at: float


class Model:
    """Of one autoscaler."""

    def __init__(self) -> None:
        self.aggregates: dict[str, Aggregate] = {}
        self._containers: dict[tuple[str, str], Container] = {}

    def use(self, usage: Usage) -> None:
        """Count what a container used; samples that are known already count once."""
        into = self.aggregates.setdefault(usage.container, Aggregate())
        container = self._containers.setdefault((usage.pod, usage.container), Container())
        if usage.cores is not None:
            container.use_cpu(into, usage.cores, usage.request, usage.at)
        if usage.memory is not None:
            container.use_memory(into, usage.memory, usage.at)

    def ran_out(self, pod: str, name: str, requested: float, at: float) -> bool:
        """Count that a container was killed for lack of memory."""
        into = self.aggregates.setdefault(name, Aggregate())
        return self._containers.setdefault((pod, name), Container()).ran_out(into, requested, at)

    def forget(self, pods: Iterable[str], now: float) -> None:
        """Keep the containers of these pods, and what is not too old to say anything."""
        living = set(pods)
        self._containers = {key: each for key, each in self._containers.items() if key[0] in living}
        self.aggregates = {name: each for name, each in self.aggregates.items() if not each.expired(now)}

    def recommend(self, vpa: Vpa, containers: Iterable[str]) -> list[ContainerRecommendation]:
        """For those of the containers of which there are samples, and which the policy lets be scaled."""
        names = sorted(name for name in set(containers) if not vpa.policy(name).off)
        known = [name for name in names if name in self.aggregates and self.aggregates[name].samples]
        return [recommend(name, self.aggregates[name], len(names), vpa.policy(name)) for name in known]

    def saved(self, container: str, timeline: Timeline) -> dict[str, Any]:
        """The status of a checkpoint. The peaks of windows that go on are left out: they are measured again."""
        found = self.aggregates[container]
        memory = found.memory.copy()
        for (_, name), each in self._containers.items():
            if name == container and each.window_end is not None and each.highest:
                memory.subtract(each.highest, 1.0, each.window_end)
        return {
            "cpuHistogram": _histogram(found.cpu, timeline),
            "memoryHistogram": _histogram(memory, timeline),
            "firstSampleStart": _time(found.first, timeline),
            "lastSampleStart": _time(found.last, timeline),
            "lastUpdateTime": rfc3339(timeline.moment(timeline.now())),
            "totalSamplesCount": found.samples,
            "version": CHECKPOINT_VERSION,
        }

    def load(self, container: str, status: Mapping[str, Any], timeline: Timeline) -> None:
        """Take over what a checkpoint has. Raises ValueError."""
        version = status.get("version")
        if version != CHECKPOINT_VERSION:
            raise ValueError(f"unsupported checkpoint version {version}")
        made = Aggregate()
        for histogram, key in ((made.cpu, "cpuHistogram"), (made.memory, "memoryHistogram")):
            told = status.get(key) or {}
            reference = told.get("referenceTimestamp")
            histogram.load(
                told.get("bucketWeights") or {},
                float(told.get("totalWeight") or 0.0),
                timeline.seconds(parse_time(str(reference))) if reference else 0.0,
            )
        first, last = (status.get(key) for key in ("firstSampleStart", "lastSampleStart"))
        made.first = timeline.seconds(parse_time(str(first))) if first else None
        made.last = timeline.seconds(parse_time(str(last))) if last else None
        made.samples = int(status.get("totalSamplesCount") or 0)
        self.aggregates[container] = made


def _histogram(histogram: Histogram, timeline: Timeline) -> dict[str, Any]:
    weights, total, reference = histogram.saved()
    return {
        "bucketWeights": weights,
        "totalWeight": total,
        "referenceTimestamp": rfc3339(timeline.moment(reference)),
    }


def _time(seconds: float | None, timeline: Timeline) -> str | None:
    return rfc3339(timeline.moment(seconds)) if seconds is not None else None
