import pytest

from cloud.core import Core
from cloud.model import (
    MACHINES,
    MAX_REAL,
    ON_DEMAND,
    SPOT,
    Fault,
    Health,
    Instance,
    Outage,
    SingleOrder,
    State,
    standard_types,
)
from cloud.orders import Orders, Wanted
from cloud.requests import MAX_SIZE
from machinery.errors import BadRequest, NotFound

SMALL = Wanted("standard-1x1", "local-a", ON_DEMAND)
LARGE = Wanted("standard-2x4", "local-b", SPOT)


def orders() -> Orders:
    return Orders(Core(State(cluster="test", since=0.0, types=standard_types())))


def core_of(made: Orders) -> Core:
    return made._core


def test_everything_is_offered_everywhere_and_spot_is_cheaper() -> None:
    made = orders()
    offers = made.offers(0.0)
    assert len(offers) == len(standard_types()) * 3 * 2 and all(each.available for each in offers)
    price = {(each.type.name, each.capacity_type): each.price for each in offers}
    assert price["standard-2x4", SPOT] < price["standard-2x4", ON_DEMAND]


def test_a_machine_from_order_to_end() -> None:
    made = orders()
    core = core_of(made)
    order = SingleOrder("claim-1", labels={"team": "a"}, bootDelay=5.0)
    machine, refused = made.launch(order, [LARGE, SMALL], hollow=False, now=0.0)
    assert machine is not None and not refused
    assert (machine.name, machine.type, machine.zone, machine.spot) == ("machine-1", "standard-2x4", "local-b", True)
    assert made.launch(order, [SMALL], hollow=False, now=1.0) == (machine, [])  # the same token
    assert not core.tick(1.0, {})
    (effect,) = core.tick(6.0, {})
    assert (effect.verb, effect.instance) == ("launch", "machine-1")
    core.done(effect, 7.0)
    assert machine.phase == "running"
    group = core.state.group_of(machine)
    assert group is not None and group.labels == {"team": "a"} and group.name == MACHINES and group.spot
    assert not core.tick(8.0, {"machine-1": Health(MACHINES)})
    made.terminate("machine-1")
    (effect,) = core.tick(9.0, {"machine-1": Health(MACHINES)})
    core.done(effect, 10.0)
    assert effect.verb == "terminate" and core.state.instances["machine-1"].phase == "gone" and not made.machines
    with pytest.raises(NotFound):
        made.terminate("machine-1")


def test_names_that_exist_are_not_given_again() -> None:
    made = orders()
    machine, _ = made.launch(SingleOrder("a"), [SMALL], hollow=False, now=0.0, taken={"machine-1"})
    assert machine is not None and machine.name == "machine-2"


@pytest.mark.parametrize(("hollow", "most"), [(False, MAX_REAL), (True, MAX_SIZE)])
def test_a_cloud_is_finite(hollow: bool, most: int) -> None:
    """Hollow machines are cheap, yet who orders them without a limit must hear an end."""
    made = orders()
    for number in range(most):
        core_of(made).state.instances[f"x-{number}"] = Instance(
            f"x-{number}", "x", "standard-1x1", "local-a", 0, 0, "running"
        )
        core_of(made).state.instances[f"x-{number}"].hollow = hollow
    assert made.launch(SingleOrder("a"), [SMALL, LARGE], hollow=hollow, now=0.0) == (None, [SMALL, LARGE])
    assert made.launch(SingleOrder("a"), [SMALL], hollow=not hollow, now=0.0)[0] is not None


@pytest.mark.parametrize(
    ("outage", "left"),
    [
        pytest.param(Outage(zone="local-a"), LARGE, id="zone"),
        pytest.param(Outage(type="standard-1x1"), LARGE, id="type"),
        pytest.param(Outage(capacityType=ON_DEMAND), LARGE, id="on-demand"),
        pytest.param(Outage(type="standard-1x1", zone="local-b"), SMALL, id="elsewhere"),
        pytest.param(Outage(), None, id="all"),
    ],
)
def test_what_has_no_capacity_is_told(outage: Outage, left: Wanted | None) -> None:
    made = orders()
    made.set_outage(outage, over=False, now=0.0)
    machine, refused = made.launch(SingleOrder("a"), [SMALL, LARGE], hollow=False, now=0.0)
    got = Wanted(machine.type, machine.zone, SPOT if machine.spot else ON_DEMAND) if machine is not None else None
    assert got == left
    assert refused == ([SMALL, LARGE] if left is None else [SMALL] if left == LARGE else [])
    made.set_outage(Outage(), over=True, now=0.0)
    assert not made.outages(0.0)


def test_an_outage_ends_by_itself() -> None:
    made = orders()
    made.set_outage(Outage(until=10.0), over=False, now=0.0)
    assert made.launch(SingleOrder("a"), [SMALL], hollow=False, now=9.0)[0] is None
    assert made.launch(SingleOrder("a"), [SMALL], hollow=False, now=10.0)[0] is not None


def test_faults_of_orders() -> None:
    made = orders()
    made.fail(Fault("never-boots", 1))
    first, _ = made.launch(SingleOrder("a"), [SMALL], hollow=False, now=0.0)
    second, _ = made.launch(SingleOrder("b"), [SMALL], hollow=False, now=0.0)
    assert first is not None and second is not None
    assert [each.instance for each in core_of(made).tick(100.0, {})] == [second.name]
    made.fail(Fault("out-of-capacity", 1))
    assert made.launch(SingleOrder("c"), [SMALL], hollow=False, now=0.0) == (None, [SMALL])


def test_what_makes_no_sense_is_refused() -> None:
    made = orders()
    for order, wanted in (
        (SingleOrder(""), [SMALL]),
        (SingleOrder("a"), []),
        (SingleOrder("a"), [Wanted("none", "local-a", SPOT)]),
        (SingleOrder("a"), [Wanted("standard-1x1", "moon", SPOT)]),
        (SingleOrder("a"), [Wanted("standard-1x1", "local-a", "gift")]),
        (SingleOrder("a", bootDelay=-1.0), [SMALL]),
        (SingleOrder("a", labels={"no value": "x"}), [SMALL]),
    ):
        with pytest.raises(BadRequest):
            made.launch(order, wanted, hollow=False, now=0.0)
    for outage in (Outage(type="none"), Outage(zone="moon"), Outage(capacityType="gift")):
        with pytest.raises(BadRequest):
            made.set_outage(outage, over=False, now=0.0)
    with pytest.raises(BadRequest):
        made.fail(Fault("no such", 1))  # type: ignore[arg-type]
    assert not made.machines
