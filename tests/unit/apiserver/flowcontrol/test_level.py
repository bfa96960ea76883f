"""Seats and queues: who runs, who waits, who is turned away."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.flowcontrol.level import Full, Level, LevelSpec, hand_of


def level(seats: int = 1, queues: int = 4, hand: int = 2, length: int = 2) -> Level:
    return Level(LevelSpec("x", seats=seats, queues=queues, hand=hand, length=length), lambda *_: False)


@given(st.text(max_size=8), st.text(max_size=8), st.integers(1, 128), st.integers(1, 16))
def test_a_hand_has_different_cards_and_is_the_same_again(schema: str, flow: str, queues: int, size: int) -> None:
    hand = hand_of(schema, flow, queues, size)
    assert len(set(hand)) == len(hand) == min(size, queues)
    assert all(0 <= card < queues for card in hand)
    assert hand == hand_of.__wrapped__(schema, flow, queues, size)


async def test_a_seat_passes_on() -> None:
    made = level()
    assert made.take(1)
    assert not made.take(1)
    waiting = asyncio.ensure_future(made.wait("s", "a", 1, 10))
    await asyncio.sleep(0)
    assert (made.queued, made.executing) == (1, 1)
    made.leave(1)
    await asyncio.wait_for(waiting, 5)
    assert (made.queued, made.executing, made.seats) == (0, 1, 1)
    made.leave(1)
    assert made.take(1)


async def test_those_who_come_later_do_not_overtake() -> None:
    made = level(seats=2)
    assert made.take(2)
    waiting = asyncio.ensure_future(made.wait("s", "a", 2, 10))
    await asyncio.sleep(0)
    made.leave(1)
    assert not made.take(1)  # there is a seat, but somebody waits for two
    made.seats, made.executing = 1, 1
    made.leave(1)
    await asyncio.wait_for(waiting, 5)


async def test_a_full_queue_and_no_queue_turn_away() -> None:
    made = level(queues=1, hand=1, length=1)
    assert made.take(1)
    waiting = asyncio.ensure_future(made.wait("s", "a", 1, 10))
    await asyncio.sleep(0)
    with pytest.raises(Full, match="queue-full"):
        await made.wait("s", "a", 1, 10)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert made.queued == 0
    with pytest.raises(Full, match="concurrency-limit"):
        await level(queues=0).wait("s", "a", 1, 10)


async def test_who_waits_too_long_gives_up() -> None:
    made = level()
    assert made.take(1)
    with pytest.raises(Full, match="time-out"):
        await made.wait("s", "a", 1, 0.01)
    assert made.queued == 0
    made.leave(1)
    assert made.take(1)


async def test_a_flood_does_not_starve_others() -> None:
    made = level(queues=64, hand=1, length=1000)
    flows = {flow: hand_of("s", flow, 64, 1) for flow in ("flood", "shy")}
    assert flows["flood"] != flows["shy"]
    assert made.take(1)
    order: list[str] = []

    async def run(flow: str) -> None:
        await made.wait("s", flow, 1, 30)
        order.append(flow)
        made.leave(1)

    tasks = [asyncio.ensure_future(run("flood")) for _ in range(100)]
    await asyncio.sleep(0)
    tasks.append(asyncio.ensure_future(run("shy")))
    await asyncio.sleep(0)
    made.leave(1)
    await asyncio.wait_for(asyncio.gather(*tasks), 30)
    assert order.index("shy") <= 2
    assert (made.seats, made.executing, made.queued) == (0, 0, 0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3), st.booleans()), max_size=40))
def test_seats_are_never_oversold(steps: list[tuple[str, int, bool]]) -> None:
    async def play() -> None:
        made = level(seats=3, queues=8, hand=2, length=50)
        held: list[int] = []

        async def one(flow: str, seats: int) -> None:
            if not made.take(seats):
                await made.wait("s", flow, seats, 30)
            held.append(seats)

        tasks = []
        for flow, seats, leave in steps:
            tasks.append(asyncio.ensure_future(one(flow, seats)))
            await asyncio.sleep(0)
            assert made.seats <= 3 and sum(held) <= made.seats
            if leave and held:
                made.leave(held.pop())
                await asyncio.sleep(0)
        while not all(task.done() for task in tasks):
            assert held, "everybody waits and nobody runs"
            made.leave(held.pop())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert sum(held) == made.seats

    asyncio.run(play())
