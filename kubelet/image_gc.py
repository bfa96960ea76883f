"""Removes images nobody uses when the disk fills: from the high threshold down to the low one, oldest use first.

Owns when an image was last seen in use; an image younger than two minutes is kept. Never touches images of containers
that exist. Run by `kubelet.app`; asked by the eviction monitor when the disk is short.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from kubelet.cri import Cri, CriError
from machinery import log
from machinery.clock import Clock
from machinery.log import kv

_log = log.get(__name__)
INTERVAL = 300.0  # cluster seconds
MIN_AGE = 120.0
OFF = 100  # percent: never


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image on the node. Times are the clock's, in cluster seconds."""

    id: str
    size: int
    first_seen: float
    last_used: float
    used: bool
    pinned: bool = False


def plan_removal(images: Iterable[Candidate], need: int, now: float) -> list[str]:
    """Ids to remove, least recently used first, until `need` bytes are free."""
    chosen: list[str] = []
    free = 0
    spare = [each for each in images if not each.used and not each.pinned and now - each.first_seen >= MIN_AGE]
    for each in sorted(spare, key=lambda one: (one.last_used, one.first_seen, one.id)):
        if free >= need:
            break
        chosen.append(each.id)
        free += each.size
    return chosen


class ImageCollector:
    """One per kubelet."""

    def __init__(
        self, runtime: Cri, clock: Clock, root: Path, high: int, low: int, tell: Callable[[str, str], None]
    ) -> None:
        """`high`, `low` in percent of the disk; `tell(reason, message)` makes an event of the node."""
        self._cri = runtime
        self._clock = clock
        self._root = root
        self._high = high
        self._low = low
        self._tell = tell
        self._first: dict[str, float] = {}
        self._used: dict[str, float] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._clock.sleep(INTERVAL)
            try:
                await self.look()
            except (CriError, OSError) as error:
                _log.warning("Failed to collect images", extra=kv(error=error))

    async def look(self) -> None:
        """Note uses; remove what the thresholds ask for."""
        images = await self._candidates()
        disk = os.statvfs(self._root)
        capacity, available = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
        percent = 100 - available * 100 // capacity if capacity else 0
        if self._high >= OFF or percent < self._high:
            return
        need = capacity * (100 - self._low) // 100 - available
        freed = await self._remove(images, need)
        if freed < need:
            text = f"Failed to garbage collect required amount of images. Attempted to free {need} bytes, "
            self._tell("FreeDiskSpaceFailed", text + f"but only found {freed} bytes eligible to free.")

    async def reclaim(self) -> int:
        """Remove every image nobody uses; the bytes that are free by it."""
        return await self._remove(await self._candidates(), 1 << 62)

    async def _candidates(self) -> list[Candidate]:
        now = self._clock.monotonic()
        in_use = {each.image_id for each in await self._cri.list_containers()}
        in_use |= {each.image.image for each in await self._cri.list_containers()}
        found = []
        for image in await self._cri.list_images():
            used = image.id in in_use or any(name in in_use for name in (*image.repo_tags, *image.repo_digests))
            first = self._first.setdefault(image.id, now)
            if used:
                self._used[image.id] = now
            last = self._used.get(image.id, first)
            found.append(Candidate(image.id, int(image.size), first, last, used, image.pinned))
        for known in self._first.keys() - {each.id for each in found}:
            del self._first[known]
            self._used.pop(known, None)
        return found

    async def _remove(self, images: Iterable[Candidate], need: int) -> int:
        sizes = {each.id: each.size for each in images}
        freed = 0
        for identity in plan_removal(images, need, self._clock.monotonic()):
            await self._cri.remove_image(identity)
            freed += sizes[identity]
            _log.info("Removed an unused image", extra=kv(image=identity, bytes=sizes[identity]))
        return freed
