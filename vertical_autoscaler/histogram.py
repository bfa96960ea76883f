"""A histogram whose samples lose half of their weight every half-life: how the past is remembered. Pure.

Source of the rules: the vertical pod autoscaler's design document and its documented options. Buckets grow by a fixed
ratio; a percentile is the end of the bucket in which it lies. Times are seconds of any one clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

HALF_LIFE: Final = 86_400.0
GROWTH: Final = 1.05
MIN_WEIGHT: Final = 0.1
EPSILON: Final = 0.001 * MIN_WEIGHT
"""A bucket that weighs less is empty."""
MAX_EXPONENT: Final = 100.0
"""Weights are relative to a reference time, which moves on before 2^exponent would leave a float's range."""
CHECKPOINT_WEIGHT: Final = 10_000
"""Of the heaviest bucket in a checkpoint."""


class Buckets(NamedTuple):
    """Bucket n begins at first·(ratio^n − 1)/(ratio − 1); the last one has no end."""

    first: float
    number: int

    @classmethod
    def upto(cls, highest: float, first: float) -> Buckets:
        """So many buckets that the last one begins at or above `highest`."""
        return cls(first, math.ceil(math.log(highest * (GROWTH - 1) / first + 1, GROWTH)) + 1)

    def find(self, value: float) -> int:
        """The bucket of a value."""
        if value < self.first:
            return 0
        return min(int(math.log(value * (GROWTH - 1) / self.first + 1, GROWTH)), self.number - 1)

    def start(self, bucket: int) -> float:
        """Where a bucket begins."""
        return self.first * (GROWTH**bucket - 1) / (GROWTH - 1)


CPU: Final = Buckets.upto(1000.0, 0.01)
"""Cores."""
MEMORY: Final = Buckets.upto(1e12, 1e7)
"""Bytes."""


class Histogram:
    """Weights by bucket; only buckets that weigh something are kept."""

    def __init__(self, buckets: Buckets, half_life: float = HALF_LIFE) -> None:
        self._buckets = buckets
        self._half_life = half_life
        self._weights: dict[int, float] = {}
        self._reference = 0.0

    @property
    def empty(self) -> bool:
        return not any(weight >= EPSILON for weight in self._weights.values())

    @property
    def total(self) -> float:
        """Of all weights, relative to the reference time."""
        return sum(self._weights.values())

    def add(self, value: float, weight: float, at: float) -> None:
        """Count a sample."""
        weight *= self._factor(at)
        bucket = self._buckets.find(value)
        self._weights[bucket] = self._weights.get(bucket, 0.0) + weight

    def subtract(self, value: float, weight: float, at: float) -> None:
        """Take a sample back that was added with these arguments."""
        weight *= self._factor(at)
        bucket = self._buckets.find(value)
        left = self._weights.get(bucket, 0.0) - weight
        if left < EPSILON:
            self._weights.pop(bucket, None)
        else:
            self._weights[bucket] = left

    def percentile(self, share: float) -> float:
        """The end of the bucket below which `share` (0…1) of the weight lies; 0 when empty."""
        full = sorted(bucket for bucket, weight in self._weights.items() if weight >= EPSILON)
        if not full:
            return 0.0
        threshold, seen, found = share * self.total, 0.0, full[-1]
        for bucket in full:
            seen += self._weights[bucket]
            if seen >= threshold:
                found = bucket
                break
        return self._buckets.start(min(found + 1, self._buckets.number - 1))

    def copy(self) -> Histogram:
        made = Histogram(self._buckets, self._half_life)
        made._weights, made._reference = dict(self._weights), self._reference
        return made

    def saved(self) -> tuple[dict[str, int], float, float]:
        """(whole weights by bucket, total weight, reference time): what a checkpoint keeps."""
        heaviest = max(self._weights.values(), default=0.0)
        if heaviest <= 0:
            return {}, 0.0, self._reference
        scaled = {
            bucket: int(weight * CHECKPOINT_WEIGHT / heaviest + 0.5) for bucket, weight in sorted(self._weights.items())
        }
        return {str(bucket): weight for bucket, weight in scaled.items() if weight}, self.total, self._reference

    def load(self, weights: Mapping[str, Any], total: float, reference: float) -> None:
        """Replace everything by what was saved. Raises ValueError when that makes no sense."""
        found: dict[int, int] = {}
        for name, weight in weights.items():
            if not name.isdecimal() or int(name) >= self._buckets.number:
                raise ValueError(f"bucket {name!r} is not one of {self._buckets.number}")
            if isinstance(weight, bool) or not isinstance(weight, int) or weight < 0:
                raise ValueError(f"bucket {name} has weight {weight!r}")
            found[int(name)] = weight
        if not (math.isfinite(total) and total >= 0):
            raise ValueError(f"total weight {total!r}")
        whole = sum(found.values())
        self._weights = {bucket: weight * total / whole for bucket, weight in found.items()} if whole else {}
        self._reference = reference

    def _factor(self, at: float) -> float:
        """The weight of a sample of this moment: 1 at the reference time, doubling with each half-life."""
        if not self._weights or at > self._reference + self._half_life * MAX_EXPONENT:
            self._move(round(at / self._half_life) * self._half_life)
        return float(2.0 ** max((at - self._reference) / self._half_life, -2 * MAX_EXPONENT))

    def _move(self, reference: float) -> None:
        shift = 2.0 ** max((self._reference - reference) / self._half_life, -1000.0) if self._weights else 0.0
        self._weights = {
            bucket: weight * shift for bucket, weight in self._weights.items() if weight * shift >= EPSILON
        }
        self._reference = reference
