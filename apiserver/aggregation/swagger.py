"""OpenAPI v2 documents of backends, heard when somebody asks for the whole.

Owns: the last document of each backend, compressed, and how long it counts as new. Called by `openapi_swagger` through
the aggregator.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import logging
from collections.abc import Sequence

import msgspec

from apiserver.aggregation.backend import Backend
from apiserver.aggregation.fetch import Answer, FetchError
from apiserver.openapi_swagger import LEVEL, Remote
from machinery.clock import Clock
from machinery.log import kv

log = logging.getLogger("apiserver.aggregation")

HEAR_AGAIN = 60.0  # cluster seconds
SECONDS = 10.0  # real


class _Kept:
    __slots__ = ("at", "etag", "remote")

    def __init__(self, at: float) -> None:
        self.at = at
        self.etag = ""
        self.remote: Remote | None = None


class RemoteSwaggers:
    """One per aggregator."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[str, _Kept] = {}

    async def documents(self, backends: Sequence[Backend]) -> list[Remote]:
        """Those of the backends that have one, in the order of their paths."""
        names = {backend.spec.name for backend in backends}
        for gone in self._kept.keys() - names:
            del self._kept[gone]
        found = await asyncio.gather(*(self._document(backend) for backend in backends))
        return sorted((each for each in found if each is not None), key=lambda each: each.path)

    async def _document(self, backend: Backend) -> Remote | None:
        name, now = backend.spec.name, self._clock.monotonic()
        kept = self._kept.get(name)
        if kept is not None and now - kept.at < HEAR_AGAIN:
            return kept.remote
        kept = self._kept.setdefault(name, _Kept(now))
        kept.at = now
        told = {"if-none-match": kept.etag} if kept.etag else {}
        try:
            answer = await backend.get("/openapi/v2", {"accept": "application/json", **told}, SECONDS)
            if answer.status == 200:
                await self._keep(kept, backend.spec.path, answer)
            elif answer.status != 304:
                kept.remote, kept.etag = None, ""
        except (FetchError, ValueError) as error:  # what was heard before stays
            log.warning("Could not hear an OpenAPI document", extra=kv(apiservice=name, error=error))
        return kept.remote

    @staticmethod
    async def _keep(kept: _Kept, path: str, answer: Answer) -> None:
        """Raises ValueError for what is no document."""
        msgspec.json.decode(answer.body, type=dict[str, msgspec.Raw])
        zipped = await asyncio.to_thread(gzip.compress, answer.body, LEVEL, mtime=0)
        kept.remote = Remote(path, hashlib.sha512(answer.body).hexdigest(), zipped)
        kept.etag = answer.headers.get("etag", "")
