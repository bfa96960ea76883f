"""One instant on both of a kubelet's clocks. Pure; handed to every event of `pod.machine`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Now:
    """Cluster seconds and the wall, so that the runtime's timestamps find their place on the timeline."""

    mono: float
    wall_ns: int
    scale: float = 1.0

    def at(self, wall_ns: int) -> float:
        """The cluster time of a wall timestamp."""
        return self.mono - (self.wall_ns - wall_ns) / 1e9 * self.scale

    def wall(self) -> datetime:
        """The wall instant."""
        return datetime.fromtimestamp(self.wall_ns / 1e9, UTC)


def nanos(moment: datetime | None) -> int:
    """A wall instant as the runtime writes it, 0 = never."""
    return int(moment.timestamp() * 1e9) if moment is not None else 0
