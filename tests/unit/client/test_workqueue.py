from __future__ import annotations

import asyncio

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from client.workqueue import ShutDown, WorkQueue
from machinery.clock import VirtualClock


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


async def test_a_key_added_twice_is_handed_out_once(clock: VirtualClock) -> None:
    queue = WorkQueue[str](clock)
    queue.add("a")
    queue.add("a")
    queue.add("b")
    assert [await queue.get(), await queue.get()] == ["a", "b"]
    assert len(queue) == 0


async def test_a_key_added_while_processing_comes_back_after_done(clock: VirtualClock) -> None:
    queue = WorkQueue[str](clock)
    queue.add("a")
    key = await queue.get()
    queue.add("a")
    assert len(queue) == 0
    queue.done(key)
    assert await queue.get() == "a"


@pytest.mark.parametrize(
    ("delays", "due"),
    [
        pytest.param([5.0], 5.0, id="one"),
        pytest.param([5.0, 2.0], 2.0, id="an earlier wish wins"),
        pytest.param([2.0, 5.0], 2.0, id="a later wish is ignored"),
        pytest.param([0.0], 0.0, id="zero is now"),
    ],
)
async def test_add_after(clock: VirtualClock, delays: list[float], due: float) -> None:
    queue = WorkQueue[str](clock)
    for delay in delays:
        queue.add_after("a", delay)
    if due:
        await clock.advance(due - 0.01)
        assert len(queue) == 0
        await clock.advance(0.02)
    assert len(queue) == 1
    await queue.get()
    queue.done("a")
    await clock.advance(100)
    assert len(queue) == 0


async def test_back_off_doubles_until_forgotten(clock: VirtualClock) -> None:
    queue = WorkQueue[str](clock, base_delay=1.0, max_delay=5.0)
    waited = []
    for _ in range(5):
        before = clock.monotonic()
        queue.add_rate_limited("a")
        while not len(queue):
            await clock.advance(0.5)
        waited.append(clock.monotonic() - before)
        queue.done(await queue.get())
    assert waited == [1.0, 2.0, 4.0, 5.0, 5.0]
    queue.forget("a")
    queue.add_rate_limited("a")
    await clock.advance(1.0)
    assert len(queue) == 1


async def test_a_cancelled_getter_does_not_lose_the_wake_up(clock: VirtualClock) -> None:
    queue = WorkQueue[str](clock)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(queue.get())
        second = group.create_task(queue.get())
        await asyncio.sleep(0)
        queue.add("a")
        first.cancel()
    assert second.result() == "a"


async def test_shut_down_drains_then_ends(clock: VirtualClock) -> None:
    queue = WorkQueue[str](clock)
    queue.add("a")
    queue.add_after("b", 1.0)
    queue.shut_down()
    queue.add("c")
    assert await queue.get() == "a"
    with pytest.raises(ShutDown):
        await queue.get()
    await clock.advance(2.0)
    with pytest.raises(ShutDown):
        await queue.get()


class QueueMachine(RuleBasedStateMachine):
    """Against a model: every added key is eventually handed out, never to two workers at once."""

    keys = st.integers(0, 4)

    def __init__(self) -> None:
        super().__init__()
        self.queue = WorkQueue[int](VirtualClock())
        self.processing: set[int] = set()
        self.owed: set[int] = set()

    @rule(key=keys)
    def add(self, key: int) -> None:
        self.queue.add(key)
        self.owed.add(key)

    @precondition(lambda self: len(self.queue) > 0)
    @rule()
    def get(self) -> None:
        coroutine = self.queue.get()
        try:
            coroutine.send(None)
            raise AssertionError("a filled queue made its getter wait")
        except StopIteration as answer:
            key = answer.value
        assert key not in self.processing
        assert key in self.owed
        self.processing.add(key)
        self.owed.discard(key)

    @precondition(lambda self: bool(self.processing))
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.processing)))
        self.processing.discard(key)
        self.queue.done(key)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert len(self.queue) == len(self.owed - self.processing)


TestQueueMachine = QueueMachine.TestCase
