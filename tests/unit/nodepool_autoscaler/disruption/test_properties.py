"""What must hold of any cluster: budgets, protection, falling prices, an end to it. (`Town` watches the first two.)"""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from nodepool_autoscaler import names
from nodepool_autoscaler.disruption.controller import Options
from nodepool_autoscaler.model import Budget, Offering
from tests.unit.nodepool_autoscaler.disruption.town import Town, Work, pool
from tests.unit.nodepool_autoscaler.scene import offering, offerings

OFFERS = offerings(((1, 2), (2, 4), (4, 8), (8, 32)), zones=("a", "b"), capacity_types=(names.ON_DEMAND,))
SPOT_TOO = offerings(((1, 2), (2, 4), (4, 8), (8, 32)), zones=("a", "b"))

works = st.builds(
    Work,
    replicas=st.integers(0, 6),
    cpu=st.sampled_from(("100m", "700m", "1500m")),
    memory=st.sampled_from(("128Mi", "1Gi", "3Gi")),
    least=st.none() | st.integers(0, 7),
    notes=st.sampled_from(({}, {}, {}, {names.DO_NOT_DISRUPT: "true"})),
)
budgets = st.sampled_from(
    (Budget("100%"), Budget("1"), Budget("10%"), Budget("50%", reasons=("Underutilized",)), Budget("0"))
)


@settings(max_examples=8, deadline=None)
@given(
    machines=st.lists(
        st.tuples(st.sampled_from(OFFERS), st.just("default")) | st.tuples(st.sampled_from(SPOT_TOO), st.just("other")),
        max_size=8,
    ),
    gate=st.booleans(),
    listed=st.lists(works, max_size=3),
    limits=st.lists(budgets, min_size=1, max_size=2),
    drifted=st.booleans(),
)
def test_any_cluster_comes_to_rest(
    machines: list[tuple[Offering, str]], gate: bool, listed: list[Work], limits: list[Budget], drifted: bool
) -> None:
    async def check() -> None:
        pools = pool(budgets=tuple(limits)), pool("other", weight=10, requirements=())
        async with Town(*pools, offers=SPOT_TOO, options=Options(spot_to_spot=gate), calm=100.0) as town:
            for offer, of in machines:
                town.add(offer, of)
            for number, work in enumerate(listed):
                town.work[f"app-{number}"] = work
            await town.wait(99)
            wanted = sum(work.replicas for work in listed)
            assert len(town.running()) == wanted
            if drifted:
                town.change_pool(hash="2")
            price = town.price
            await town.wait(2400)
            assert len(town.running()) == wanted
            # Drift replaces by what the pods need, whatever it costs; what remains after it is consolidated again.
            assert drifted or town.price <= price + 1e-9
            before, nodes = len(town.ended), town.nodes
            await town.wait(1200)
            assert town.nodes == nodes and len(town.ended) == before
            assert not town.disruption.queue.busy

    asyncio.run(check())


HOUR = 1200.0
"""Of the simulated day: it passes three times as fast as the clock, so that the test does not take long."""


def wave(hour: int) -> int:
    """Pods by the hour: a working day."""
    return (2, 2, 2, 2, 3, 5, 9, 14, 18, 20, 20, 19, 20, 20, 18, 15, 12, 9, 7, 5, 4, 3, 2, 2)[hour]


async def test_a_day_with_its_wave() -> None:
    async with Town(pool(consolidate_after=30.0, budgets=(Budget("20%"),)), offers=OFFERS) as town:
        town.work["web"] = Work(wave(0), cpu="700m", memory="1Gi", least=1)
        highest = 0.0
        for hour in range(24):
            town.work["web"].replicas = wave(hour)
            await town.wait(HOUR)
            assert len(town.running()) == wave(hour)
            highest = max(highest, town.price)
        # Two pods of 700m and 1 GiB: nothing is cheaper than one machine for both.
        assert town.types == ["m-2x4"]
        assert highest < 20 * offering(1, 2).price
        assert town.cost < 0.75 * 24 * HOUR / 3600 * highest
