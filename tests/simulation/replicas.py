"""The horizontal autoscaler of the simulation: the controller's own evaluation, arithmetic and memory over simulated
samples. What it checks is what must hold for every decision, whatever the traffic.
"""

from __future__ import annotations

from collections.abc import Collection, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from api.models import autoscaling_v2
from controller_manager.horizontal.errors import MetricError
from controller_manager.horizontal.evaluation import Evaluation, Evaluator, Target
from controller_manager.horizontal.memory import Limits, Memory
from controller_manager.horizontal.replicas import Patience, Sample, Samples, Tolerance
from tests.simulation.site import CORES, Site

T = TypeVar("T")
PERIOD = 15.0
WINDOW = 300.0
TOLERANCE = Tolerance()


def finished(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        found: T = end.value
        return found
    raise AssertionError("a simulated call must not wait")


@dataclass(frozen=True)
class Aim:
    """What the autoscaler is told. `window`: of scaling down, seconds; None: no behavior, the controller's 300 s."""

    percent: int = 60
    low: int = 2
    high: int = 40
    window: int | None = None

    @property
    def metrics(self) -> list[autoscaling_v2.MetricSpec]:
        target = autoscaling_v2.MetricTarget(type="Utilization", averageUtilization=self.percent)
        return [
            autoscaling_v2.MetricSpec(
                type="Resource", resource=autoscaling_v2.ResourceMetricSource(name="cpu", target=target)
            )
        ]

    @property
    def behavior(self) -> autoscaling_v2.HorizontalPodAutoscalerBehavior | None:
        if self.window is None:
            return None
        down = autoscaling_v2.HPAScalingRules(stabilizationWindowSeconds=self.window)
        return autoscaling_v2.HorizontalPodAutoscalerBehavior(scaleDown=down)


class Meter:
    """The metrics API: what pods used a scrape ago. `broken`: it does not answer."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._last: dict[str, Sample] = {}
        self._before: dict[str, Sample] = {}
        self.broken = False

    def scrape(self, demand: float) -> None:
        """All pods that answer share the demand (cores), as far as their limits let them."""
        names = self._site.answering()
        used = int(min(CORES, demand / len(names)) * 1000) if names else 0
        sample = Sample(used, self._site.clock.now(), timedelta(seconds=PERIOD))
        self._before, self._last = self._last, dict.fromkeys(names, sample)

    async def resource(self, resource: str, namespace: str, pods: Collection[str], container: str = "") -> Samples:
        if self.broken:
            raise MetricError("the server is currently unable to handle the request")
        found = {name: self._before[name] for name in pods if name in self._before}
        if not found:
            raise MetricError("no metrics returned from resource metrics API")
        return found

    async def pods(self, metric: str, namespace: str, selector: str, metric_selector: str) -> Samples:
        raise MetricError("no custom metrics here")

    async def of_object(self, metric: str, namespace: str, plural: str, name: str, metric_selector: str) -> int:
        raise MetricError("no custom metrics here")

    async def external(self, metric: str, namespace: str, selector: str) -> int:
        raise MetricError("no external metrics here")


class ReplicaScaler:
    """One autoscaler; `look` is one sync. `changes` are (when, from, to)."""

    def __init__(self, site: Site, aim: Aim) -> None:
        self._site = site
        self._aim = aim
        self._metrics, self._behavior = aim.metrics, aim.behavior
        self.meter = Meter(site)
        self._memory = Memory()
        self._evaluator = Evaluator(self.meter, Patience(), site.clock.now, lambda version, kind: None)
        self.changes: list[tuple[float, int, int]] = []
        self._peak: list[tuple[float, float]] = []

    def look(self, demand: float) -> None:
        """As the controller: judge, limit, scale."""
        site, aim = self._site, self._aim
        current, now = site.replicas, site.now
        self._peak = [*(each for each in self._peak if each[0] > now - WINDOW), (now, demand)]
        self._memory.begin(current, now)
        pods = list(site.pods.values())
        target = Target("default", "app=web", current, len(pods), pods)
        found = finished(self._evaluator.evaluate(self._metrics, target, TOLERANCE))
        if found.replicas is None:
            return
        limits = self._memory.limit(self._behavior, WINDOW, current, found.replicas, aim.low, aim.high, now)
        wanted = limits.verdict.replicas
        self._check(found, limits, current, wanted)
        if wanted != current:
            self.changes.append((now, current, wanted))
            self._memory.changed(self._behavior, wanted - current, now)
            site.scale(wanted)

    def _check(self, found: Evaluation, limits: Limits, current: int, wanted: int) -> None:
        aim = self._aim
        assert aim.low <= wanted <= aim.high, "outside of minimum and maximum"
        proposal = found.outcomes[0].proposal
        if proposal is not None and TOLERANCE.holds(proposal.ratio):
            assert found.replicas == current, "changed its mind inside the tolerance"
        lately = [replicas for replicas, age in limits.recent if age < limits.windows[1]]
        if wanted < current:
            assert wanted >= min(aim.high, max([found.replicas or 0, *lately])), (
                "lower than the highest recommendation of the window"
            )
        needed = max(demand for _, demand in self._peak) / (CORES * aim.percent / 100)
        assert wanted <= max(current, int(needed * (1 + TOLERANCE.up)) + 2), "more than the traffic of the window needs"
