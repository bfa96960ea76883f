"""Thresholds, what they say about a node, and which pod goes first. Pure; upstream's order, reasons and messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from api.models import core_v1
from kubelet import qos
from machinery import quantity

DEFAULT_HARD = "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,imagefs.available<15%"
CRITICAL_PRIORITY = 2_000_000_000
# signal -> (what the message calls it, condition of the node)
SIGNALS: Mapping[str, tuple[str, str]] = {
    "memory.available": ("memory", "MemoryPressure"),
    "nodefs.available": ("ephemeral-storage", "DiskPressure"),
    "nodefs.inodesFree": ("inodes", "DiskPressure"),
    "imagefs.available": ("ephemeral-storage", "DiskPressure"),
    "pid.available": ("pids", "PIDPressure"),
}


@dataclass(frozen=True, slots=True)
class Threshold:
    """A hard threshold: a part of the capacity, or an amount."""

    signal: str
    amount: int = 0
    share: float = 0.0

    def of(self, capacity: int) -> int:
        return int(capacity * self.share) if self.share else self.amount


@dataclass(frozen=True, slots=True)
class Observation:
    """What is left of what there is."""

    available: int
    capacity: int


@dataclass(frozen=True, slots=True)
class Met:
    """A threshold that is crossed."""

    signal: str
    threshold: int
    available: int

    @property
    def resource(self) -> str:
        return SIGNALS[self.signal][0]

    @property
    def condition(self) -> str:
        return SIGNALS[self.signal][1]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a pod uses, by container: bytes of memory and of writable layers."""

    memory: Mapping[str, int] = field(default_factory=dict)
    disk: Mapping[str, int] = field(default_factory=dict)

    def of(self, resource: str) -> Mapping[str, int]:
        return self.memory if resource == "memory" else self.disk


def parse_thresholds(text: str) -> tuple[Threshold, ...]:
    """`memory.available<100Mi,nodefs.available<10%`. Raises ValueError."""
    found = []
    for part in filter(None, text.split(",")):
        signal, less, value = part.partition("<")
        if not less or signal not in SIGNALS:
            raise ValueError(f"invalid eviction threshold {part!r}: want SIGNAL<QUANTITY|PERCENT%")
        if value.endswith("%"):
            share = float(value[:-1]) / 100
            if not 0 <= share < 1:
                raise ValueError(f"invalid eviction threshold {part!r}: percent out of range")
            if share:
                found.append(Threshold(signal, share=share))
        elif (amount := quantity.value(value)) > 0:
            found.append(Threshold(signal, amount))
    return tuple(found)


def crossed(thresholds: Iterable[Threshold], seen: Mapping[str, Observation]) -> list[Met]:
    """The thresholds that are crossed; memory first, because it does not wait."""
    met = []
    for each in thresholds:
        now = seen.get(each.signal)
        if now is not None and now.available < (limit := each.of(now.capacity)):
            met.append(Met(each.signal, limit, now.available))
    return sorted(met, key=lambda one: (one.resource != "memory", one.signal))


def is_critical(pod: core_v1.Pod) -> bool:
    """Pods that a node keeps whatever happens."""
    return ((pod.spec.priority if pod.spec else None) or 0) >= CRITICAL_PRIORITY


def rank(pods: Sequence[tuple[core_v1.Pod, Usage]], resource: str) -> list[tuple[core_v1.Pod, Usage]]:
    """Who goes first: users beyond their requests, then lower priority, then the largest excess."""

    def key(entry: tuple[core_v1.Pod, Usage]) -> tuple[bool, int, int]:
        pod, usage = entry
        spec = pod.spec
        assert spec is not None
        name = "memory" if resource == "memory" else "ephemeral-storage"
        excess = sum(usage.of(resource).values()) - qos.pod_requests(spec, name)
        return (excess <= 0, spec.priority or 0, -excess)

    return sorted((entry for entry in pods if not is_critical(entry[0])), key=key)


def message(met: Met, pod: core_v1.Pod, usage: Usage) -> str:
    """Why a pod is evicted, as its status and its event tell."""
    text = f"The node was low on resource: {met.resource}. "
    text += f"Threshold quantity: {shown(met.threshold)}, available: {shown(met.available)}. "
    name = "memory" if met.resource == "memory" else "ephemeral-storage"
    assert pod.spec is not None
    for container in pod.spec.containers:
        used = usage.of(met.resource).get(container.name, 0)
        claim = (container.resources.requests if container.resources else None) or {}
        request = quantity.value(claim[name]) if name in claim else 0
        if used > request:
            text += (
                f"Container {container.name} was using {shown(used)}, request is {shown(request)}, "
                f"has larger consumption of {met.resource}. "
            )
    return text


def shown(amount: int) -> str:
    """A byte count as Kubernetes prints binary quantities."""
    for power, unit in ((5, "Pi"), (4, "Ti"), (3, "Gi"), (2, "Mi"), (1, "Ki")):
        if amount and amount % (1 << (10 * power)) == 0:
            return f"{amount >> (10 * power)}{unit}"
    return str(amount)


def refusal(pod: core_v1.Pod, conditions: Iterable[str]) -> str:
    """Why a node under pressure does not take a new pod, or "": BestEffort pods suffer from memory, all from disk."""
    held = sorted(conditions)
    spec = pod.spec
    if not held or spec is None or is_critical(pod):
        return ""
    if held == ["MemoryPressure"]:
        tolerated = any(
            each.key == "node.kubernetes.io/memory-pressure" or (not each.key and each.operator == "Exists")
            for each in spec.tolerations or ()
        )
        if tolerated or qos.qos_class(spec) != qos.BEST_EFFORT:
            return ""
    return f"Pod was rejected: The node had condition: [{' '.join(held)}]. "
