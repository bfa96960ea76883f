"""Demand over time, in cores that all pods together would use. Pure; noise is a hash of the minute, so it is the same
in every run."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
Traffic = Callable[[float], float]
"""Seconds since midnight of the first day (a Monday) → cores."""


def noise(seed: int, seconds: float) -> float:
    """Between -1 and 1, the same for a whole minute."""
    lot = hashlib.blake2b(f"{seed}/{int(seconds // MINUTE)}".encode(), digest_size=8).digest()
    return int.from_bytes(lot) / (1 << 63) - 1


def noisy(traffic: Traffic, share: float, seed: int = 1) -> Traffic:
    """With every minute up to `share` more or less."""
    return lambda seconds: traffic(seconds) * (1 + share * noise(seed, seconds))


def flat(cores: float) -> Traffic:
    return lambda seconds: cores


def day(low: float, high: float, peak: float = 15.0) -> Traffic:
    """Between `low` at night and `high` at the hour `peak`, as steep as a cosine squared."""

    def at(seconds: float) -> float:
        phase = (seconds / HOUR - peak) / 24 * math.tau
        return low + (high - low) * ((1 + math.cos(phase)) / 2) ** 2

    return at


def week(low: float, high: float, weekend: float = 0.4) -> Traffic:
    """Such days, with less on the sixth and the seventh."""
    one = day(low, high)
    return lambda seconds: one(seconds) * (weekend if seconds // DAY % 7 >= 5 else 1.0)


def crowd(traffic: Traffic, begins: float, rise: float, lasts: float, factor: float) -> Traffic:
    """`factor` times as much within `rise` seconds, for `lasts` seconds, and as fast back."""

    def at(seconds: float) -> float:
        up = min(max((seconds - begins) / rise, 0.0), 1.0)
        down = min(max((seconds - begins - rise - lasts) / rise, 0.0), 1.0)
        return traffic(seconds) * (1 + (factor - 1) * (up - down))

    return at
