"""Zones that fail in part, whole and all at once, over hours of virtual time: who is given up, when, and who is not."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any
from unittest.mock import Mock

import pytest

from api.models import core_v1
from client.client import key_of
from controller_manager.node_lifecycle.controller import UPDATE_WORKERS
from controller_manager.objects import condition
from machinery.meta import ObjectKey
from tests.unit.controller_manager.builders import pod
from tests.unit.controller_manager.node_world import World

HOUR = 3600.0
NOTICED = 50 + 5 + 10
"""Cluster seconds: grace period, monitor period, and the age of the last heartbeat."""


def gaps(times: dict[str, float]) -> list[float]:
    ordered = sorted(times.values())
    return [later - earlier for earlier, later in pairwise(ordered)]


@pytest.mark.parametrize(
    ("sizes", "dead", "least", "given_up"),
    [
        pytest.param({"a": 10, "b": 10}, {"a": 3}, 10.0, 3, id="three of ten: normal, one in ten seconds"),
        pytest.param({"a": 10, "b": 10}, {"a": 6}, 0.0, 0, id="a small zone in partial disruption: nobody"),
        pytest.param({"a": 60, "b": 3}, {"a": 36}, 100.0, 36, id="a large one: one in a hundred seconds"),
        pytest.param({"a": 50, "b": 3}, {"a": 30}, 0.0, 0, id="fifty nodes are not large"),
        pytest.param({"a": 5, "b": 5}, {"a": 5}, 10.0, 5, id="a whole zone of two: normal"),
        pytest.param({"a": 5, "b": 5}, {"a": 5, "b": 4}, 10.0, 5, id="one dead, the other nearly: only the dead one"),
        pytest.param({"a": 5, "b": 5}, {"a": 5, "b": 5}, 0.0, 0, id="all of them: nobody"),
        pytest.param({"a": 4}, {"a": 2}, 10.0, 2, id="fewer than three never disrupt a zone"),
    ],
)
async def test_rates(sizes: dict[str, int], dead: dict[str, int], least: float, given_up: int) -> None:
    world = World()
    names = {zone: world.add(zone, count) for zone, count in sizes.items()}
    async with world.running():
        died = world.clock.monotonic()
        for zone, count in dead.items():
            world.die(*names[zone][:count])
        await world.advance(1.2 * HOUR)
        assert len(world.tainted) == given_up
        assert all(gap >= least - 0.001 for gap in gaps(world.tainted)), "never faster than the zone's rate"
        assert len(world.evicted) == given_up
        for name, when in world.tainted.items():
            assert when - died >= 50 - 10
            # timeAdded has whole seconds, and the pods' own time starts there
            assert 299 <= world.evicted[f"on-{name}"] - when <= 301
        if given_up:
            assert min(world.tainted.values()) - died <= NOTICED + 5, "and not much later"
        for zone, count in dead.items():
            for name in names[zone][:count]:
                ready = condition(world.node(name), "Ready")
                assert ready is not None
                assert ready.status == "Unknown"


async def test_a_small_zone_that_recovers_in_part_is_evicted_again() -> None:
    world = World()
    names = world.add("a", 10)
    world.add("b", 3)
    async with world.running():
        world.die(*names[:6])
        await world.advance(HOUR)
        assert not world.tainted
        world.recover(*names[:2])
        await world.advance(HOUR)
        assert set(world.tainted) == set(names[2:6])
        assert set(world.evicted) == {f"on-{name}" for name in names[2:6]}


async def test_when_the_whole_cluster_falls_silent_what_was_begun_is_called_off() -> None:
    world = World()
    first, second = world.add("a", 3), world.add("b", 3)
    async with world.running():
        world.die(*first)
        await world.advance(200)
        assert set(world.tainted) == set(first)
        world.die(*second)
        await world.advance(2 * HOUR)
        assert not any(map(world.no_execute, [*first, *second]))
        assert not world.evicted, "the timers of the first zone's pods were stopped in time"
        world.recover(*first, *second)
        await world.advance(HOUR)
        assert not world.evicted
        world.die(first[0])
        await world.advance(HOUR)
        assert set(world.evicted) == {f"on-{first[0]}"}, "and it works as before"


@pytest.mark.parametrize(
    ("back_after", "evicted"),
    [
        pytest.param(45, False, id="within the grace period"),
        pytest.param(200, False, id="tainted, but in time"),
        pytest.param(600, True, id="too late"),
    ],
)
async def test_a_node_that_comes_back(back_after: float, evicted: bool) -> None:
    world = World()
    names = world.add("a", 3)
    async with world.running():
        world.die(names[0])
        await world.advance(back_after)
        gone = world.pod(f"on-{names[0]}")
        assert (gone.metadata.deletionTimestamp is not None) is evicted, "it stays until its kubelet says that it ended"
        world.recover(names[0])
        await world.advance(HOUR)
        assert bool(world.evicted) is evicted
        assert not world.no_execute(names[0])
        assert (world.pod(f"on-{names[0]}") is None) is evicted


async def test_pods_of_a_dead_node_wait_for_somebody_who_knows_that_it_is_off() -> None:
    world = World()
    names = world.add("a", 3)
    async with world.running():
        world.die(names[0])
        await world.advance(3 * HOUR)
        assert world.pod("on-a0").metadata.deletionTimestamp, "for ever, if need be"
        live = world.node(names[0])
        taint = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}
        kept = [{"key": each.key, "effect": each.effect} for each in live.spec.taints]
        await world.patch(core_v1.Node, names[0], {"spec": {"taints": [*kept, taint]}})
        await world.advance(60)
        assert world.pod("on-a0") is None


async def test_an_eviction_that_is_called_off_is_told() -> None:
    world = World()
    names = world.add("a", 3)
    said: list[tuple[str, str]] = []
    world.eviction._events = Mock(event=lambda _obj, _type, reason, text: said.append((reason, text)))
    taint = {"key": "mine", "effect": "NoExecute"}
    patient = core_v1.Toleration(key="mine", operator="Exists", effect="NoExecute", tolerationSeconds=300)
    world.pods.put(pod(f"on-{names[0]}", ready=True, node=names[0], tolerations=[patient]))
    async with world.running():
        await world.patch(core_v1.Node, names[0], {"spec": {"taints": [taint]}})
        await world.advance(5)
        assert not said
        await world.patch(core_v1.Node, names[0], {"spec": {"taints": []}})
        await world.advance(5)
        assert said == [("TaintManagerEviction", "Cancelling deletion of Pod default/on-a0")]
        await world.patch(core_v1.Node, names[0], {"spec": {"taints": [{**taint, "key": "other"}]}})
        await world.advance(5)
        assert said[1:] == [("TaintManagerEviction", "Marking for deletion Pod default/on-a0")]


async def test_many_lost_nodes_are_written_side_by_side_but_not_all_at_once() -> None:
    world = World()
    under_way = most = written = 0
    patch = world.patch

    async def slow(kind: Any, *rest: Any, **named: Any) -> Any:
        nonlocal under_way, most, written
        under_way += kind is core_v1.Node
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= kind is core_v1.Node
        written += kind is core_v1.Node
        return await patch(kind, *rest, **named)

    names = world.add("a", 100)
    world.add("b", 3)
    async with world.running():
        world.patch = slow  # type: ignore[method-assign]
        world.die(*names)
        await world.advance(NOTICED)
        assert written >= 100
        assert most == UPDATE_WORKERS


async def test_out_of_service_on_a_living_node_forces_nothing() -> None:
    world = World()
    names = world.add("a", 3)
    tolerant = pod("tolerant", ready=True, node=names[0], tolerations=[core_v1.Toleration(operator="Exists")])
    async with world.running():
        world.pods.put(tolerant)
        taint = {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}
        await world.patch(core_v1.Node, names[0], {"spec": {"taints": [taint]}})
        await world.advance(HOUR)
        assert world.pods.lister.get(key_of(tolerant)) is not None
        assert set(world.evicted) == {"on-a0"}, "the taint itself evicts whoever does not tolerate it"


async def test_pods_of_a_removed_node_are_told_why_and_go() -> None:
    world = World()
    names = world.add("a", 3)
    told: list[core_v1.Pod] = []
    async with world.running():
        world.die(names[0])
        world.nodes.remove(ObjectKey("", names[0]))
        seen = world.pods.remove

        def remove(key: ObjectKey) -> None:
            told.append(world.pod(key.name))
            seen(key)

        world.pods.remove = remove  # type: ignore[method-assign]
        await world.advance(39)
        assert not told, "a node may be registered again: its pods have a quarantine"
        await world.advance(60)
    (gone,) = told
    target = condition(gone, "DisruptionTarget")
    assert target is not None
    assert (target.reason, target.message) == ("DeletionByPodGC", "PodGC: node no longer exists")
    assert gone.status
    assert gone.status.phase == "Failed"
