"""What the cloud decides: sizes, failures, healing, interruptions, names; and that no history breaks its promises."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.core import CAPACITY_RETRY, FAILED_RETRY, Core, Effect
from cloud.model import Fault, Group, Health, Instance, State, Taint, standard_types
from cloud.requests import Requests
from machinery.errors import StatusError


@dataclass
class World:
    """A core, time, and machines that do as they are told."""

    core: Core
    requests: Requests
    now: float = 1000.0
    there: dict[str, Health] = field(default_factory=dict)

    def tick(self, seconds: float = 1.0, *, refuse: str = "") -> list[Effect]:
        """One pass after some time, its effects carried out at once."""
        self.now += seconds
        effects = self.core.tick(self.now, self.there)
        for effect in effects:
            if refuse and effect.verb == "launch":
                self.core.failed(effect, self.now, refuse)
                continue
            instance = self.core.state.instances[effect.instance]
            if effect.verb == "launch":
                self.there[effect.instance] = Health(instance.group)
            elif effect.verb == "terminate":
                self.there.pop(effect.instance, None)
            else:
                self.there[effect.instance] = Health(instance.group, healthy=False)
            self.core.done(effect, self.now)
        return effects

    def settle(self, passes: int = 4) -> None:
        for _ in range(passes):
            self.tick()

    def names(self, *phases: str) -> list[str]:
        found = self.core.state.instances.values()
        return sorted(each.name for each in found if each.phase in (phases or ("running",)))

    def instance(self, name: str) -> Instance:
        return self.core.state.instances[name]


def world(**settings: Any) -> World:
    core = Core(State(cluster="c", since=0.0, types=standard_types()))
    given_ = {"type": "standard-2x2", "min": 0, "max": 5, "desired": 2, "prefix": "w", **settings}
    made = World(core, Requests(core))
    made.requests.create_group(Group(name="w", **given_))
    return made


def test_a_group_gets_the_machines_it_wants_in_zones_that_are_even() -> None:
    w = world(desired=4, zones=["a", "b"])
    w.settle()
    assert w.names() == ["w-1", "w-2", "w-3", "w-4"]
    assert sorted(w.instance(name).zone for name in w.names()) == ["a", "a", "b", "b"]
    assert w.tick() == []


def test_a_machine_takes_its_time_to_boot() -> None:
    w = world(desired=1, bootDelay=30.0)
    w.settle()
    assert w.names("pending") == ["w-1"]
    w.tick(30)
    assert w.names() == ["w-1"]


def test_names_that_somebody_else_has_are_passed_over() -> None:
    w = world(desired=1)
    w.there["w-1"] = Health()
    w.settle()
    assert w.names() == ["w-2"]


def test_scaling_in_takes_what_does_not_work_then_the_youngest() -> None:
    w = world(desired=4)
    w.settle()
    w.there["w-2"] = Health("w", healthy=False)
    w.tick()
    group = w.requests.group("w")
    w.requests.resize(group, 2, None, None)
    w.settle()
    assert w.names() == ["w-1", "w-3"]
    assert w.names("gone") == ["w-2", "w-4"]


@pytest.mark.parametrize(
    ("act", "words"),
    [
        pytest.param(lambda r, g: r.increase(g, 0), "must be positive", id="increase by nothing"),
        pytest.param(lambda r, g: r.increase(g, 4), "too large: desired 6, max 5", id="above max"),
        pytest.param(lambda r, g: r.decrease_target(g, 1), "must be negative", id="decrease upwards"),
        pytest.param(lambda r, g: r.decrease_target(g, -1), "existing nodes", id="decrease what exists"),
        pytest.param(lambda r, g: r.delete(g, [r.instance("w-1"), r.instance("w-2")]), "min size", id="below min"),
        pytest.param(lambda r, g: r.resize(g, 9, None, None), "between min 1 and max 5", id="resize above max"),
        pytest.param(lambda r, g: r.resize(g, None, 6, None), "min <= max", id="min above max"),
        pytest.param(lambda r, g: r.resize(g, None, None, 1000), "max <= 200", id="too many real machines"),
        pytest.param(lambda r, g: r.fail(g, Fault("burns")), "want one of", id="unknown failure"),  # type: ignore[arg-type]
        pytest.param(lambda r, g: r.set_delays(g, None, -1.0), "positive", id="negative patience"),
    ],
)
def test_what_is_refused_changes_nothing(act: Any, words: str) -> None:
    w = world(min=1)
    w.settle()
    group = w.requests.group("w")
    with pytest.raises(StatusError, match=words):
        act(w.requests, group)
    assert (group.min, group.max, group.desired) == (1, 5, 2)
    assert w.tick() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"name": "Big"}, "name", id="capital"),
        pytest.param({"name": "x" * 16}, "name", id="long"),
        pytest.param({"name": "hollow"}, "reserved", id="hollow"),
        pytest.param({"name": "w"}, "already exists", id="again"),
        pytest.param({"prefix": "w"}, "already exists", id="same prefix"),
        pytest.param({"type": "huge"}, "instance type", id="unknown type"),
        pytest.param({"desired": 9}, "desired size", id="outside"),
        pytest.param({"min": 3, "max": 2}, "min <= max", id="turned round"),
        pytest.param({"zones": ["a b"]}, "zone", id="zone"),
        pytest.param({"bootDelay": float("nan")}, "delays", id="no number"),
        pytest.param({"labels": {"nanokube.io/node-group": "x"}}, "label", id="our label"),
        pytest.param({"labels": {"a": "b,c=d"}}, "label", id="two labels in one"),
        pytest.param({"taints": [Taint("a", "Never")]}, "taint", id="no effect"),
    ],
)
def test_groups_that_cannot_be(change: dict[str, Any], words: str) -> None:
    w = world()
    settings = {"name": "x", "type": "standard-2x2", "min": 0, "max": 3, "desired": 0, "prefix": "x", **change}
    with pytest.raises(StatusError, match=words):
        w.requests.create_group(Group(**settings))
    assert list(w.core.state.groups) == ["w"]


def test_deleting_nodes_lowers_the_target_once_however_often_it_is_asked() -> None:
    w = world()
    w.settle()
    group = w.requests.group("w")
    for _ in range(2):
        w.requests.delete(group, [w.instance("w-1"), w.instance("w-1")])
    assert group.desired == 1
    w.settle()
    assert (w.names(), w.names("gone")) == (["w-2"], ["w-1"])


def test_decreasing_the_target_drops_only_what_is_not_there_yet() -> None:
    w = world(bootDelay=60.0, desired=0)
    group = w.requests.group("w")
    w.requests.increase(group, 1)
    w.tick()
    w.tick(61)
    w.requests.increase(group, 2)
    w.tick()
    w.requests.decrease_target(group, -2)
    w.settle()
    assert (w.names(), w.names("pending"), group.desired) == (["w-1"], [], 1)


def test_no_capacity_is_told_with_its_class_and_tried_again() -> None:
    w = world(desired=0)
    group = w.requests.group("w")
    w.requests.fail(group, Fault("out-of-capacity"))
    w.requests.increase(group, 1)
    w.settle()
    problem = w.instance("w-1").problem
    assert problem is not None
    assert problem.out_of_resources
    w.requests.fail(group, Fault())
    w.tick(1)
    assert w.names() == []
    w.tick(CAPACITY_RETRY)
    assert (w.names(), w.instance("w-1").problem) == (["w-1"], None)


def test_a_refused_launch_is_told_and_tried_again() -> None:
    w = world(desired=1)
    w.tick(refuse="no room")
    problem = w.instance("w-1").problem
    assert problem is not None
    assert (problem.message, problem.out_of_resources) == ("no room", False)
    assert w.tick() == []
    w.tick(FAILED_RETRY)
    assert w.names() == ["w-1"]


def test_a_machine_that_never_boots_stays_pending_until_it_is_deleted() -> None:
    w = world(desired=0)
    group = w.requests.group("w")
    w.requests.fail(group, Fault("never-boots", count=1))
    w.requests.increase(group, 1)
    w.tick(10_000)
    w.tick(10_000)
    assert w.names("pending") == ["w-1"]
    w.requests.delete(group, [w.instance("w-1")])
    w.requests.increase(group, 1)
    w.settle()
    assert w.names() == ["w-2"]


def test_a_machine_that_never_joins_runs_and_costs() -> None:
    w = world(desired=0)
    group = w.requests.group("w")
    w.requests.fail(group, Fault("never-joins", count=1))
    w.requests.increase(group, 1)
    w.settle()
    assert (w.names(), w.there) == (["w-1"], {})
    w.settle()
    assert w.names() == ["w-1"]


def test_a_machine_that_dies_is_replaced_after_the_groups_patience() -> None:
    w = world(desired=1, healAfter=60.0)
    w.core.state.groups["w"].fault = Fault("dies", count=1, after=100.0)
    w.settle()
    w.tick(100)
    w.tick()
    assert w.instance("w-1").sick == w.now
    w.tick(59)
    assert w.names() == ["w-1"]
    w.tick(1)
    w.settle()
    assert (w.names(), list(w.there)) == (["w-2"], ["w-2"])
    assert w.requests.group("w").desired == 1
    assert [each.reason for each in w.core.told] == ["InstanceUnhealthy", "InstanceReplaced"]


def test_a_machine_that_recovers_in_time_stays() -> None:
    w = world(desired=1, healAfter=60.0)
    w.settle()
    for _ in range(5):
        w.there["w-1"] = Health("w", healthy=False)
        w.tick(40)
        w.there["w-1"] = Health("w")
        w.tick(40)
    assert w.names() == ["w-1"]


def test_without_healing_a_broken_machine_stays() -> None:
    w = world(desired=1)
    w.settle()
    w.there["w-1"] = Health("w", healthy=False)
    w.tick(1e6)
    w.tick(1e6)
    assert w.names() == ["w-1"]


def test_a_machine_removed_by_hand_is_not_wanted_any_more() -> None:
    w = world(min=2)
    w.settle()
    del w.there["w-1"]
    w.settle()
    group = w.requests.group("w")
    assert (w.names(), group.desired, group.min) == (["w-2"], 1, 1)


def test_a_look_from_before_the_launch_is_no_sign_of_removal() -> None:
    w = world(desired=1)
    w.tick()
    (instance,) = w.core.state.instances.values()
    assert instance.phase == "running"
    assert w.core.tick(w.now, {}) == []
    assert w.names() == ["w-1"]


def test_an_interruption_orders_the_replacement_at_once_and_ends_after_the_notice() -> None:
    w = world(desired=1, spot=True)
    w.settle()
    when = w.requests.interrupt(w.instance("w-1"), w.now)
    assert when == w.now + 120
    assert w.requests.interrupt(w.instance("w-1"), w.now + 5) == when
    w.settle()
    assert w.names() == ["w-1", "w-2"]
    w.tick(120)
    w.settle()
    assert (w.names(), w.names("gone"), w.requests.group("w").desired) == (["w-2"], ["w-1"], 1)


def test_a_deleted_group_takes_its_machines_along() -> None:
    w = world()
    w.settle()
    w.requests.delete_group(w.requests.group("w"))
    w.settle()
    assert (w.there, w.core.state.groups) == ({}, {})


steps = st.lists(
    st.one_of(
        st.tuples(st.just("increase"), st.integers(-2, 6)),
        st.tuples(st.just("decrease"), st.integers(-4, 1)),
        st.tuples(st.just("resize"), st.integers(0, 8)),
        st.tuples(st.just("delete"), st.integers(0, 7)),
        st.tuples(st.just("interrupt"), st.integers(0, 7)),
        st.tuples(st.just("break"), st.integers(0, 7)),
        st.tuples(st.just("lose"), st.integers(0, 7)),
        st.tuples(st.just("fault"), st.integers(0, 4)),
        st.tuples(st.just("wait"), st.integers(1, 200)),
        st.tuples(st.just("refuse"), st.integers(1, 30)),
    ),
    max_size=40,
)
MODES = ("", "out-of-capacity", "never-boots", "never-joins", "dies")


@given(steps=steps, low=st.integers(0, 2), heal=st.sampled_from([0.0, 30.0]), delay=st.sampled_from([0.0, 20.0]))
def test_no_history_leads_outside_the_bounds(steps: list[tuple[str, int]], low: int, heal: float, delay: float) -> None:
    w = world(min=low, max=5, desired=3, healAfter=heal, bootDelay=delay)
    group = w.requests.group("w")
    for verb, number in steps:
        live = [each for each in w.core.state.instances.values() if each.phase != "gone"]
        chosen = live[number % len(live)] if live else None
        with contextlib.suppress(StatusError):
            if verb == "increase":
                w.requests.increase(group, number)
            elif verb == "decrease":
                existing = {each.name for each in live if each.exists}
                w.requests.decrease_target(group, number)
                assert existing <= {each.name for each in live if each.phase in ("launching", "running", "deleting")}
            elif verb == "resize":
                w.requests.resize(group, number, None, None)
            elif verb == "delete" and chosen is not None:
                w.requests.delete(group, [chosen])
            elif verb == "interrupt" and chosen is not None:
                w.requests.interrupt(chosen, w.now)
            elif verb == "break" and chosen is not None and chosen.name in w.there:
                w.there[chosen.name] = Health("w", healthy=False)
            elif verb == "lose" and chosen is not None:
                w.there.pop(chosen.name, None)
            elif verb == "fault":
                w.requests.fail(group, Fault(MODES[number], count=2, after=10.0))  # type: ignore[arg-type]
        w.tick(number if verb in ("wait", "refuse") else 1, refuse="no" if verb == "refuse" else "")
        assert group.min <= group.desired <= group.max
        counted = sum(each.counts for each in w.core.state.instances.values())
        assert counted == group.desired
        assert w.there.keys() <= {each.name for each in live} | w.core.state.instances.keys()
    w.requests.fail(group, Fault())
    w.core.state.groups["w"].healAfter = 30.0
    for _ in range(12):
        w.tick(200)
    assert w.tick(200) == [], "the cloud never comes to rest"
    running = {each.name for each in w.core.state.instances.values() if each.exists and each.fault != "never-joins"}
    assert w.there.keys() == running
