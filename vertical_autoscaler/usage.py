"""What the containers of one name used: CPU by the sample, memory by its peak per day. Pure.

Source of the rules: the vertical pod autoscaler's documentation (memory peaks, OOM bump, confidence by history length).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from vertical_autoscaler.histogram import CPU, MEMORY, MIN_WEIGHT, Histogram

DAY: Final = 86_400.0
MEMORY_INTERVAL: Final = DAY
SAMPLES_PER_DAY: Final = 24 * 60
OOM_RATIO: Final = 1.2
OOM_AT_LEAST: Final = 100 * 2**20
HISTORY: Final = 8 * DAY
"""An aggregate that has got no sample for so long says nothing any more."""


@dataclass(slots=True)
class Aggregate:
    """All containers of one name under one autoscaler."""

    cpu: Histogram = field(default_factory=lambda: Histogram(CPU))
    memory: Histogram = field(default_factory=lambda: Histogram(MEMORY))
    first: float | None = None
    last: float | None = None
    samples: int = 0
    ooms: int = 0

    def confidence(self) -> float:
        """Days of history, at a sample per minute: fewer samples are worth fewer days."""
        if self.first is None or self.last is None:
            return 0.0
        return min((self.last - self.first) / DAY, self.samples / SAMPLES_PER_DAY)

    def expired(self, now: float) -> bool:
        return self.last is not None and now - self.last >= HISTORY

    def add_cpu(self, cores: float, request: float, at: float) -> None:
        """A sample weighs what was requested: after a raise, the past counts less."""
        self.cpu.add(cores, max(request, MIN_WEIGHT), at)
        self.first = at if self.first is None else min(self.first, at)
        self.last = at if self.last is None else max(self.last, at)
        self.samples += 1


@dataclass(slots=True)
class Container:
    """One container of one pod: what of it has been counted."""

    last_cpu: float | None = None
    last_memory: float | None = None
    window_end: float | None = None
    peak: float = 0.0
    oom_peak: float = 0.0
    last_oom: float | None = None

    @property
    def highest(self) -> float:
        """The peak that stands in the histogram for the window, at `window_end`."""
        return max(self.peak, self.oom_peak)

    def use_cpu(self, into: Aggregate, cores: float, request: float, at: float) -> bool:
        """Count a sample; False when it is older than one that was counted."""
        if cores < 0 or (self.last_cpu is not None and at <= self.last_cpu):
            return False
        into.add_cpu(cores, request, at)
        self.last_cpu = at
        return True

    def use_memory(self, into: Aggregate, amount: float, at: float, *, oom: bool = False) -> bool:
        """Count a sample if it is the window's highest; False when it is outdated."""
        if amount < 0 or (not oom and self.last_memory is not None and at < self.last_memory):
            return False
        self.last_memory = at
        if self.window_end is None or at >= self.window_end:
            start = at if self.window_end is None else self.window_end
            self.window_end = start + ((at - start) // MEMORY_INTERVAL + 1) * MEMORY_INTERVAL
            self.peak = self.oom_peak = 0.0
        elif self.highest and amount <= self.highest:
            return True
        elif self.highest:
            into.memory.subtract(self.highest, 1.0, self.window_end)
        into.memory.add(amount, 1.0, self.window_end)
        if oom:
            self.oom_peak = amount
        else:
            self.peak = amount
        return True

    def ran_out(self, into: Aggregate, requested: float, at: float) -> bool:
        """An out-of-memory kill: count what would have sufficed. False for one that is known or too old."""
        if self.last_oom is not None and at <= self.last_oom:
            return False
        self.last_oom = at
        if self.window_end is not None and at < self.window_end - MEMORY_INTERVAL:
            return False
        used = max(requested, self.peak)  # not the last bump: else each kill would build on the one before
        into.ooms += 1
        return self.use_memory(into, max(used + OOM_AT_LEAST, used * OOM_RATIO), at, oom=True)
