"""Counts and gauges of disruption, by Karpenter's names. Read when scraped; a series appears with its first value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

PREFIX: Final = "karpenter_"
Publish = Callable[[str, Callable[[], float]], Any]
"""Takes a series (name and labels, as Prometheus writes them) and what reads its value."""


class Metrics:
    """Series are named without the prefix."""

    def __init__(self) -> None:
        self._values: dict[str, float] = {}
        self._publish: Publish | None = None
        for kind in ("multi", "single"):
            self.add(series("voluntary_disruption_consolidation_timeouts_total", consolidation_type=kind), 0)

    def expose(self, publish: Publish) -> None:
        """Make all series known, those of now and those to come."""
        self._publish = publish
        for name in list(self._values):
            self._tell(name)

    def add(self, name: str, count: float = 1) -> None:
        self.set(name, self._values.get(name, 0.0) + count)

    def set(self, name: str, value: float) -> None:
        known = name in self._values
        self._values[name] = value
        if not known:
            self._tell(name)

    def __getitem__(self, name: str) -> float:
        """0 for what never was."""
        return self._values.get(name, 0.0)

    def __iter__(self) -> Any:
        return iter(self._values)

    def _tell(self, name: str) -> None:
        if self._publish is not None:
            self._publish(PREFIX + name, lambda: self._values[name])


def series(name: str, **labels: str) -> str:
    """`name{label="value",…}`."""
    told = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{name}{{{told}}}"
