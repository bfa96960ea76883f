"""Many requests at once, but not all at once.

Owns the bound on what one pass of one controller may have under way. Called by the workload controllers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Final, TypeVar

from machinery.errors import StatusError

T = TypeVar("T")
AT_ONCE: Final = 50


async def side_by_side(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results in order. Every one is run to its end; the first StatusError is raised afterwards."""

    async def guarded(coroutine: Coroutine[Any, Any, T]) -> T | StatusError:
        try:
            return await coroutine
        except StatusError as error:
            return error

    results: list[T] = []
    first: StatusError | None = None
    pending = list(coroutines)
    while pending:
        batch, pending = pending[:AT_ONCE], pending[AT_ONCE:]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(guarded(each)) for each in batch]
        for task in tasks:
            result = task.result()
            if isinstance(result, StatusError):
                first = first or result
            else:
                results.append(result)
    if first is not None:
        raise first
    return results
