"""What machines cost, to the cent."""

from __future__ import annotations

import pytest

from cloud import cost
from cloud.model import Instance, State, price_of, standard_types


def instance(name: str, price: float, launched: float | None, ended: float | None = None) -> Instance:
    return Instance(name, "g", "t", "z", price, created=0.0, launched=launched, ended=ended)


def test_a_machine_is_paid_from_launch_to_end() -> None:
    state = State("c", 0.0, spent={"old": 2.0})
    for each in (
        instance("running", 0.5, launched=3600.0),
        instance("ended", 1.0, launched=0.0, ended=1800.0),
        instance("never", 9.0, launched=None, ended=100.0),
    ):
        state.instances[each.name] = each
    bill = cost.by_group(state, 3 * 3600.0)
    assert list(bill) == ["g", "old"]
    assert bill["g"].running == 1
    assert bill["g"].hourly == 0.5
    assert bill["g"].total == pytest.approx(0.5 * 2 + 1.0 * 0.5)
    assert bill["g"].hours == pytest.approx(2.5)
    assert cost.total(state, 3 * 3600.0).total == pytest.approx(3.5)
    assert cost.total(state, 3 * 3600.0).hourly == 0.5


def test_prices_follow_size() -> None:
    assert price_of("2", "2Gi") == 0.0716
    assert standard_types()["standard-4x8"].pricePerHour == 0.16
