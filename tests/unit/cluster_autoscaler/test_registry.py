"""Sizes, readiness, requests under way and back-off, on the virtual clock."""

from __future__ import annotations

from dataclasses import replace

from cluster_autoscaler.cloud_view import implausible
from cluster_autoscaler.provider import Instance, NodeGroup
from tests.unit.cluster_autoscaler.scene import Scene


def scene_with(count: int) -> Scene:
    scene = Scene()
    scene.group("a", 0, 10)
    for _ in range(count):
        scene.node("a")
    return scene


def test_counts_by_state() -> None:
    scene = scene_with(2)
    scene.node("a", ready=False, age=10_000.0)
    scene.node("a", ready=False, age=10.0)
    scene.view.groups["a"].instances.append(Instance("fake://new", "creating"))
    scene.view.groups["a"].target += 2
    scene.update()
    counts = scene.registry.counts["a"]
    assert (counts.ready, counts.unready, counts.not_started, counts.unregistered) == (2, 1, 1, 1)
    assert counts.upcoming == 3  # one starts, one boots, one has no machine yet


async def test_a_raise_that_brings_nothing_fails_and_is_not_repeated() -> None:
    scene = scene_with(0)
    scene.registry.raised(scene.now, "a", 2)
    scene.view.groups["a"].target = 2
    scene.update()
    assert scene.registry.counts["a"].upcoming == 2
    await scene.clock.advance(901, settle=1)
    (failure,) = scene.update().failures
    assert (failure.group, failure.code) == ("a", "timeout")
    backoff = scene.registry.backoff_of(scene.now, "a")
    assert backoff is not None and backoff.duration == 300


async def test_backoff_doubles_up_to_half_an_hour_and_is_forgotten() -> None:
    scene = scene_with(0)
    lasted = []
    for _ in range(5):
        scene.registry.failed(scene.now, "a", "QUOTA", "")
        backoff = scene.registry.backoffs["a"]
        lasted.append(backoff.duration)
        await scene.clock.advance(backoff.duration, settle=1)
        assert scene.registry.backoff_of(scene.now, "a") is None
    assert lasted == [300, 600, 1200, 1800, 1800]
    await scene.clock.advance(10_800, settle=1)
    scene.registry.failed(scene.now, "a", "QUOTA", "")
    assert scene.registry.backoffs["a"].duration == 300


def test_a_raise_that_was_met_clears_the_backoff() -> None:
    scene = scene_with(0)
    scene.registry.failed(scene.now, "a", "QUOTA", "")
    scene.registry.raised(scene.now, "a", 1)
    scene.node("a")
    scene.update()
    assert not scene.registry.requests and not scene.registry.backoffs


def test_machines_with_errors_fail_the_raise_at_once() -> None:
    scene = scene_with(0)
    scene.registry.raised(scene.now, "a", 1)
    view = scene.view.groups["a"]
    view.target = 1
    broken = Instance("fake://x", "creating", "OUT_OF_CAPACITY", "no room in the zone", 1)
    view.instances.append(broken)
    found = scene.update()
    assert found.broken == {"a": [broken]}
    assert [(each.code, each.message) for each in found.failures] == [("OUT_OF_CAPACITY", "no room in the zone")]
    assert scene.registry.counts["a"].upcoming == 0
    assert scene.update().failures == []  # told once while it lasts


async def test_machines_that_never_join_are_given_back() -> None:
    scene = scene_with(1)
    late = Instance("fake://late", "running")
    scene.view.groups["a"].instances.append(late)
    scene.view.groups["a"].target = 2
    assert scene.update().never_came == {}
    await scene.clock.advance(901, settle=1)
    assert scene.update().never_came == {"a": [late]}
    assert scene.registry.counts["a"].long_unregistered == 1


async def test_a_target_without_machines_is_lowered_in_the_end() -> None:
    scene = scene_with(1)
    scene.view.groups["a"].target = 4
    assert scene.update().too_high == {}
    await scene.clock.advance(901, settle=1)
    assert scene.update().too_high == {"a": 3}


def test_somebody_lowers_the_group_while_it_is_raised() -> None:
    scene = scene_with(0)
    scene.registry.raised(scene.now, "a", 3)
    view = scene.view.groups["a"]
    view.target = 3
    scene.update()
    view.target = 0
    scene.update()
    assert not scene.registry.requests and scene.registry.counts["a"].upcoming == 0


def test_health() -> None:
    scene = scene_with(5)
    for _ in range(3):
        scene.node("a", ready=False, age=10_000.0)
    scene.update()
    assert scene.registry.healthy  # three may be unready
    scene.node("a", ready=False, age=10_000.0)
    scene.update()
    assert scene.registry.healthy  # 4 of 9 are 44 %
    scene.node("a", ready=False, age=10_000.0)
    scene.update()
    assert not scene.registry.healthy and not scene.registry.group_healthy("a")


def test_numbers_that_cannot_be_true() -> None:
    group = NodeGroup("a", 1, 3)
    assert implausible(group, 0) == ""  # below the minimum is possible: somebody set it so
    assert implausible(group, -1)
    assert implausible(replace(group, max_size=0), 1)
    assert implausible(replace(group, min_size=-1), 1)
    assert implausible(replace(group, id=""), 1)


async def test_a_size_beyond_all_bounds_is_not_believed() -> None:
    scene = scene_with(1)
    scene.view.groups["a"].target = 2_000_000_000
    scene.update()
    assert scene.registry.counts["a"].upcoming == 9  # the maximum is 10
    scene.pod("p", "1500m", owner="p")
    scene.pod("q", "1500m", owner="q")
    assert not scene.decide().scale_up.raises


async def test_a_target_is_never_lowered_below_the_minimum() -> None:
    scene = Scene()
    scene.group("a", 3, 10)
    scene.view.groups["a"].target = 5
    scene.update()
    await scene.clock.advance(901, settle=1)
    assert scene.update().too_high == {"a": 2}
