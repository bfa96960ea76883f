"""What must hold in every simulated day, whatever the traffic and the accidents; never exact numbers.

`Run` and the scalers check at every step that replicas and groups stay within their bounds, that nothing changes inside
the tolerance, and that no more replicas are wanted than the traffic of the window needs.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from cloud.model import SPOT_FACTOR, ZONES, standard_types
from tests.simulation import report, traffic
from tests.simulation.__main__ import PAGE
from tests.simulation.run import WARM_UP, Outcome, Run, flaps, quantile
from tests.simulation.scenarios import MOST, POLICIES, SCENARIOS, TYPE, Accident, Scenario
from tests.simulation.traffic import DAY, HOUR, MINUTE

SCENARIO = {each.name: each for each in SCENARIOS}
POLICY = {each.name: each for each in POLICIES}
PRICE = standard_types()[TYPE].pricePerHour
CORES = 4
GROUPS = [each.name for each in POLICIES if not each.pool]
POOLS = [each.name for each in POLICIES if each.pool]


@cache
def outcome(scenario: str, policy: str) -> Outcome:
    return Run(SCENARIO[scenario], POLICY[policy]).to_end()


CASES = {
    "day": ["default", "fast scale-down", "headroom", "spot", "node pool"],
    "week": ["default"],
    "flash crowd": list(POLICY),
    "wild spot market": ["spot"],
    "zone failure": ["default", "headroom", "spot", *POOLS],
    "metrics outage": ["default", *POOLS],
}


@pytest.mark.parametrize(
    ("scenario", "policy"),
    [pytest.param(scenario, policy, id=f"{scenario}, {policy}") for scenario in CASES for policy in CASES[scenario]],
)
def test_every_day_keeps_the_promises(scenario: str, policy: str) -> None:
    out, rules, aim = outcome(scenario, policy), SCENARIO[scenario], POLICY[policy].aim
    peak = max(rules.demand(minute * MINUTE) for minute in range(int(rules.lasts / MINUTE)))
    assert aim.low <= out.least_replicas <= out.most_replicas <= aim.high
    assert out.most_replicas <= math.ceil(peak / (aim.percent / 100) * 1.1) + 2, "not to the maximum by mistake"
    # A pool packs as tightly as it can, so that all pods may go down with one machine.
    assert out.least_working > 0 or POLICY[policy].pool, "somebody always answers"
    # What it costs lies between what the work needs at the lowest price and all machines of all groups.
    floor = out.core_hours / CORES * PRICE * SPOT_FACTOR
    assert floor < out.dollars
    if not POLICY[policy].pool:
        assert out.dollars < len(POLICY[policy].groups()) * MOST * PRICE * out.seconds / HOUR
    # Bounded by what the most replicas fill, and by one machine more in each of three zones.
    assert out.dollars < (math.ceil(out.most_replicas / CORES) + 4) * PRICE * out.seconds / HOUR
    assert out.short_share < 0.03
    assert all(lasted < 15 * MINUTE for lasted in out.shortages), "every shortage ends"


@pytest.mark.parametrize("policy", ["default", "headroom", "spot"])
def test_a_day_does_not_flap_with_the_usual_window(policy: str) -> None:
    assert outcome("day", policy).flaps == 0


def test_a_day_follows_its_traffic() -> None:
    out = outcome("day", "default")
    assert out.nodes_at[15] >= 2 * out.nodes_at[3]
    assert out.counters.nodes_added == out.counters.nodes_removed > 0
    assert out.rises > 3 and out.falls > 3


def test_policies_trade_money_for_service_as_they_should() -> None:
    for scenario in ("day", "flash crowd"):
        default = outcome(scenario, "default")
        assert outcome(scenario, "fast scale-down").dollars < default.dollars < outcome(scenario, "headroom").dollars
        assert outcome(scenario, "headroom").unserved <= default.unserved
        assert outcome(scenario, "spot").dollars < default.dollars / 1.5
        assert outcome(scenario, "node pool").dollars < default.dollars


def test_a_wild_market_interrupts_more_and_service_stays() -> None:
    calm, wild = outcome("day", "spot"), outcome("wild spot market", "spot")
    assert wild.counters.interruptions > 3 * max(1, calm.counters.interruptions)
    assert wild.short_share < 0.01
    assert wild.dollars < outcome("day", "default").dollars
    assert outcome("day", "default").counters.interruptions == 0


def test_a_dead_zone_is_made_up_for_elsewhere() -> None:
    out = outcome("zone failure", "default")
    assert out.shortages and max(out.shortages) < 10 * MINUTE
    assert out.counters.evicted > 0
    assert out.most_nodes >= 4


def test_nothing_is_scaled_while_metrics_are_missing() -> None:
    scenario = SCENARIO["metrics outage"]
    (begins, _), (ends, _) = [(each.at + WARM_UP, each.what) for each in scenario.accidents]

    def changes(accidents: tuple[Accident, ...]) -> list[float]:
        out = Run(replace(scenario, accidents=accidents), POLICY["default"]).to_end()
        return [when for when, _, _ in out.changes if begins + MINUTE < when < ends]

    assert changes(()), "the traffic of that hour asks for more"
    assert changes(scenario.accidents) == []
    assert any(ends <= when < ends + MINUTE for when, _, _ in outcome("metrics outage", "default").changes)


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_even_traffic_settles_for_good(share: float) -> None:
    """Inside the tolerance nothing moves: neither pods nor nodes."""
    even = Scenario("even", 4 * HOUR, traffic.noisy(traffic.flat(6), share), "")
    out = Run(even, POLICY["default"]).to_end()
    assert out.changes == []
    assert (out.counters.nodes_added, out.counters.nodes_removed, out.counters.evicted) == (0, 0, 0)


def test_the_same_seed_is_the_same_history_and_another_one_is_not() -> None:
    def told(seed: int) -> tuple[str, ...]:
        return report.row(POLICY["spot"], Run(short, POLICY["spot"], seed).to_end())

    short = Scenario("short", 3 * HOUR, traffic.flat(8), "", interruptions=1.0)
    assert told(1) == told(1) != told(2)


@settings(max_examples=8, phases=[Phase.explicit, Phase.reuse, Phase.generate])  # shrinking would take minutes
@given(
    levels=st.lists(st.floats(0.0, 20.0), min_size=3, max_size=6),
    policy=st.sampled_from(sorted(GROUPS)),
    zone_at=st.floats(0.0, 5400.0),
    metrics_at=st.floats(0.0, 5400.0),
    seed=st.integers(0, 1000),
)
def test_no_traffic_and_no_accident_breaks_the_rules(
    levels: list[float], policy: str, zone_at: float, metrics_at: float, seed: int
) -> None:
    """The checks at every step are what is tested; and that somebody answers when all is over."""
    accidents = (
        Accident(zone_at, "zone fails", "local-b"),
        Accident(zone_at + 1200, "zone works", "local-b"),
        Accident(metrics_at, "metrics stop"),
        Accident(metrics_at + 600, "metrics come"),
    )
    each = 7200 / len(levels)
    steps = Scenario("steps", 7200, lambda now: levels[min(int(now / each), len(levels) - 1)], "", accidents, 1.0)
    run = Run(steps, POLICY[policy], seed)
    out = run.to_end()
    assert run.site.working >= 1
    assert out.least_replicas >= POLICY[policy].aim.low


@pytest.mark.parametrize("policy", POOLS)
@pytest.mark.parametrize("zone", ZONES[:2])
def test_pools_bear_steps_interruptions_and_a_dead_zone(policy: str, zone: str) -> None:
    """The checks at every step: the cheapest first, and no replacement that does not save."""
    accidents = (Accident(1800, "zone fails", zone), Accident(3000, "zone works", zone))
    levels = [3, 12, 1, 7]
    steps = Scenario("steps", 7200, lambda now: levels[min(int(now / 1800), 3)], "", accidents, 4.0)
    run = Run(steps, POLICY[policy])
    out = run.to_end()
    assert run.site.working == run.site.replicas
    assert out.counters.nodes_removed > 0
    assert len(run.site.machines) <= math.ceil(run.site.replicas / 2) + 1, "what nobody needs goes"


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        pytest.param([], 0, id="none"),
        pytest.param([(0, 2, 4), (60, 4, 6)], 0, id="one way"),
        pytest.param([(0, 2, 4), (60, 4, 3), (120, 3, 4)], 2, id="to and fro"),
        pytest.param([(0, 2, 4), (600, 4, 3)], 0, id="long after"),
    ],
)
def test_flaps_are_turns_soon_after(changes: list[tuple[float, int, int]], count: int) -> None:
    assert flaps(changes) == count


@pytest.mark.parametrize(
    ("values", "share", "wanted"),
    [([], 0.5, 0.0), ([3.0], 0.99, 3.0), ([1.0, 2.0, 3.0, 4.0], 0.5, 2.0), ([4.0, 1.0, 3.0, 2.0], 0.99, 4.0)],
)
def test_quantiles(values: list[float], share: float, wanted: float) -> None:
    assert quantile(values, share) == wanted


def test_traffic_is_what_it_is_called() -> None:
    day = traffic.day(2, 14, peak=15)
    assert day(15 * HOUR) == pytest.approx(14) and day(3 * HOUR) == pytest.approx(2)
    week = traffic.week(2, 14, weekend=0.5)
    assert week(5 * DAY + 15 * HOUR) == pytest.approx(7) and week(7 * DAY + 15 * HOUR) == pytest.approx(14)
    crowd = traffic.crowd(traffic.flat(3), HOUR, MINUTE, HOUR, 4)
    assert [crowd(at) for at in (0, HOUR + 30, HOUR + MINUTE, 3 * HOUR)] == pytest.approx([3, 7.5, 12, 3])
    noisy = traffic.noisy(traffic.flat(10), 0.1)
    assert all(9 <= noisy(minute * MINUTE) <= 11 for minute in range(200))
    assert noisy(61) == noisy(119) != noisy(121)


def test_the_page_shows_every_policy_in_every_scenario() -> None:
    made = report.page((scenario, policy, outcome("day", "default")) for scenario in SCENARIOS for policy in POLICIES)
    for text in (made, Path(PAGE).read_text()):
        for scenario in SCENARIOS:
            part = text.partition(f"## {scenario.name.capitalize()}\n")[2].partition("\n## ")[0]
            assert [line.split(" | ")[0] for line in part.splitlines()[5:]] == [f"| {each.name}" for each in POLICIES]
