"""One simulation: a scenario under a policy, tick by tick, and what it came to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from cloud import cost
from tests.simulation.machines import NodeScaler
from tests.simulation.pools import PoolScaler
from tests.simulation.replicas import PERIOD, ReplicaScaler
from tests.simulation.scenarios import Accident, Policy, Scenario
from tests.simulation.site import CORES, Counters, Site
from tests.simulation.traffic import DAY, HOUR, MINUTE

TICK = 5.0
WARM_UP = HOUR / 2  # before anything counts
FLAP = 300.0


@dataclass
class Outcome:
    """`short`: minutes in which pods were too few at some moment; `unserved`: share of the demand that found no pod;
    `shortages`: seconds that each of them lasted; `flaps`: changes of replicas back and forth within five minutes."""

    seconds: float = 0.0
    minutes: int = 0
    short: int = 0
    unserved: float = 0.0
    shortages: list[float] = field(default_factory=list)
    dollars: float = 0.0
    core_hours: float = 0.0
    rises: int = 0
    falls: int = 0
    flaps: int = 0
    most_replicas: int = 0
    least_replicas: int = 1 << 30
    most_nodes: int = 0
    least_working: int = 1 << 30
    passes: int = 0
    counters: Counters = field(default_factory=Counters)
    changes: list[tuple[float, int, int]] = field(default_factory=list)
    nodes_at: dict[int, int] = field(default_factory=dict)

    @property
    def dollars_per_day(self) -> float:
        return self.dollars / self.seconds * DAY

    @property
    def short_share(self) -> float:
        return self.short / self.minutes

    def reaction(self, share: float) -> float:
        """Seconds that a shortage lasted, at this quantile; 0 without any."""
        return quantile(self.shortages, share)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not exceeded by `share` of all."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def flaps(changes: Sequence[tuple[float, int, int]], within: float = FLAP) -> int:
    """Changes that turn round the one before, soon after it."""
    found = 0
    for (before, old, new), (now, older, newer) in itertools.pairwise(changes):
        found += (new - old) * (newer - older) < 0 and now - before < within
    return found


class Run:
    """A scenario under way. `check` holds at every tick."""

    def __init__(self, scenario: Scenario, policy: Policy, seed: int = 1) -> None:
        self.scenario, self.policy = scenario, policy
        aim = policy.aim
        needed = math.ceil(scenario.demand(0.0) / (aim.percent / 100))
        self.site = Site(seed=seed, replicas=min(max(aim.low, needed), aim.high))
        for group in policy.groups():
            self.site.requests.create_group(group)
        self.site.requests.set_market(0.0, scenario.interruptions, None, seed)
        self.site.reconcile()
        self.replicas = ReplicaScaler(self.site, policy.aim)
        self.nodes: NodeScaler | PoolScaler = (
            PoolScaler(self.site, spot=policy.pool == "spot") if policy.pool else NodeScaler(self.site, policy.options)
        )
        self.outcome = Outcome()
        self._accidents = sorted(scenario.accidents, key=lambda each: each.at)
        self._short_since: float | None = None
        self._short_minute = -1
        self._spent_before = 0.0

    def to_end(self) -> Outcome:
        """All of it."""
        ticks = int((WARM_UP + self.scenario.lasts) / TICK)
        demand = self.scenario.demand(0.0)
        begun = False
        for number in range(1, ticks + 1):
            now = number * TICK
            since = now - WARM_UP
            if not begun and since >= 0:
                begun = True
                self._begin(now)
            while self._accidents and since >= self._accidents[0].at:
                self._happen(self._accidents.pop(0))
            self.site.step(now)
            if now % PERIOD == 0:
                demand = self.scenario.demand(max(since, 0.0))
                self.replicas.meter.scrape(demand)
                self.replicas.look(demand)
            if now % self.policy.options.scan_interval == 0:
                self.nodes.look()
            if since > 0:
                self._account(since, demand)
        return self._end()

    def _begin(self, now: float) -> None:
        """From here on it counts."""
        self._spent_before = cost.total(self.site.core.state, now).total
        self.site.counters = Counters()
        self.replicas.changes.clear()

    def _happen(self, accident: Accident) -> None:
        match accident.what:
            case "zone fails":
                self.site.fail_zone(accident.zone)
            case "zone works":
                self.site.restore_zone(accident.zone)
            case "metrics stop" | "metrics come":
                self.replicas.meter.broken = accident.what == "metrics stop"
            case unknown:
                raise ValueError(unknown)

    def _account(self, since: float, demand: float) -> None:
        out, site = self.outcome, self.site
        working = site.working
        lacking = demand - working * CORES
        out.core_hours += demand * TICK / HOUR
        minute = int(since // MINUTE)
        if lacking > 1e-9:
            out.unserved += lacking * TICK / HOUR
            if minute != self._short_minute:
                self._short_minute = minute
                out.short += 1
            if self._short_since is None:
                self._short_since = since
        elif self._short_since is not None:
            out.shortages.append(since - self._short_since)
            self._short_since = None
        out.least_working = min(out.least_working, working)
        out.most_replicas = max(out.most_replicas, site.replicas)
        out.least_replicas = min(out.least_replicas, site.replicas)
        out.most_nodes = max(out.most_nodes, len(site.nodes))
        if since % HOUR == 0:
            out.nodes_at[int(since // HOUR)] = len(site.nodes)
        self._check()

    def _check(self) -> None:
        for group in self.site.core.state.groups.values():
            assert group.min <= group.desired <= group.max, "a group left its bounds"

    def _end(self) -> Outcome:
        out = self.outcome
        out.seconds = self.scenario.lasts
        out.minutes = int(self.scenario.lasts // MINUTE)
        if self._short_since is not None:
            out.shortages.append(self.scenario.lasts - self._short_since)
        out.dollars = cost.total(self.site.core.state, self.site.now).total - self._spent_before
        out.unserved = out.unserved / out.core_hours if out.core_hours else 0.0
        out.changes = self.replicas.changes
        out.rises = sum(new > old for _, old, new in out.changes)
        out.falls = len(out.changes) - out.rises
        out.flaps = flaps(out.changes)
        out.counters = self.site.counters
        out.passes = self.nodes.passes
        return out
