"""Whole lists as bytes, joined once for all clients that ask while nothing changes.

Owns the joined items and when they are let go: replaced when the resource has changed, dropped soon after the last use.
Never looks into an item. Called by the REST handlers for built-in kinds, whose bytes follow from the cache alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from apiserver.registry.context import ListPage

KEPT_SECONDS = 5.0  # real seconds
MOST_KEPT = 32 << 20
"""Bytes of one list; a larger one is joined for every client anew."""

Key = tuple[str, str, str, str]
"""group, version, plural, namespace"""


class JoinedLists:
    """The newest joined items of every list that somebody asked for a moment ago."""

    def __init__(self) -> None:
        self._joined: dict[Key, tuple[int, bytes]] = {}
        self._used: set[Key] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._joined)

    def items(self, key: Key, page: ListPage, bare: Callable[[bytes], bytes]) -> bytes:
        """The items of a page between the brackets; `bare` takes kind and apiVersion off an item."""
        if not page.state:
            return b",".join(map(bare, page.items))
        kept = self._joined.get(key)
        if kept is None or kept[0] != page.state:
            self._joined.pop(key, None)
            kept = page.state, b",".join(map(bare, page.items))
            if len(kept[1]) > MOST_KEPT:
                return kept[1]
            self._joined[key] = kept
        self._used.add(key)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(KEPT_SECONDS, self._sweep)
        return kept[1]

    def _sweep(self) -> None:
        for key in self._joined.keys() - self._used:
            del self._joined[key]
        self._used.clear()
        self._timer = asyncio.get_running_loop().call_later(KEPT_SECONDS, self._sweep) if self._joined else None
