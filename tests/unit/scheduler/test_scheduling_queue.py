"""The queue under virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.models import core_v1
from machinery.clock import VirtualClock
from scheduler.framework.events import Action, ClusterEvent, EventResource
from scheduler.framework.pod_info import PodInfo
from scheduler.plugins.registry import default_framework
from scheduler.queue import EARLY_RATE, MAX_WAIT, Place, QueuedPod, SchedulingQueue, backoff
from tests.unit.scheduler.objects import info, node, pod, tolerate

FIT = ["NodeResourcesFit"]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def queue(clock: VirtualClock) -> SchedulingQueue:
    framework = default_framework()
    return SchedulingQueue(clock, lambda _: framework)


def node_added(made: core_v1.Node) -> ClusterEvent:
    return ClusterEvent(EventResource.NODE, Action.ADD, None, made)


def pod_gone(gone: PodInfo) -> ClusterEvent:
    return ClusterEvent(EventResource.ASSIGNED_POD, Action.DELETE, gone, None)


def take(queue: SchedulingQueue) -> QueuedPod:
    queued = queue.take()
    assert queued is not None
    return queued


def place(queue: SchedulingQueue, name: str) -> Place | None:
    queued = queue.get(f"uid-{name}")
    return None if queued is None else queued.place


def test_priority_then_age(queue: SchedulingQueue) -> None:
    queue.add(info("low"))
    queue.add(info("high", priority=1000))
    queue.add(info("low-later"))
    queue.add(info("negative", priority=-1))
    assert [take(queue).info.name for _ in range(4)] == ["high", "low", "low-later", "negative"]
    assert queue.take() is None


def test_backoff_doubles_to_its_ceiling() -> None:
    assert [backoff(count) for count in range(1, 7)] == [1, 2, 4, 8, 10, 10]
    assert backoff(10**6) == 10


async def test_pop_waits_for_a_pod(queue: SchedulingQueue) -> None:
    async with asyncio.TaskGroup() as group:
        popped = group.create_task(queue.pop())
        await asyncio.sleep(0)
        assert not popped.done()
        queue.add(info("a"))
    assert popped.result().info.name == "a"


async def test_a_refused_pod_waits_for_an_event_that_helps(queue: SchedulingQueue) -> None:
    queue.add(info("big", {"cpu": "4"}))
    queue.park(take(queue), FIT)
    assert place(queue, "big") is Place.WAITING
    queue.on_event(node_added(node("small", cpu="1")))
    assert place(queue, "big") is Place.WAITING
    queue.on_event(ClusterEvent(EventResource.NODE, Action.UPDATE_NODE_LABEL, node("n"), node("n", labels={"a": "b"})))
    assert place(queue, "big") is Place.WAITING
    queue.on_event(node_added(node("large", cpu="8")))
    assert place(queue, "big") is Place.BACKOFF


async def test_a_pod_in_backoff_goes_early_only_when_nothing_else_is_active(
    queue: SchedulingQueue, clock: VirtualClock
) -> None:
    queue.add(info("refused"))
    queue.park(take(queue), FIT)
    queue.on_event(node_added(node("n")))
    queue.add(info("fresh"))
    assert take(queue).info.name == "fresh"
    early = take(queue)
    assert (early.info.name, early.attempts) == ("refused", 2)


async def test_only_so_many_go_early(queue: SchedulingQueue, clock: VirtualClock) -> None:
    count = int(EARLY_RATE) + 50
    for index in range(count):
        queue.add(info(f"p{index}", {"cpu": "1"}))
    for _ in range(count):
        queue.park(take(queue), FIT)
    queue.on_event(pod_gone(info("other", {"cpu": "1"})))
    early = 0
    while (queued := queue.take()) is not None:
        early += 1
        queue.park(queued, FIT)
    assert early == EARLY_RATE
    await clock.advance(1.0)
    late = 0
    while queue.take() is not None:
        late += 1
    assert late == 50


async def test_errors_wait_out_their_backoff(queue: SchedulingQueue, clock: VirtualClock) -> None:
    queue.add(info("a"))
    for expected in (1, 2, 4, 8, 10, 10):
        queue.retry(take(queue))
        await clock.advance(expected - 0.01)
        assert queue.take() is None
        await clock.advance(0.02)
        assert place(queue, "a") is Place.ACTIVE


async def test_backoff_ends_by_itself(queue: SchedulingQueue, clock: VirtualClock) -> None:
    queue.add(info("a"))
    queue.park(take(queue), FIT)
    queue.on_event(node_added(node("n")))
    assert place(queue, "a") is Place.BACKOFF
    await clock.advance(1.0)
    assert place(queue, "a") is Place.ACTIVE


async def test_backoff_already_served_while_waiting(queue: SchedulingQueue, clock: VirtualClock) -> None:
    queue.add(info("a"))
    queue.park(take(queue), FIT)
    await clock.advance(5)
    queue.on_event(node_added(node("n")))
    assert place(queue, "a") is Place.ACTIVE


async def test_leftovers_are_flushed_after_five_minutes(queue: SchedulingQueue, clock: VirtualClock) -> None:
    queue.add(info("a"))
    queue.park(take(queue), FIT)
    runner = asyncio.ensure_future(queue.run())
    try:
        await clock.advance(MAX_WAIT - 1)
        assert place(queue, "a") is Place.WAITING
        await clock.advance(31)
        assert place(queue, "a") is Place.ACTIVE
    finally:
        runner.cancel()


def test_an_event_during_the_attempt_is_not_lost(queue: SchedulingQueue) -> None:
    queue.add(info("a", {"cpu": "1"}))
    attempt = take(queue)
    queue.on_event(pod_gone(info("other", {"cpu": "1"})))
    queue.park(attempt, FIT)
    assert place(queue, "a") is not Place.WAITING


def test_an_event_before_the_attempt_does_not_count_again(queue: SchedulingQueue) -> None:
    queue.add(info("first"))
    queue.add(info("a", {"cpu": "1"}))
    take(queue)  # keeps the history alive
    queue.on_event(pod_gone(info("other", {"cpu": "1"})))
    queue.park(take(queue), FIT)
    assert place(queue, "a") is Place.WAITING


def test_a_pod_deleted_in_flight_stays_away(queue: SchedulingQueue) -> None:
    for end in (queue.retry, lambda queued: queue.park(queued, FIT), lambda queued: queue.done(queued.info.uid)):
        queue.add(info("a"))
        attempt = take(queue)
        queue.delete("uid-a")
        end(attempt)
        assert len(queue) == 0
        assert queue.take() is None


def test_deleted_pods_leave_every_place(queue: SchedulingQueue) -> None:
    queue.add(info("active"))
    queue.add(info("gated", schedulingGates=[core_v1.PodSchedulingGate(name="g")]))
    queue.add(info("waiting", priority=1))
    queue.park(take(queue), FIT)
    for name in ("active", "gated", "waiting"):
        queue.delete(f"uid-{name}")
    assert len(queue) == 0
    queue.on_event(node_added(node("n")))
    assert queue.take() is None


def test_gates_hold_a_pod_back_until_the_last_is_gone(queue: SchedulingQueue) -> None:
    def gates(*names: str) -> list[core_v1.PodSchedulingGate] | None:
        return [core_v1.PodSchedulingGate(name=name) for name in names] or None

    queue.add(info("a", schedulingGates=gates("x", "y")))
    assert place(queue, "a") is Place.GATED
    queue.on_event(node_added(node("n")))
    queue.update(info("a", schedulingGates=gates("y")))
    assert queue.take() is None
    queue.update(info("a", schedulingGates=gates()))
    assert take(queue).info.name == "a"


def test_a_new_toleration_frees_the_pod_but_a_new_annotation_does_not(queue: SchedulingQueue) -> None:
    queue.add(info("a"))
    queue.park(take(queue), ["TaintToleration"])
    queue.update(info("a"))
    assert place(queue, "a") is Place.WAITING
    queue.update(info("a", tolerations=[tolerate("k", "Exists")]))
    assert place(queue, "a") is Place.BACKOFF


@pytest.mark.parametrize(
    ("plugin", "made", "event", "helps"),
    [
        pytest.param(
            "NodeUnschedulable",
            pod(),
            ClusterEvent(EventResource.NODE, Action.UPDATE_NODE_TAINT, node("n", unschedulable=True), node("n")),
            True,
            id="uncordoned",
        ),
        pytest.param("NodeUnschedulable", pod(), node_added(node("n", unschedulable=True)), False, id="cordoned node"),
        pytest.param(
            "TaintToleration", pod(), node_added(node("n", taints=[("k", "", "NoSchedule")])), False, id="tainted node"
        ),
        pytest.param(
            "TaintToleration",
            pod(),
            ClusterEvent(
                EventResource.NODE, Action.UPDATE_NODE_TAINT, node("n", taints=[("k", "", "NoExecute")]), node("n")
            ),
            True,
            id="taint removed",
        ),
        pytest.param(
            "NodeAffinity",
            pod(nodeSelector={"disk": "ssd"}),
            ClusterEvent(EventResource.NODE, Action.UPDATE_NODE_LABEL, node("n"), node("n", labels={"disk": "ssd"})),
            True,
            id="label appears",
        ),
        pytest.param(
            "NodeAffinity",
            pod(nodeSelector={"disk": "ssd"}),
            ClusterEvent(
                EventResource.NODE,
                Action.UPDATE_NODE_LABEL,
                node("n", labels={"disk": "ssd"}),
                node("n", labels={"disk": "ssd", "other": "x"}),
            ),
            False,
            id="matched before",
        ),
        pytest.param(
            "NodeResourcesFit",
            pod(requests={"cpu": "2"}),
            ClusterEvent(
                EventResource.NODE,
                Action.UPDATE_NODE_ALLOCATABLE,
                node("n", cpu="4"),
                node("n", cpu="4", memory="99Gi"),
            ),
            False,
            id="another resource grew",
        ),
        pytest.param(
            "NodeResourcesFit",
            pod(requests={"cpu": "2"}),
            ClusterEvent(
                EventResource.ASSIGNED_POD,
                Action.UPDATE_POD_SCALE_DOWN,
                info("o", {"cpu": "2"}),
                info("o", {"cpu": "1"}),
            ),
            True,
            id="another pod shrank",
        ),
        pytest.param("NodeAffinity", pod(), pod_gone(info("o")), False, id="deletion does not change labels"),
    ],
)
def test_hints(queue: SchedulingQueue, plugin: str, made: core_v1.Pod, event: ClusterEvent, helps: bool) -> None:
    queue.add(PodInfo(made))
    queue.park(take(queue), [plugin])
    queue.on_event(event)
    assert (place(queue, "web") is not Place.WAITING) is helps


@settings(max_examples=100, deadline=None)
@given(st.data())
async def test_no_pod_is_ever_lost_or_doubled(data: st.DataObject) -> None:
    clock = VirtualClock()
    framework = default_framework()
    queue = SchedulingQueue(clock, lambda _: framework)
    alive: set[str] = set()
    flying: dict[str, Any] = {}
    for _ in range(data.draw(st.integers(1, 30))):
        name = data.draw(st.sampled_from("abcd"))
        uid = f"uid-{name}"
        match data.draw(st.integers(0, 7)):
            case 0 | 1:
                queue.add(info(name, {"cpu": "1"}, priority=data.draw(st.integers(0, 2))))
                alive.add(uid)
            case 2:
                queued = queue.take()
                if queued is not None:
                    assert queued.info.uid in alive and queued.info.uid not in flying
                    flying[queued.info.uid] = queued
            case 3 if uid in flying:
                queue.park(flying.pop(uid), FIT)
            case 4 if uid in flying:
                queue.retry(flying.pop(uid))
            case 5:
                queue.delete(uid)
                alive.discard(uid)
                flying.pop(uid, None)
            case 6:
                queue.on_event(data.draw(st.sampled_from([pod_gone(info("o")), node_added(node("n"))])))
            case 7:
                await clock.advance(data.draw(st.sampled_from([0.5, 1.0, 15.0])), settle=1)
    for queued in flying.values():
        queue.retry(queued)
    await clock.advance(10_000, settle=1)
    queue.flush()
    await clock.advance(20, settle=1)
    left = set()
    while (queued := queue.take()) is not None:
        left.add(queued.info.uid)
    assert left == alive
