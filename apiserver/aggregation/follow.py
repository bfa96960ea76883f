"""Following one resource of the server's own registry for its whole life.

Owns: the watch, its restarts and the point from which everything is known. Called by `aggregation.aggregator`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from apiserver.auth.user import SYSTEM_API_SERVER
from apiserver.registry.context import RequestContext, WatchOptions
from apiserver.registry.store import Registry
from apiserver.storage.entry import BOOKMARK, Event
from machinery.errors import StatusError
from machinery.log import kv

log = logging.getLogger("apiserver.aggregation")

RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)  # real: this waits for the server's own store

Key = tuple[str, str, str]


async def follow(
    registry: Registry,
    key: Key,
    replace: Callable[[Sequence[Event]], None],
    apply: Callable[[Event], None],
) -> None:
    """Until cancelled: `replace` with everything that exists, at first and after each restart, then `apply` changes."""
    failures = 0
    options = WatchOptions(allow_bookmarks=True, send_initial_events=True, resource_version_match="NotOlderThan")
    while True:
        try:
            async with registry.resource(*key).watch(RequestContext(SYSTEM_API_SERVER), "", options) as watcher:
                initial: list[Event] | None = []
                async for batch in watcher:
                    failures = 0
                    for event in batch:
                        if event.type == BOOKMARK:
                            if initial is not None:
                                replace(initial)
                                initial = None
                        elif initial is not None:
                            initial.append(event)
                        else:
                            apply(event)
        except StatusError as error:
            if failures == 1:  # once per outage; the first failure is often only a restart of the watch
                log.warning("Lost a watch", extra=kv(resource=key[2], error=error.message))
        await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
        failures += 1
