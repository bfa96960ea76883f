from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodepool_autoscaler import names
from nodepool_autoscaler.disruption.candidates import Candidate
from nodepool_autoscaler.disruption.commands import Command
from nodepool_autoscaler.disruption.prices import NO_CHEAPER, PriceError, cheaper, cheaper_spot, without_same_type
from nodepool_autoscaler.model import NodeState, Offering, PlannedClaim, Pool
from nodepool_autoscaler.requirements import Requirement
from tests.unit.nodepool_autoscaler.scene import demand, offering

POOL = Pool("default")


def planned(*offers: Offering, needs: Sequence[Requirement] = ()) -> PlannedClaim:
    listed = tuple(sorted(offers, key=lambda each: (each.price, *each.key)))
    return PlannedClaim(POOL, (), listed, tuple(needs), {}, {})


def candidate(offer: Offering, name: str = "n") -> Candidate:
    return Candidate(NodeState(name, offering=offer), POOL, (), 1.0)


def of(cores: int, price: float, zone: str = "a", kind: str = names.ON_DEMAND) -> Offering:
    return offering(cores, cores, zone, kind, price)


def values(claim: PlannedClaim, key: str) -> set[str]:
    return {value for each in claim.requirements if each.key == key for value in each.values}


def test_only_what_is_cheaper_stays() -> None:
    found = cheaper(planned(of(1, 0.1), of(2, 0.2), of(4, 0.4)), 0.4)
    assert found.instance_types == ("m-1x1", "m-2x2") and values(found, names.INSTANCE_TYPE) == {"m-1x1", "m-2x2"}
    assert found.price == 0.1


def test_the_same_price_is_not_cheaper() -> None:
    with pytest.raises(PriceError, match=NO_CHEAPER):
        cheaper(planned(of(1, 0.1)), 0.1)


def test_what_is_cheaper_as_spot_is_not_launched_on_demand() -> None:
    found = cheaper(planned(of(1, 0.05, kind=names.SPOT), of(1, 0.3)), 0.2)
    assert values(found, names.CAPACITY_TYPE) == {names.SPOT}


def test_without_cheaper_spot_on_demand_will_do() -> None:
    found = cheaper(planned(of(1, 0.3, kind=names.SPOT), of(1, 0.1)), 0.2)
    assert values(found, names.CAPACITY_TYPE) == {names.ON_DEMAND}


def test_a_type_that_is_dear_somewhere_is_asked_for_in_one_zone_only() -> None:
    found = cheaper(planned(of(1, 0.1, "a"), of(1, 0.5, "b")), 0.2)
    assert values(found, names.ZONE) == {"a"}
    mixed = cheaper(planned(of(1, 0.1, "a"), of(1, 0.5, "b"), of(2, 0.15, "a"), of(2, 0.15, "b")), 0.2)
    assert mixed.instance_types == ("m-2x2",)


def test_flexibility_that_is_asked_for_must_stay() -> None:
    needs = [demand(names.INSTANCE_TYPE, "Exists", least=2)]
    offers = of(1, 0.1), of(2, 0.2), of(4, 0.4)
    assert cheaper(planned(*offers, needs=needs), 0.4).instance_types == ("m-1x1", "m-2x2")
    with pytest.raises(PriceError, match="minValues requirement is not met for label"):
        cheaper(planned(*offers, needs=needs), 0.2)


def test_spot_for_spot_asks_for_fifteen_types_and_no_more() -> None:
    offers = [of(count, count / 100, kind=names.SPOT) for count in range(1, 21)]
    assert len(cheaper_spot(planned(*offers), 1.0, single=True).instance_types) == 15
    assert len(cheaper_spot(planned(*offers), 0.05, single=False).instance_types) == 4
    with pytest.raises(PriceError, match="got 14"):
        cheaper_spot(planned(*offers), 0.15, single=True)


def test_more_than_fifteen_where_flexibility_is_asked_for() -> None:
    offers = [of(count, count / 100, kind=names.SPOT) for count in range(1, 21)]
    needs = [demand(names.INSTANCE_TYPE, "Exists", least=18)]
    assert len(cheaper_spot(planned(*offers, needs=needs), 1.0, single=True).instance_types) == 18


def test_to_keep_one_of_several_is_no_replacement() -> None:
    large, small, tiny = of(8, 0.8), of(2, 0.2), of(1, 0.1)
    nodes = [candidate(large, "a"), candidate(large, "b"), candidate(small, "c")]
    assert without_same_type(planned(tiny, small, large), nodes).instance_types == ("m-1x1",)
    assert without_same_type(planned(tiny), nodes).instance_types == ("m-1x1",)
    with pytest.raises(PriceError):
        without_same_type(planned(small, large), nodes)


def test_a_command_tells_itself() -> None:
    command = Command("Underutilized", "single", (candidate(of(8, 0.8)),), (planned(of(1, 0.1), of(2, 0.2)),))
    told = "replace, terminating 1 nodes (0 pods) n/m-8x8/on-demand and replacing with on-demand node from types"
    assert str(command) == f"{told} m-1x1, m-2x2" and command.savings == pytest.approx(0.7)


offers = st.lists(
    st.builds(
        of,
        st.integers(1, 5),
        st.integers(1, 9).map(lambda number: number / 10),
        st.sampled_from("ab"),
        st.sampled_from((names.SPOT, names.ON_DEMAND)),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda each: each.key,
)


@given(offers, st.integers(1, 10).map(lambda number: number / 10))
def test_whatever_is_launched_is_cheaper(listed: list[Offering], limit: float) -> None:
    try:
        found = cheaper(planned(*listed), limit)
    except PriceError:
        assert all(each.price >= limit for each in listed)
        return
    assert {each.key for each in found.offerings} <= {each.key for each in listed}
    keys = (names.INSTANCE_TYPE, names.CAPACITY_TYPE, names.ZONE)
    for each in listed:  # everything that the claim's requirements admit
        if all(each.labels[key] in values(found, key) for key in keys):
            assert each.price < limit
