"""How fast nodes may be given up: by the state of their zone, and never when the whole cluster falls silent.

Owns: zone states and one token bucket per zone. No I/O. Called by controller.py.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from api.models import core_v1
from controller_manager.environment import Options
from machinery.clock import Clock

REGION: Final = "topology.kubernetes.io/region"
ZONE: Final = "topology.kubernetes.io/zone"
_PARTIAL_AT_LEAST: Final = 3


class ZoneState(Enum):
    NORMAL = "Normal"
    PARTIAL = "PartialDisruption"
    FULL = "FullDisruption"


def zone_of(node: core_v1.Node) -> str:
    labels = node.metadata.labels or {}
    region, zone = labels.get(REGION, ""), labels.get(ZONE, "")
    return f"{region}/{zone}" if region or zone else ""


def zone_state(ready: Iterable[bool], threshold: float) -> ZoneState:
    """State of a zone by the readiness of its nodes; fewer than three unready nodes never disrupt a larger one."""
    states = list(ready)
    unready = states.count(False)
    if states and unready == len(states):
        return ZoneState.FULL
    if unready >= _PARTIAL_AT_LEAST and unready / len(states) >= threshold:
        return ZoneState.PARTIAL
    return ZoneState.NORMAL


def plan_rates(states: dict[str, ZoneState], sizes: dict[str, int], options: Options) -> dict[str, float]:
    """Nodes per cluster second that each zone may give up.

    If every zone is fully disrupted the fault is likelier ours than theirs: nothing is given up anywhere.
    """
    if states and all(state is ZoneState.FULL for state in states.values()):
        return dict.fromkeys(states, 0.0)
    rates: dict[str, float] = {}
    for zone, state in states.items():
        if state is ZoneState.PARTIAL:
            large = sizes[zone] > options.large_cluster_size_threshold
            rates[zone] = options.secondary_node_eviction_rate if large else 0.0
        else:
            rates[zone] = options.node_eviction_rate
    return rates


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float
    rate: float


class EvictionLimiter:
    """One token bucket (burst 1) per zone."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def set_rates(self, rates: dict[str, float]) -> None:
        for zone in self._buckets.keys() - rates.keys():
            del self._buckets[zone]
        for zone, rate in rates.items():
            bucket = self._buckets.get(zone)
            if bucket is None:
                self._buckets[zone] = _Bucket(1.0, self._clock.monotonic(), rate)
            elif bucket.rate != rate:
                self._refill(bucket)
                bucket.rate = rate

    def try_take(self, zone: str) -> bool:
        """Whether one node of the zone may be given up now."""
        bucket = self._buckets.get(zone)
        if bucket is None or bucket.rate <= 0:
            return False
        self._refill(bucket)
        if bucket.tokens < 1.0:
            return False
        bucket.tokens -= 1.0
        return True

    def _refill(self, bucket: _Bucket) -> None:
        now = self._clock.monotonic()
        bucket.tokens = min(1.0, bucket.tokens + (now - bucket.at) * bucket.rate)
        bucket.at = now
