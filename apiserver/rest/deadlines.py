"""How long a request may take.

Owns: the reading of the `timeout` query parameter, the deadline of every request that is not meant to last, and the 504
when it is over. One sweep a second looks at what is under way, so that a request pays for two dictionary operations and
no timer; only a deadline that the client asks for has a timer of its own. Called by the door.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

from machinery.errors import BadRequest, Timeout

REQUEST_TIMEOUT = 60.0  # real seconds; upstream's --request-timeout
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_LONGEST = float(1 << 63) / 1e9


def go_duration(text: str) -> float:
    """Seconds of `1m30s`, `500ms`, `-1h`, `0`. Raises ValueError in Go's words."""
    rest = text.lstrip("+-") if text[:1] in ("+", "-") and text[1:2] not in ("+", "-") else text
    if rest == "0":
        return 0.0
    at, total = 0, 0.0
    for found in _PART.finditer(rest):
        if found.start() != at:
            break
        at = found.end()
        total += float(found[1]) * _UNITS[found[2]]
    if not rest or at != len(rest) or total >= _LONGEST:
        unit = re.fullmatch(r"(?:[\d.]+[a-zµμ]+)*?[\d.]+([^\d.]*)", rest)
        if unit is not None and not unit[1]:
            raise ValueError(f'time: missing unit in duration "{text}"')
        raise ValueError(f'time: invalid duration "{text}"')
    return -total if text[:1] == "-" else total


def asked_for(text: str) -> float | None:
    """What the client's `timeout` parameter says; None where it says nothing. Raises BadRequest."""
    try:
        return go_duration(text) or None
    except ValueError as error:
        raise BadRequest(f"invalid timeout specified in the request URL - {error}") from error


def allotted() -> Timeout:
    return Timeout("Timeout: request did not complete within the allotted timeout", details={})


def requested() -> Timeout:
    text = "Timeout: request did not complete within requested timeout - context deadline exceeded"
    return Timeout(text, details={})


class Deadlines:
    """What is under way, in the order in which it began."""

    def __init__(self, limit: float = REQUEST_TIMEOUT) -> None:
        self._limit = limit
        self._begun: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()

    def begin(self, task: asyncio.Task[Any], now: float) -> None:
        """The task's request is under way; `now` is `time.monotonic()`."""
        self._begun[task] = now

    def end(self, task: asyncio.Task[Any]) -> None:
        self._begun.pop(task, None)

    def is_late(self, task: asyncio.Task[Any]) -> bool:
        """Whether a cancellation of the task was its deadline; asked once, it is forgotten."""
        if task not in self._late:
            return False
        self._late.discard(task)
        task.uncancel()
        return True

    def sweep(self, now: float) -> None:
        """Cancel what has gone on for too long."""
        before = now - self._limit
        for task, began in list(self._begun.items()):
            if began > before:
                return
            del self._begun[task]
            self._late.add(task)
            task.cancel()

    async def within(self, seconds: float, work: Coroutine[Any, Any, None], begun: Callable[[], bool]) -> None:
        """Carry out `work` within a deadline of the client's. Raises Timeout unless an answer has begun."""
        try:
            async with asyncio.timeout(max(seconds, 0.0)) as timeout:
                await work
        except TimeoutError:
            if timeout.expired() and not begun():
                raise requested() from None
            raise

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(1)
            self.sweep(monotonic())
