"""How many replicas a metric asks for. Pure: pods and samples in, a count out.

The rules are those of the HorizontalPodAutoscaler's algorithm (docs: "Algorithm details"): pods that are not ready yet,
that have no sample or that are going away are judged cautiously, so that they never make a change larger. Values are
milli-units: CPU in millicores, memory in thousandths of a byte.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from api.models import core_v1
from controller_manager.horizontal.errors import MetricError
from machinery import quantity


class Sample(NamedTuple):
    """One pod's metric, measured over `window` until `at`."""

    value: int
    at: datetime
    window: timedelta


Samples = Mapping[str, Sample]
"""By pod name."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Ratios this close to 1 change nothing."""

    up: float = 0.1
    down: float = 0.1

    def holds(self, ratio: float) -> bool:
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a fresh pod is not believed (cluster seconds)."""

    cpu_initialization: float = 300.0
    initial_readiness: float = 30.0


class Proposal(NamedTuple):
    """A count, and the numbers that led to it (None: does not apply)."""

    replicas: int
    utilization: int | None = None
    usage: int | None = None
    ratio: float = 1.0
    ready: int = 0
    unready: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Groups:
    """A target's pods by what their samples are worth."""

    ready: int
    unready: frozenset[str]
    missing: frozenset[str]
    ignored: frozenset[str]


def group(pods: Iterable[core_v1.Pod], samples: Samples, *, cpu: bool, patience: Patience, now: datetime) -> Groups:
    """Sort pods into ready, not ready yet, without a sample, and those that no longer count."""
    ready, unready, missing, ignored = 0, set(), set(), set()
    for pod in pods:
        name = _name(pod)
        phase = (pod.status.phase if pod.status else None) or ""
        if (pod.metadata is not None and pod.metadata.deletionTimestamp is not None) or phase == "Failed":
            ignored.add(name)
        elif phase == "Pending":
            unready.add(name)
        elif name not in samples:
            missing.add(name)
        elif cpu and _starting(pod, samples[name], patience, now):
            unready.add(name)
        else:
            ready += 1
    return Groups(ready, frozenset(unready), frozenset(missing), frozenset(ignored))


def _starting(pod: core_v1.Pod, sample: Sample, patience: Patience, now: datetime) -> bool:
    """Whether the CPU of a pod may still be that of its start."""
    condition = _ready_condition(pod)
    started = pod.status.startTime if pod.status else None
    if condition is None or started is None:
        return True
    unready, since = condition.status == "False", condition.lastTransitionTime or started
    if started + timedelta(seconds=patience.cpu_initialization) > now:
        return unready or sample.at < since + sample.window
    return unready and started + timedelta(seconds=patience.initial_readiness) > since


def utilization(
    current: int,
    target: int,
    samples: Samples,
    requests: Mapping[str, int],
    groups: Groups,
    tolerance: Tolerance,
) -> Proposal:
    """Keep usage at `target` percent of what pods request. Raises MetricError when no sample can be used."""
    usable = _usable(samples, groups)
    ratio, percent, raw = _utilization_ratio(usable, requests, target)

    def fill(name: str, shrinking: bool) -> int:
        return requests.get(name, 0) * max(100, target) // 100 if shrinking else 0

    def again(full: Mapping[str, int]) -> float:
        return _utilization_ratio(full, requests, target)[0]

    return _settle(current, ratio, usable, groups, tolerance, fill, again)._replace(utilization=percent, usage=raw)


def average(current: int, target: int, samples: Samples, groups: Groups, tolerance: Tolerance) -> Proposal:
    """Keep the mean of a metric over pods at `target` (milli). Raises MetricError when no sample can be used."""
    usable = _usable(samples, groups)
    mean = sum(usable.values()) // len(usable)

    def fill(name: str, shrinking: bool) -> int:
        return target if shrinking else 0

    def again(full: Mapping[str, int]) -> float:
        return sum(full.values()) // len(full) / target

    return _settle(current, mean / target, usable, groups, tolerance, fill, again)._replace(usage=mean)


def value(current: int, ready: int, usage: int, target: int, tolerance: Tolerance) -> Proposal:
    """Keep one value at `target` (milli), where it shrinks as replicas are added."""
    ratio = usage / target
    if current == 0:
        return Proposal(math.ceil(ratio), usage=usage, ratio=ratio)
    if tolerance.holds(ratio):
        return Proposal(current, usage=usage, ratio=ratio, ready=ready)
    return Proposal(math.ceil(ratio * ready), usage=usage, ratio=ratio, ready=ready)


def value_per_replica(status_replicas: int, usage: int, target: int, tolerance: Tolerance) -> Proposal:
    """Keep one value, divided by the replicas, at `target` (milli)."""
    if status_replicas == 0:
        return Proposal(math.ceil(usage / target), usage=usage, ratio=math.inf if usage else 1.0)
    ratio = usage / (target * status_replicas)
    replicas = status_replicas if tolerance.holds(ratio) else math.ceil(usage / target)
    return Proposal(replicas, usage=math.ceil(usage / status_replicas), ratio=ratio, ready=status_replicas)


def ready_pods(pods: Iterable[core_v1.Pod]) -> int:
    """How many are Running and Ready."""
    found = 0
    for pod in pods:
        condition = _ready_condition(pod)
        running = pod.status is not None and pod.status.phase == "Running"
        found += bool(running and condition is not None and condition.status == "True")
    return found


def requested(pods: Iterable[core_v1.Pod], resource: str, container: str = "") -> dict[str, int]:
    """What each pod requests (milli), of all containers or of one. Raises MetricError for a container without."""
    found: dict[str, int] = {}
    for pod in pods:
        assert pod.spec is not None
        whole = pod.spec.resources.requests if pod.spec.resources is not None else None
        if not container and whole and resource in whole:
            found[_name(pod)] = quantity.milli(whole[resource])
            continue
        sidecars = [each for each in pod.spec.initContainers or () if each.restartPolicy == "Always"]
        total = 0
        for each in [*pod.spec.containers, *sidecars]:
            if container and each.name != container:
                continue
            asked = (each.resources.requests if each.resources is not None else None) or {}
            if resource not in asked:
                raise MetricError(f"missing request for {resource} in container {each.name} of Pod {_name(pod)}")
            total += quantity.milli(asked[resource])
        found[_name(pod)] = total
    return found


def _usable(samples: Samples, groups: Groups) -> dict[str, int]:
    left_out = groups.unready | groups.ignored
    usable = {name: sample.value for name, sample in samples.items() if name not in left_out}
    if not usable:
        raise MetricError("did not receive metrics for targeted pods (pods might be unready)")
    return usable


def _utilization_ratio(values: Mapping[str, int], requests: Mapping[str, int], target: int) -> tuple[float, int, int]:
    """(ratio to the target, percent of the requests, mean usage). Raises MetricError."""
    known = [name for name in values if name in requests]
    wanted = sum(requests[name] for name in known)
    if not wanted:
        raise MetricError("no metrics returned matched known pods")
    used = sum(values[name] for name in known)
    percent = used * 100 // wanted
    return percent / target, percent, used // len(known)


def _settle(
    current: int,
    ratio: float,
    usable: dict[str, int],
    groups: Groups,
    tolerance: Tolerance,
    fill: Callable[[str, bool], int],
    again: Callable[[Mapping[str, int]], float],
) -> Proposal:
    """The count for a ratio; what is not known is filled in against the change, and may only make it smaller."""
    stay = Proposal(
        current,
        ratio=ratio,
        ready=groups.ready,
        unready=tuple(sorted(groups.unready)),
        missing=tuple(sorted(groups.missing)),
        ignored=tuple(sorted(groups.ignored)),
    )
    rises_with_unready = bool(groups.unready) and ratio > 1.0
    if not rises_with_unready and not groups.missing:
        return stay if tolerance.holds(ratio) else stay._replace(replicas=math.ceil(ratio * groups.ready))
    full = dict(usable)
    if groups.missing and ratio != 1.0:
        full |= {name: fill(name, ratio < 1.0) for name in groups.missing}
    if rises_with_unready:
        full |= dict.fromkeys(groups.unready, 0)
    second = again(full)
    stay = stay._replace(ratio=second)
    crossed = (ratio < 1.0 < second) or (second < 1.0 < ratio)
    if tolerance.holds(second) or crossed:
        return stay
    replicas = math.ceil(second * len(full))
    if (second < 1.0 and replicas > current) or (second > 1.0 and replicas < current):
        return stay
    return stay._replace(replicas=replicas)


def _name(pod: core_v1.Pod) -> str:
    return (pod.metadata.name if pod.metadata is not None else None) or ""


def _ready_condition(pod: core_v1.Pod) -> core_v1.PodCondition | None:
    for condition in (pod.status.conditions if pod.status is not None else None) or ():
        if condition.type == "Ready":
            return condition
    return None
