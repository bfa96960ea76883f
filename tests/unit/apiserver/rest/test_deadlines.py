"""How long a request may take, and what connections are closed for."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from apiserver.rest.connections import Sweep
from apiserver.rest.deadlines import Deadlines, asked_for, go_duration
from machinery.errors import BadRequest, Timeout


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("1s", 1), ("1m30s", 90), ("1.5h", 5400), ("-2s", -2), ("+3ms", 0.003), ("5µs", 5e-6), (".5s", 0.5)],
)
def test_durations_as_go_reads_them(text: str, seconds: float) -> None:
    assert go_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "invalid duration"),
        ("x", "invalid duration"),
        ("5", "missing unit"),
        ("1s5", "missing unit"),
        ("1d", "invalid duration"),
        ("--1s", "invalid duration"),
        ("10000000h", "invalid duration"),
    ],
)
def test_what_is_no_duration(text: str, why: str) -> None:
    with pytest.raises(BadRequest, match=f"invalid timeout specified in the request URL - time: {why}"):
        asked_for(text)


async def test_the_sweep_cancels_what_is_late_and_only_that() -> None:
    deadlines = Deadlines(60)
    told: list[str] = []

    async def request(name: str, began: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        deadlines.begin(task, began)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            told.append(f"{name} {deadlines.is_late(task)}")
            if name == "cut":
                raise
        finally:
            deadlines.end(task)

    tasks = {
        name: asyncio.ensure_future(request(name, began)) for name, began in (("old", 0), ("cut", 90), ("new", 95))
    }
    await asyncio.sleep(0)
    deadlines.sweep(100.0)
    await tasks["old"]
    assert told == ["old True"]
    tasks["cut"].cancel()  # the server stops: that is no deadline
    await asyncio.wait({tasks["cut"]})
    assert told == ["old True", "cut False"] and tasks["cut"].cancelled()
    tasks["new"].cancel()
    await asyncio.wait({tasks["new"]})


async def test_a_deadline_of_the_clients() -> None:
    with pytest.raises(Timeout, match="within requested timeout - context deadline exceeded"):
        await Deadlines().within(0.001, asyncio.sleep(30), lambda: False)
    await Deadlines().within(30, asyncio.sleep(0), lambda: False)


class Transport:
    def __init__(self) -> None:
        self.done = ""
        self.waiting = 0

    def is_closing(self) -> bool:
        return bool(self.done)

    def close(self) -> None:
        self.done = "closed"

    def abort(self) -> None:
        self.done = "aborted"

    def get_write_buffer_size(self) -> int:
        return self.waiting


def connection(**fields: Any) -> Any:
    flow = SimpleNamespace(write_paused=False)
    known = {"cycle": None, "scope": None, "flow": flow, "head_scope": None, "head_since": 0.0, "stuck_since": 0.0}
    return SimpleNamespace(transport=Transport(), stuck_size=0, **{**known, **fields})


def test_a_head_that_does_not_end_is_closed() -> None:
    sweep, silent = Sweep(32, 60), connection()
    for now in (1.0, 20.0, 33.0):
        sweep.look([silent], now)
        assert not silent.transport.done
    sweep.look([silent], 34.0)
    assert silent.transport.done == "closed"
    scope: dict[str, Any] = {}
    busy = connection(scope=scope, cycle=SimpleNamespace(scope=scope))
    for now in (1.0, 100.0, 1000.0):
        sweep.look([busy], now)
    assert not busy.transport.done
    busy.scope = {}  # the next request has begun
    for now in (1001.0, 1034.0):
        sweep.look([busy], now)
    assert busy.transport.done == "closed"


def test_who_does_not_read_is_cut() -> None:
    sweep, scope = Sweep(32, 60), dict[str, Any]()
    stuck = connection(scope=scope, cycle=SimpleNamespace(scope=scope), flow=SimpleNamespace(write_paused=True))
    stuck.transport.waiting = 100
    for now in (1.0, 50.0):
        sweep.look([stuck], now)
    stuck.transport.waiting = 90  # it has read a little
    for now in (60.0, 119.0):
        sweep.look([stuck], now)
        assert not stuck.transport.done
    sweep.look([stuck], 121.0)
    assert stuck.transport.done == "aborted"
