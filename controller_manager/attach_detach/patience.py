"""How long volumes have been waited for: memory that no object holds, lost at a restart as upstream's is.

Owns: since when a volume has not been wanted on a node; since when it is being attached there and when that may next be
complained of; who has been told of a multi-attach error. Called by `controller`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

ATTACH_TIMEOUT: Final = 120.0  # cluster seconds an attacher may take before its slowness is told
FIRST_DELAY: Final = 0.5
LAST_DELAY: Final = 122.0


@dataclass(slots=True)
class _Wait:
    until: float
    delay: float = 0.0
    said: str = ""


@dataclass(slots=True)
class _Volume:
    unwanted: dict[str, float] = field(default_factory=dict)
    attaching: dict[str, _Wait] = field(default_factory=dict)
    told: dict[str, set[str]] = field(default_factory=dict)


class Patience:
    """One per controller; times are monotonic cluster seconds."""

    def __init__(self) -> None:
        self._volumes: dict[str, _Volume] = {}

    def __len__(self) -> int:
        return len(self._volumes)

    def unwanted_for(self, volume: str, node: str, now: float, *, unwanted: bool) -> float:
        """Seconds since the volume stopped being wanted there, 0 where it is wanted."""
        known = self._volumes.get(volume)
        if not unwanted:
            if known is not None:
                known.unwanted.pop(node, None)
            return 0.0
        return now - self._of(volume).unwanted.setdefault(node, now)

    def complaint(self, volume: str, node: str, now: float, error: str) -> tuple[bool, float]:
        """(whether to complain now, seconds until to look again) of a volume that is not attached yet.

        `error` is what the attacher said, "" while it says nothing. Complaints are spaced by a delay that doubles.
        """
        waits = self._of(volume).attaching
        wait = waits.setdefault(node, _Wait(now if error else now + ATTACH_TIMEOUT))
        if error and not wait.said:
            wait.until = min(wait.until, now)
        wait.said = error
        if now < wait.until:
            return False, wait.until - now
        wait.delay = min(max(wait.delay * 2, FIRST_DELAY), LAST_DELAY)
        wait.until = now + wait.delay + (0.0 if error else ATTACH_TIMEOUT)
        return True, wait.until - now

    def first_refusal(self, volume: str, node: str, pod: str) -> bool:
        """Whether the pod (its uid) has not been told yet that the volume is somewhere else."""
        told = self._of(volume).told.setdefault(node, set())
        if pod in told:
            return False
        told.add(pod)
        return True

    def keep(
        self, volume: str, *, unwanted: Collection[str], attaching: Collection[str], told: Collection[str]
    ) -> None:
        """Forget what is remembered of other nodes than these."""
        known = self._volumes.get(volume)
        if known is None:
            return
        known.unwanted = {node: since for node, since in known.unwanted.items() if node in unwanted}
        known.attaching = {node: wait for node, wait in known.attaching.items() if node in attaching}
        known.told = {node: pods for node, pods in known.told.items() if node in told}
        if not (known.unwanted or known.attaching or known.told):
            del self._volumes[volume]

    def _of(self, volume: str) -> _Volume:
        return self._volumes.setdefault(volume, _Volume())
