"""Spot machines on the virtual clock: they live as long as the market lets them, get their notice, and are replaced."""

from __future__ import annotations

import statistics

import pytest

from cloud import cost
from cloud.model import SPOT_FACTOR, Group
from machinery.errors import StatusError
from tests.unit.cloud.test_core import World, world

HOUR = 3600.0
STEP = 10.0


def market(rate: float, *, seed: int = 7, notice: float = 120.0, **settings: object) -> World:
    made = world(**{"spot": True, "min": 0, "max": 100, "desired": 50, **settings})
    made.requests.set_market(made.now, rate, notice, seed)
    return made


def lives(made: World, hours: float) -> list[float]:
    """Seconds from launch to end of the machines that were interrupted within so many hours."""
    for _ in range(int(hours * HOUR / 60)):
        made.tick(60)
    instances = made.core.state.instances.values()
    return [
        each.ended - each.launched
        for each in instances
        if each.reason == "interrupted" and each.launched and each.ended
    ]


def test_machines_are_interrupted_at_the_rate_of_the_market() -> None:
    rate, hours = 0.5, 8
    ended = lives(market(rate), hours)
    assert len(ended) == pytest.approx(50 * rate * hours, rel=0.2)
    # Memoryless: most lives are shorter than the mean.
    assert statistics.median(ended) < statistics.mean(ended)


def test_the_same_seed_has_the_same_history_and_another_one_does_not() -> None:
    first, again, other = lives(market(1.0), 2), lives(market(1.0), 2), lives(market(1.0, seed=8), 2)
    assert first == again != other


def test_a_notice_is_given_ahead_and_the_replacement_is_ordered_at_once() -> None:
    made = market(20.0, desired=1, notice=300.0)
    noticed = 0.0
    while not noticed:
        made.tick(STEP)
        old = made.instance("w-1")
        noticed = made.now if old.notice is not None else 0.0
    assert old.notice == noticed + 300.0
    made.settle()
    assert made.names() == ["w-1", "w-2"]
    made.tick(300.0)
    made.settle()
    assert made.instance("w-1").reason == "interrupted"
    assert "w-1" not in made.there


def test_machines_on_demand_are_never_interrupted() -> None:
    made = market(10.0, spot=False)
    assert lives(made, 4) == []
    assert len(made.names()) == 50


def test_a_group_has_terms_of_its_own() -> None:
    made = market(10.0, interruptions=0.0)
    assert lives(made, 2) == []
    group = made.requests.group("w")
    made.requests.set_interruptions(group, 10.0, made.now)
    assert lives(made, 2)


def test_new_terms_hold_for_machines_that_run() -> None:
    made = market(0.0)
    assert lives(made, 2) == []
    made.requests.set_market(made.now, 5.0, None, None)
    made.tick(60)
    until = [each.interruptAt for each in made.core.state.instances.values() if each.notice is None]
    assert all(at is not None and at > made.now for at in until)
    made.requests.set_market(made.now, 0.0, None, None)
    assert all(each.interruptAt is None for each in made.core.state.instances.values())


def test_spot_machines_cost_the_spot_price() -> None:
    made = market(0.0, desired=2)
    made.settle()
    made.tick(HOUR)
    price = made.core.state.types["standard-2x2"].pricePerHour
    hours = cost.total(made.core.state, made.now).hours
    assert cost.total(made.core.state, made.now).total == pytest.approx(price * SPOT_FACTOR * hours)
    assert hours > 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"interruptions": -1.0}, "interruptions must", id="negative rate"),
        pytest.param({"interruptions": float("nan")}, "interruptions must", id="no number"),
        pytest.param({"notice": -1.0}, "notice must", id="negative notice"),
    ],
)
def test_terms_that_make_no_sense_are_refused(change: dict[str, float], words: str) -> None:
    made = market(1.0)
    with pytest.raises(StatusError, match=words):
        made.requests.set_market(made.now, change.get("interruptions"), change.get("notice"), None)
    assert made.core.state.market.interruptions == 1.0


def test_only_spot_groups_have_interruptions() -> None:
    made = world()
    with pytest.raises(StatusError, match="not of spot machines"):
        made.requests.set_interruptions(made.requests.group("w"), 1.0, made.now)
    with pytest.raises(StatusError, match="only spot machines"):
        made.requests.create_group(
            Group(name="x", type="standard-2x2", min=0, max=1, desired=0, prefix="x", interruptions=1.0)
        )
