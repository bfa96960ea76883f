"""The PodScheduled condition and the writer that sends only the newest of a pod."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from api.models import core_v1
from machinery.clock import RealClock, VirtualClock
from machinery.errors import NotFound, StatusError
from scheduler.binder import Binding, BindPipeline, ConditionWriter, plan_condition
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot
from tests.unit.scheduler.objects import info, pod, until

THEN = datetime(2025, 1, 1, tzinfo=UTC)
NOW = "2026-01-01T00:00:00Z"


def condition(status: str, reason: str, message: str) -> core_v1.PodStatus:
    return core_v1.PodStatus(
        conditions=[
            core_v1.PodCondition(
                type="PodScheduled", status=status, reason=reason, message=message, lastTransitionTime=THEN
            )
        ]
    )


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param(
            None,
            {"status": "False", "reason": "Unschedulable", "message": "m", "lastProbeTime": None}
            | {"lastTransitionTime": NOW},
            id="first",
        ),
        pytest.param(
            condition("False", "Unschedulable", "old"),
            {"status": "False", "reason": "Unschedulable", "message": "m"},
            id="another message is no transition",
        ),
        pytest.param(condition("False", "Unschedulable", "m"), None, id="said already"),
    ],
)
def test_plan_condition(status: core_v1.PodStatus | None, expected: dict[str, Any] | None) -> None:
    patch = plan_condition(pod(status=status), "Unschedulable", "m", NOW)
    wanted = None if expected is None else {"status": {"conditions": [{"type": "PodScheduled", **expected}]}}
    assert patch == wanted


async def test_only_the_newest_condition_of_a_pod_is_sent() -> None:
    sent: list[tuple[str, str]] = []
    first = asyncio.Event()

    async def patch(target: PodInfo, body: dict[str, Any]) -> None:
        await first.wait()
        sent.append((target.name, body["status"]["conditions"][0]["message"]))
        if target.name == "gone":
            raise NotFound.of("pods", "gone")

    writer = ConditionWriter(VirtualClock(), patch, concurrency=1)
    runner = asyncio.ensure_future(writer.run())
    try:
        writer.failed(info("gone"), "Unschedulable", "one")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for message in ("two", "three"):
            writer.failed(info("b"), "Unschedulable", message)
        writer.failed(info("c"), "Unschedulable", "four")
        writer.forget("uid-c")
        writer.failed(info("d"), "Unschedulable", "five")
        first.set()
        await until(lambda: len(sent) == 3)
        assert sent == [("gone", "one"), ("b", "three"), ("d", "five")]
    finally:
        runner.cancel()


async def test_a_binding_waits_for_the_condition_under_way() -> None:
    """Else `PodScheduled=False` could be written over the True that the binding sets."""
    sent: list[str] = []
    answer = asyncio.Event()

    async def patch(target: PodInfo, body: dict[str, Any]) -> None:
        sent.append(body["status"]["conditions"][0]["message"])
        await answer.wait()

    writer = ConditionWriter(VirtualClock(), patch)
    runner = asyncio.ensure_future(writer.run())
    try:
        writer.failed(info("a"), "Unschedulable", "first")
        await until(lambda: bool(sent))
        writer.failed(info("a"), "Unschedulable", "second")
        settled = asyncio.ensure_future(writer.settle("uid-a"))
        await asyncio.sleep(0)
        assert not settled.done()
        answer.set()
        async with asyncio.timeout(5):
            await settled
        assert sent == ["first"]
    finally:
        runner.cancel()


async def test_bindings_run_side_by_side_up_to_a_limit() -> None:
    release = asyncio.Event()
    most = running = 0
    outcome: list[str] = []

    class Bind:
        name = "Bind"

        def registrations(self) -> tuple[()]:
            return ()

        async def bind(self, target: PodInfo, node: str) -> None:
            nonlocal most, running
            running += 1
            most = max(most, running)
            await release.wait()
            running -= 1
            if target.name == "p3":
                raise NotFound.of("pods", "p3")
            if target.name == "p4":
                raise RuntimeError("a fault of the plugin")

    async def nothing() -> None:
        pass

    pipeline = BindPipeline(RealClock(), concurrency=4)
    runner = asyncio.ensure_future(pipeline.run())

    def binding(name: str) -> Binding:
        return Binding(
            info(name),
            "n",
            ClusterSnapshot(),
            None,
            (),
            nothing,
            (Bind(),),
            lambda: outcome.append(name),
            lambda error, stage: outcome.append(f"!{error.code}" if isinstance(error, StatusError) else stage),
        )

    try:
        async with asyncio.TaskGroup() as group:
            for index in range(10):
                group.create_task(pipeline.submit(binding(f"p{index}")))
            for _ in range(20):
                await asyncio.sleep(0)
            assert most == 4 and not pipeline.has_room()
            release.set()
        await until(lambda: len(outcome) == 10)
        assert sorted(outcome) == ["!404", "!500", *(f"p{index}" for index in (0, 1, 2, 5, 6, 7, 8, 9))]
    finally:
        runner.cancel()
