"""What is simulated: days of traffic with their accidents, and the policies that meet them. Data, no decisions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from cloud.model import ZONES, Group
from cluster_autoscaler.options import GroupOptions, Options
from tests.simulation import traffic
from tests.simulation.replicas import Aim
from tests.simulation.traffic import DAY, HOUR, MINUTE, Traffic

TYPE = "standard-4x16"
BOOT, HEAL = 60.0, 120.0
MOST = 12  # machines of a group


@dataclass(frozen=True)
class Accident:
    """Something that happens at a time: a zone that fails or works again, metrics that stop or come back."""

    at: float
    what: str
    zone: str = ""


@dataclass(frozen=True)
class Scenario:
    """`interruptions`: of spot machines, per machine and hour."""

    name: str
    lasts: float
    demand: Traffic
    about: str
    accidents: tuple[Accident, ...] = ()
    interruptions: float = 0.05


@dataclass(frozen=True)
class Policy:
    """How replicas and machines follow the traffic."""

    name: str
    about: str
    aim: Aim = field(default_factory=Aim)
    options: Options = field(default_factory=lambda: Options(balance_similar_node_groups=True))
    groups: Callable[[], list[Group]] = lambda: on_demand()
    pool: Literal["", "on-demand", "spot"] = ""
    """Machines of a NodePool, and of no group."""


def group(name: str, zone: str, least: int, spot: bool = False) -> Group:
    return Group(
        name=name,
        type=TYPE,
        min=least,
        max=MOST,
        desired=max(least, 0 if spot else 1),
        prefix=name,
        hollow=True,
        spot=spot,
        zones=[zone],
        bootDelay=BOOT,
        healAfter=HEAL,
    )


def on_demand() -> list[Group]:
    """One group in each zone, one machine in each at least."""
    return [group(f"od-{zone[-1]}", zone, 1) for zone in ZONES]


def mostly_spot() -> list[Group]:
    """One machine on demand, the rest on the spot market of every zone."""
    return [group("od-a", ZONES[0], 1), *(group(f"spot-{zone[-1]}", zone, 0, spot=True) for zone in ZONES)]


def _options(**changes: object) -> Options:
    return Options(balance_similar_node_groups=True, **changes)  # type: ignore[arg-type]


FAST = _options(group=GroupOptions(unneeded_time=120.0), delay_after_add=120.0)
PRICE = _options(expanders=("price",))

POLICIES = (
    Policy("default", "Kubernetes' defaults, 60 % of the request, machines on demand in three zones"),
    Policy(
        "fast scale-down",
        "replicas go after 1 minute instead of 5, nodes after 2 instead of 10",
        Aim(window=60),
        FAST,
    ),
    Policy("headroom", "45 % of the request: a third more pods than by default", Aim(percent=45)),
    Policy(
        "spot", "one machine on demand, all others on the spot market (expander `price`)", Aim(), PRICE, mostly_spot
    ),
    Policy(
        "node pool",
        "a NodePool instead of node groups: the cheapest type that fits, consolidated after 30 s",
        groups=list,
        pool="on-demand",
    ),
    Policy("node pool, spot", "such a pool that may also buy spot machines", groups=list, pool="spot"),
)

_day = traffic.day(2, 14)
SCENARIOS = (
    Scenario("day", DAY, traffic.noisy(_day, 0.05), "2 cores at night, 14 in the afternoon, each minute up to 5 % off"),
    Scenario(
        "week", 7 * DAY, traffic.noisy(traffic.week(2, 14), 0.05), "such days, and 40 % of that on Saturday and Sunday"
    ),
    Scenario(
        "flash crowd",
        6 * HOUR,
        traffic.crowd(traffic.noisy(traffic.flat(3), 0.05), 2 * HOUR, MINUTE, HOUR, 4),
        "3 cores, and four times as much within a minute, for an hour",
    ),
    Scenario(
        "wild spot market",
        DAY,
        traffic.noisy(_day, 0.05),
        "the day again; spot machines are interrupted every other hour (else once in 20)",
        interruptions=0.5,
    ),
    Scenario(
        "zone failure",
        6 * HOUR,
        traffic.noisy(traffic.flat(9), 0.05),
        "9 cores; for an hour a zone is dead, and no machine can be had there",
        (Accident(2 * HOUR, "zone fails", ZONES[0]), Accident(3 * HOUR, "zone works", ZONES[0])),
    ),
    Scenario(
        "metrics outage",
        6 * HOUR,
        traffic.crowd(traffic.noisy(traffic.flat(6), 0.05), 2.25 * HOUR, HOUR / 2, 2 * HOUR, 1.4),
        "6 cores, which become 8.4 in the middle of an hour in which the metrics API answers nothing",
        (Accident(2 * HOUR, "metrics stop"), Accident(3 * HOUR, "metrics come")),
    ),
)
