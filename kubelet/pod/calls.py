"""Calls to the runtime that have to be carried out whatever happens, and such that need not. Called by pod workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from kubelet.cri import CriError
from machinery import log
from machinery.log import kv

_log = log.get(__name__)
RETRY_FIRST: Final = 0.2  # real seconds
RETRY_LAST: Final = 10.0


async def until_done(pod: str, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Again and again until it succeeds; what the runtime does not know (any more) is done."""
    delay = RETRY_FIRST
    while True:
        try:
            await call()
            return
        except CriError as error:
            if error.not_found:
                return
            _log.warning("Runtime call failed", extra=kv(pod=pod, error=error.message))
        await asyncio.sleep(delay)
        delay = min(delay * 2, RETRY_LAST)


async def forgiving(pod: str, call: Coroutine[Any, Any, None]) -> None:
    """Once; a failure is only logged."""
    try:
        await call
    except CriError as error:
        if not error.not_found:
            _log.info("Runtime call failed", extra=kv(pod=pod, error=error.message))
