"""Restart and pull backoff: 10 s doubling to 300 s, forgotten after a good run of twice the maximum.

Pure arithmetic on one timeline of cluster seconds; `pod.machine` owns the entries and says what time it is.
"""

from __future__ import annotations

from dataclasses import dataclass

INITIAL = 10.0
MAXIMUM = 300.0


@dataclass(slots=True)
class Backoff:
    """The delay of one thing that keeps failing. `delay` 0 means it has not failed yet."""

    initial: float = INITIAL
    maximum: float = MAXIMUM
    delay: float = 0.0
    updated: float = 0.0

    def due(self, failed_at: float) -> float:
        """When the next try is allowed for a failure seen at `failed_at` (which may be now or in the past)."""
        if self.delay == 0.0 or self._expired(failed_at):
            return failed_at
        return failed_at + self.delay

    def advance(self, failed_at: float, now: float) -> None:
        """Note a try that starts now because of the failure at `failed_at`: the next one waits longer."""
        if self.delay == 0.0 or self._expired(failed_at):
            self.delay = self.initial
        else:
            self.delay = min(self.delay * 2, self.maximum)
        self.updated = now

    def reset(self) -> None:
        """Forget all failures."""
        self.delay = 0.0

    def _expired(self, failed_at: float) -> bool:
        return failed_at - self.updated > self.maximum * 2


def format_duration(seconds: float) -> str:
    """Go's way to write a whole duration: `10s`, `2m40s`, `5m0s`, `1h0m0s`."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes}m{left}s"
    return f"{minutes}m{left}s" if minutes else f"{left}s"
