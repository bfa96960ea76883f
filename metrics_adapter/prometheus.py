"""Prometheus' HTTP API: which series there are, and what a query says now.

Owns: asking, within bounds, and reading the answers. Raises StatusError: ServiceUnavailable when Prometheus does not
answer or is not ready, InternalError when it refuses a question; users are not told more, the log is.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from machinery.errors import InternalError, ServiceUnavailable, StatusError
from machinery.log import kv

log = logging.getLogger("metrics-adapter")

AT_ONCE = 8
MAX_SERIES = 100_000
MAX_SAMPLES = 50_000
FAILED = "unable to fetch metrics"
AWAY = f"{FAILED}: Prometheus does not answer"
Labels = Mapping[str, str]


class Series(NamedTuple):
    """A name and the labels that go with it."""

    name: str
    labels: frozenset[str]


class Sample(NamedTuple):
    """One value, with the time it is of (seconds)."""

    labels: Labels
    at: float
    value: float


class Getter(Protocol):
    """What answers GETs of Prometheus."""

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]: ...


class Prometheus:
    """One server."""

    def __init__(self, getter: Getter, *, timeout: float, max_age: float) -> None:
        """`timeout`: seconds a question may take; `max_age`: of a series' last sample, older ones count for nothing."""
        self._getter = getter
        self._timeout = timeout
        self._max_age = max_age
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def series(self, query: str, start: float, end: float) -> set[Series]:
        """What matched between two times, without the values of labels."""
        params = {"match[]": query, "start": f"{start:.3f}", "end": f"{end:.3f}", "limit": str(MAX_SERIES)}
        told = await self._ask("/api/v1/series", params)
        if not isinstance(told, list):
            raise InternalError.of(FAILED)
        if len(told) >= MAX_SERIES:
            log.warning("Some series are left out", extra=kv(query=query, limit=MAX_SERIES))
        return {Series(each.get("__name__") or "", frozenset(each) - {"__name__"}) for each in told}

    async def query(self, query: str) -> list[Sample]:
        """The instant value of an expression; samples that are no numbers (NaN, infinite) are left out."""
        bounds = {
            "timeout": f"{self._timeout:g}s",
            "lookback_delta": f"{self._max_age:g}s",
            "limit": str(MAX_SAMPLES + 1),
        }
        told = await self._ask("/api/v1/query", {"query": query, **bounds})
        kind, result = (told.get("resultType"), told.get("result")) if isinstance(told, dict) else (None, None)
        if kind == "scalar":
            result = [{"metric": {}, "value": result}]
        elif kind != "vector" or not isinstance(result, list):
            log.warning("Prometheus answered with no vector", extra=kv(query=query, type=str(kind)))
            raise InternalError.of(FAILED)
        try:
            found = [Sample(each["metric"], float(each["value"][0]), float(each["value"][1])) for each in result]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise InternalError.of(FAILED) from error
        if len(found) > MAX_SAMPLES:
            log.warning("Prometheus answered with too much", extra=kv(query=query, samples=len(found)))
            raise InternalError.of(FAILED)
        return [each for each in found if math.isfinite(each.value)]

    async def _ask(self, path: str, params: Mapping[str, str]) -> Any:
        try:
            async with self._turns, asyncio.timeout(self._timeout + 1):
                answer = await self._getter.get(path, params)
        except TimeoutError as error:
            raise ServiceUnavailable(AWAY) from error
        except StatusError as error:
            log.warning("Prometheus did not answer a question", extra=kv(path=path, error=error.message))
            if error.code in (400, 422):
                raise InternalError.of(FAILED) from error
            raise ServiceUnavailable(AWAY) from error
        if answer.get("status") != "success":
            raise InternalError.of(FAILED)
        return answer.get("data")
