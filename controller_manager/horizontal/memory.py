"""What an autoscaler remembers between looks, and the next count that follows from it. Pure: time is handed in.

Owns the recommendations of stabilization windows and the changes that policies count; `behavior` has the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from api.models import autoscaling_v2
from controller_manager.horizontal import behavior
from controller_manager.horizontal.behavior import Change, Recommendation, Rules, Verdict

Behavior = autoscaling_v2.HorizontalPodAutoscalerBehavior


class Limits(NamedTuple):
    """What a wanted count became, and what that was decided by: rules of both directions (None: those of old, without
    a behavior), their windows in seconds, and the recommendations that were remembered, with their ages."""

    verdict: Verdict
    rules: tuple[Rules, Rules] | None
    windows: tuple[float, float]
    recent: tuple[tuple[int, float], ...]


@dataclass(slots=True)
class Memory:
    """Of one autoscaler. `now` is seconds of one steady clock."""

    recent: list[Recommendation] = field(default_factory=list)
    ups: list[Change] = field(default_factory=list)
    downs: list[Change] = field(default_factory=list)

    def begin(self, current: int, now: float) -> None:
        """The size that is found first counts as recommended: nothing is taken away before the window is over."""
        if not self.recent:
            self.recent.append(Recommendation(current, now))

    def limit(
        self, spec: Behavior | None, window: float, current: int, wanted: int, low: int, high: int, now: float
    ) -> Limits:
        """The next count, between `low` and `high`; `window`: of scaling down where nothing else is said."""
        recent = tuple((each.replicas, now - each.at) for each in self.recent)
        rules: tuple[Rules, Rules] | None = None
        windows = (0.0, window)
        if spec is None:
            verdict = behavior.plain(current, wanted, self.recent, now, window, low, high)
        else:
            rules = behavior.rules_of(spec, window)
            self.ups = behavior.still_counting(self.ups, *rules, now)
            self.downs = behavior.still_counting(self.downs, *rules, now)
            verdict = behavior.ruled(current, wanted, self.recent, self.ups, self.downs, rules, now, low, high)
            windows = (rules[0].window, rules[1].window)
        self.recent = [*behavior.remembered(self.recent, now, max(windows)), Recommendation(wanted, now)]
        return Limits(verdict, rules, windows, recent)

    def changed(self, spec: Behavior | None, delta: int, now: float) -> None:
        """The size was changed by so many: policies count that."""
        if spec is not None and delta:
            changes = self.ups if delta > 0 else self.downs
            changes.append(Change(abs(delta), now))


def policies(rules: Sequence[tuple[str, int, int]]) -> str:
    """As people read them: `4 Pods or 100 Percent in 15 s`."""
    return ", ".join(f"{value} {kind} in {seconds} s" for kind, value, seconds in rules)
