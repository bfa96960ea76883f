"""Periodic compaction: the store keeps the last five minutes of history, as upstream's default does.

Owns when to compact and up to where: every interval, to the revision seen one interval before. Several API servers may
do it side by side; compacting twice does nothing. Run by the registry.
"""

from __future__ import annotations

from apiserver.storage.interface import Store, StoreError
from machinery import log
from machinery.clock import Clock
from machinery.log import kv

INTERVAL_SECONDS = 300.0

_log = log.get(__name__)


class Compactor:
    """One loop. A store that cannot be reached is tried again at the next turn."""

    def __init__(self, store: Store, clock: Clock, interval: float = INTERVAL_SECONDS) -> None:
        self._store = store
        self._clock = clock
        self._interval = interval

    async def run(self) -> None:
        """Until cancelled."""
        before = 0
        while True:
            try:
                now = await self._store.current_revision()
                if before:
                    await self._store.compact(before)
                before = now
            except StoreError as error:
                _log.warning("Could not compact the storage", extra=kv(revision=before, error=error))
            await self._clock.sleep(self._interval)
