from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from apiserver.rest.bodies import ClientGone
from apiserver.streams.duplex import duplex


class Call:
    """What a call takes, until it is over."""

    def __init__(self, takes: int = 100) -> None:
        self.taken: list[int] = []
        self._takes = takes

    async def write(self, message: int) -> None:
        if len(self.taken) == self._takes:
            raise asyncio.InvalidStateError("RPC already finished.")
        self.taken.append(message)


class Inputs:
    """Numbers, then an end as the test wants; remembers that it was closed."""

    def __init__(self, count: int, error: Exception | None = None, *, stays: bool = False) -> None:
        self._count, self._error, self._stays = count, error, stays
        self.closed = False

    async def run(self) -> AsyncGenerator[int, None]:
        try:
            for number in range(self._count):
                yield number
            if self._error is not None:
                raise self._error
            if self._stays:
                await asyncio.Event().wait()
        finally:
            self.closed = True


async def waits_for(call: Call, count: int) -> None:
    async with asyncio.timeout(5):
        while len(call.taken) < count:  # noqa: ASYNC110  the double has no event
            await asyncio.sleep(0)


@pytest.mark.parametrize("stays", [True, False])
async def test_ends_with_the_outputs(stays: bool) -> None:
    call, inputs = Call(), Inputs(3, stays=stays)
    await duplex(call, inputs.run(), waits_for(call, 3))
    assert (call.taken, inputs.closed) == ([0, 1, 2], True)


async def test_a_client_that_leaves_ends_the_outputs() -> None:
    call, inputs, cancelled = Call(), Inputs(1, ClientGone()), asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(ClientGone):
        await duplex(call, inputs.run(), forever())
    assert cancelled.is_set() and inputs.closed


async def test_a_call_that_takes_no_more_is_read_to_its_end() -> None:
    call, inputs = Call(takes=1), Inputs(3)
    done = asyncio.Event()

    async def outputs() -> None:
        while not inputs.closed:  # noqa: ASYNC110  the writer gives up first
            await asyncio.sleep(0)
        done.set()

    async with asyncio.timeout(5):
        await duplex(call, inputs.run(), outputs())
    assert done.is_set() and call.taken == [0]


async def test_what_the_outputs_raise() -> None:
    async def fails() -> None:
        raise ValueError("broken")

    inputs = Inputs(0, stays=True)
    with pytest.raises(ValueError, match="broken"):
        await duplex(Call(), inputs.run(), fails())
    assert inputs.closed
