"""A session's promises towards a caller who reads slowly, and at its end: no answer is lost, nothing piles up."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio
import pytest

from apiserver.grpc.session import CALLS_AT_ONCE, Session
from proto.api.v1 import resource_pb2 as pb


class Caller:
    """The stream as a session sees it. Writes last until `reading` is set."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        self.reading = asyncio.Event()
        self.answered: list[int] = []
        self.writes = 0
        self.writing = False

    def call(self, *ids: int) -> None:
        self.sent.put_nowait(pb.CallBatch(calls=[pb.Call(id=each) for each in ids]))

    def hang_up(self) -> None:
        self.sent.put_nowait(grpc.aio.EOF)

    async def read(self) -> Any:
        return await self.sent.get()

    async def write(self, batch: pb.ReplyBatch) -> None:
        assert not self.writing, "two writes at once"
        self.writing, self.writes = True, self.writes + 1
        try:
            await self.reading.wait()
        finally:
            self.writing = False
        self.answered += [reply.id for reply in batch.replies]


class Work:
    """What the service does. A call lasts until its id is released."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.held: dict[int, asyncio.Event] = {}

    def hold(self, call: int) -> asyncio.Event:
        return self.held.setdefault(call, asyncio.Event())

    async def carry(self, call: pb.Call) -> pb.Reply:
        self.begun.append(call.id)
        if call.id in self.held:
            await self.held[call.id].wait()
        return pb.Reply(id=call.id)


async def turns(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("end", ["close", "hang_up"])
async def test_answers_that_are_being_written_at_the_end_arrive(end: str) -> None:
    caller, work = Caller(), Work()
    session = Session(caller, work.carry)
    last = work.hold(3)
    running = asyncio.create_task(session.run())
    caller.call(1, 2, 3)
    await turns()
    assert caller.writing
    if end == "close":
        session.close()
    else:
        caller.hang_up()
    await turns()
    last.set()
    await turns()
    caller.reading.set()
    await asyncio.wait_for(running, 5)
    assert sorted(caller.answered) == [1, 2, 3]


async def test_a_closed_session_takes_no_more_calls() -> None:
    caller, work = Caller(), Work()
    caller.reading.set()
    session = Session(caller, work.carry)
    first = work.hold(1)
    running = asyncio.create_task(session.run())
    caller.call(1)
    await turns()
    session.close()
    await turns()
    caller.call(2)
    await turns()
    first.set()
    await asyncio.wait_for(running, 5)
    assert work.begun == [1]
    assert caller.answered == [1]


async def test_answers_to_a_caller_who_does_not_read_do_not_pile_up() -> None:
    caller, work = Caller(), Work()
    session = Session(caller, work.carry)
    running = asyncio.create_task(session.run())
    for number in range(4):
        caller.call(*range(number * CALLS_AT_ONCE, (number + 1) * CALLS_AT_ONCE))
    await turns()
    assert len(work.begun) == CALLS_AT_ONCE
    caller.reading.set()
    caller.hang_up()
    await asyncio.wait_for(running, 5)
    assert sorted(caller.answered) == list(range(4 * CALLS_AT_ONCE))


async def test_a_caller_who_leaves_ends_what_was_under_way() -> None:
    caller, work = Caller(), Work()
    session = Session(caller, work.carry)
    work.hold(1)
    running = asyncio.create_task(session.run())
    caller.call(1)
    await turns()
    running.cancel()
    await asyncio.wait({running}, timeout=5)
    assert running.cancelled()
    assert len(asyncio.all_tasks()) == 1
