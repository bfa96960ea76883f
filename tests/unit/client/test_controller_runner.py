from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from api.models import core_v1
from client.backoff import Backoff
from client.client import Client
from client.controller import DONE, OUTAGE_RETRY, STALE_LIMIT, Controller, Result, TerminalError
from client.informer import Informer
from machinery.clock import VirtualClock
from machinery.errors import Conflict, InternalError, ServiceUnavailable
from machinery.meta import ObjectKey
from proto.api.v1 import resource_pb2 as pb
from tests.unit.client.scripted import ScriptedTransport, modified, page, pod

KEY = ObjectKey("default", "a")
HANG = ScriptedTransport.HANG


@contextlib.asynccontextmanager
async def running(clock: VirtualClock, *coroutines: object) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(each) for each in coroutines]  # type: ignore[call-overload]
    await clock.advance(0)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Reconciler:
    """Plays outcomes; counts passes and how many ran at once per key."""

    def __init__(self, *outcomes: object) -> None:
        self.outcomes = list(outcomes)
        self.passes: list[ObjectKey] = []

    async def reconcile(self, key: ObjectKey) -> Result:
        self.passes.append(key)
        outcome = self.outcomes.pop(0) if self.outcomes else DONE
        if isinstance(outcome, BaseException):
            raise outcome
        assert isinstance(outcome, Result)
        return outcome


@pytest.mark.parametrize(
    ("outcome", "wait", "passes"),
    [
        pytest.param(DONE, 100.0, 1, id="done"),
        pytest.param(Result(requeue_after=5), 4.9, 1, id="requeue not yet"),
        pytest.param(Result(requeue_after=5), 5.1, 2, id="requeue"),
        pytest.param(Conflict("stale"), 1.0, 2, id="conflict retries quietly"),
        pytest.param(InternalError("x"), 1.0, 2, id="error backs off"),
        pytest.param(RuntimeError("bug"), 1.0, 2, id="bug backs off"),
        pytest.param(asyncio.CancelledError(), 1.0, 2, id="a call cancelled under it backs off"),
        pytest.param(TerminalError("never"), 100.0, 1, id="terminal drops"),
        pytest.param(ServiceUnavailable("away"), OUTAGE_RETRY + 0.1, 2, id="outage"),
    ],
)
async def test_outcomes(outcome: object, wait: float, passes: int) -> None:
    clock, reconciler = VirtualClock(), Reconciler(outcome)
    controller = Controller("test", reconciler.reconcile, clock=clock)
    controller.enqueue(KEY)
    async with running(clock, controller.run()):
        await clock.advance(wait)
        assert len(reconciler.passes) == passes


async def test_a_fault_outside_the_reconciler_costs_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, reconciler, faults = VirtualClock(), Reconciler(), [RuntimeError("bug")]
    controller = Controller("test", reconciler.reconcile, clock=clock)

    def defer(*_: object) -> None:
        if faults:
            raise faults.pop()

    monkeypatch.setattr(controller, "_defer", defer)
    controller.enqueue(KEY)
    async with running(clock, controller.run()):
        await clock.advance(1.0)
        assert len(reconciler.passes) == 2


async def test_one_worker_per_key() -> None:
    clock, gate, active, most = VirtualClock(), asyncio.Event(), 0, 0

    async def reconcile(_: ObjectKey) -> Result:
        nonlocal active, most
        active += 1
        most = max(most, active)
        await gate.wait()
        active -= 1
        return DONE

    controller = Controller("test", reconcile, clock=clock, workers=5)
    controller.enqueue(KEY)
    async with running(clock, controller.run()):
        controller.enqueue(KEY)
        await clock.advance(0)
        assert most == 1
        controller.enqueue(ObjectKey("default", "b"))
        await clock.advance(0)
        assert most == 2, "another key is not held up"
        gate.set()
        await clock.advance(0)
        assert controller.metrics.reconciles == 3


async def test_a_key_waits_until_the_cache_shows_its_write() -> None:
    clock, transport = VirtualClock(), ScriptedTransport()
    client = Client(transport)
    arrive = asyncio.Event()
    transport.script("list", page(10, pod("a", 3)))
    transport.script("watch", [arrive, modified(pod("a", 20)), HANG])
    transport.script("patch", pod("a", 20))
    informer: Informer[core_v1.Pod] = Informer(client, core_v1.Pod, clock=clock, backoff=Backoff(jitter=0.0))
    passes = 0

    async def reconcile(key: ObjectKey) -> Result:
        nonlocal passes
        passes += 1
        if passes == 1:
            await client.patch(core_v1.Pod, key.name, {}, key.namespace)
        return DONE

    controller = Controller("test", reconcile, clock=clock, informers=[informer])
    controller.watches(informer)
    async with running(clock, informer.run(), controller.run()):
        assert passes == 1
        controller.enqueue(KEY)
        await clock.advance(1)
        assert passes == 1, "deferred: its own write is not visible yet"
        arrive.set()
        await clock.advance(0)
        assert passes == 2
        assert controller.metrics.deferred == 1
        await clock.advance(STALE_LIMIT + 1)
        assert passes == 2
        assert len(transport.sent(pb.PatchRequest)) == 1


async def test_a_deferred_key_is_not_held_for_ever() -> None:
    clock, transport = VirtualClock(), ScriptedTransport()
    client = Client(transport)
    transport.script("list", page(10, pod("a", 3)))
    transport.script("watch", [HANG])
    transport.script("patch", pod("a", 20))
    informer: Informer[core_v1.Pod] = Informer(client, core_v1.Pod, clock=clock)
    passes = 0

    async def reconcile(key: ObjectKey) -> Result:
        nonlocal passes
        passes += 1
        if passes == 1:
            await client.patch(core_v1.Pod, key.name, {}, key.namespace)
        return DONE

    controller = Controller("test", reconcile, clock=clock, informers=[informer])
    controller.enqueue(KEY)
    async with running(clock, informer.run(), controller.run()):
        controller.enqueue(KEY)
        await clock.advance(STALE_LIMIT - 1)
        assert passes == 1
        await clock.advance(2)
        assert passes == 2


async def test_starts_only_when_synced() -> None:
    clock, transport, reconciler = VirtualClock(), ScriptedTransport(), Reconciler()
    transport.script("list", HANG)
    informer: Informer[core_v1.Pod] = Informer(Client(transport), core_v1.Pod, clock=clock)
    controller = Controller("test", reconciler.reconcile, clock=clock, informers=[informer])
    controller.enqueue(KEY)
    async with running(clock, informer.run(), controller.run()):
        await clock.advance(100)
        assert reconciler.passes == []
