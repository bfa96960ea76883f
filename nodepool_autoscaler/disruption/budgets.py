"""How many nodes of a NodePool may be disrupted at once. Pure.

Source: karpenter.sh, "NodePool Disruption Budgets": the most restrictive of the active budgets that name the reason
(or none) holds; percentages round up; schedules are in UTC; what cannot be read allows nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from machinery import cron
from nodepool_autoscaler.model import Budget, DisruptionReason

EMPTY: Final[DisruptionReason] = "Empty"
UNDERUTILIZED: Final[DisruptionReason] = "Underutilized"
DRIFTED: Final[DisruptionReason] = "Drifted"
REASONS: Final[tuple[DisruptionReason, ...]] = (EMPTY, UNDERUTILIZED, DRIFTED)
UNBOUNDED: Final = 2**31 - 1


def active(budget: Budget, now: datetime) -> bool:
    """Whether it holds now. Raises ScheduleError."""
    if not budget.schedule:
        return True
    # Looked at from `duration` ago, a schedule whose next time has come is active: however often it has come since.
    start = now.astimezone(UTC) - timedelta(seconds=budget.duration or 0.0)
    following = cron.parse(budget.schedule).after(start, UTC)
    return following is not None and following <= now


def allows(budget: Budget, now: datetime, total: int) -> int:
    """Of `total` nodes."""
    try:
        if not active(budget, now):
            return UNBOUNDED
        if budget.nodes.endswith("%"):
            return max(0, -(-int(budget.nodes[:-1]) * total // 100))
        return max(0, int(budget.nodes))
    except (ValueError, OverflowError):
        return 0


def allowed(budgets: Sequence[Budget], now: datetime, total: int, reason: DisruptionReason) -> int:
    """How many of `total` nodes may be on their way out at once, for that reason."""
    return min(
        (allows(each, now, total) for each in budgets if not each.reasons or reason in each.reasons), default=UNBOUNDED
    )


@dataclass(frozen=True, slots=True)
class PoolCount:
    """`total`: initialized nodes of a pool whose machine is not terminating yet; `gone`: of these, those not ready or
    on their way out already."""

    total: int = 0
    gone: int = 0


@dataclass(slots=True)
class Allowance:
    """What is left of each pool's budget for one reason; candidates use it up."""

    left: dict[str, int] = field(default_factory=dict)
    configured: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        pools: Mapping[str, Sequence[Budget]],
        counts: Mapping[str, PoolCount],
        now: datetime,
        reason: DisruptionReason,
    ) -> Allowance:
        """For every pool; a pool that is not there allows nothing."""
        made = cls()
        for name, budgets in pools.items():
            count = counts.get(name, PoolCount())
            made.configured[name] = allowed(budgets, now, count.total, reason)
            made.left[name] = max(0, made.configured[name] - count.gone)
        return made

    def take(self, pool: str) -> bool:
        """Use up one disruption; whether there was one."""
        if self.left.get(pool, 0) <= 0:
            return False
        self.left[pool] -= 1
        return True

    def any_left(self, pool: str) -> bool:
        return self.left.get(pool, 0) > 0

    def blocked(self) -> Iterable[str]:
        """Pools whose budgets allow no disruption at all."""
        return sorted(name for name, count in self.configured.items() if count == 0)
