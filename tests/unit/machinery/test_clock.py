"""Cluster seconds and wall time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from machinery.clock import RealClock, VirtualClock


@pytest.mark.parametrize("scale", [0, -1])
def test_a_scale_must_be_positive(scale: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        RealClock(scale)


async def test_scaled_waits_are_shorter_and_scaled_durations_longer() -> None:
    clock = RealClock(1000)
    before = clock.now()
    start = clock.monotonic()
    await clock.sleep(10)
    passed = clock.monotonic() - start
    assert passed >= 10
    assert clock.elapsed(before) >= 10
    assert clock.real(1000) == 1


def test_timestamps_are_wall_time_whatever_the_scale() -> None:
    assert abs(RealClock(1000).now() - datetime.now(UTC)) < timedelta(seconds=5)
    due = RealClock(100).deadline(1000) - datetime.now(UTC)
    assert timedelta(seconds=9) < due <= timedelta(seconds=10)


async def test_virtual_sleepers_wake_in_order() -> None:
    clock, woken = VirtualClock(), []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((seconds, clock.monotonic()))

    async with asyncio.TaskGroup() as group:
        for seconds in (30, 10, 20):
            group.create_task(sleeper(seconds))
        await clock.advance(15)
        assert woken == [(10, 10.0)]
        await clock.advance(100)
    assert woken == [(10, 10.0), (20, 20.0), (30, 30.0)]


async def test_a_virtual_timeout_ends_its_block() -> None:
    clock = VirtualClock()

    async def body() -> None:
        async with clock.timeout(5):
            await asyncio.get_running_loop().create_future()

    task = asyncio.ensure_future(body())
    await clock.advance(4)
    assert not task.done()
    await clock.advance(2)
    with pytest.raises(TimeoutError):
        await task


async def test_a_cancelled_timer_does_not_fire() -> None:
    clock = VirtualClock()
    fired: list[str] = []
    clock.call_later(1, fired.append, "kept")
    clock.call_later(1, fired.append, "dropped").cancel()
    await clock.advance(2)
    assert fired == ["kept"]


def test_micro_times_always_have_a_fraction() -> None:
    assert VirtualClock().now_micro().microsecond == 1
