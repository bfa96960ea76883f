"""Why no pool has a node for a pod, in upstream's words. Reads the snapshot as it was when the pod was refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from nodepool_autoscaler import names
from nodepool_autoscaler.claims import PoolPlan
from nodepool_autoscaler.model import Amounts
from nodepool_autoscaler.shapes import required_terms, requirements_of
from nodepool_autoscaler.simulation import Simulator
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.resources import CPU
from scheduler.framework.tolerations import keeps_out

NO_POOLS = "no nodepools found"
_MILLION = 1_000_000_000  # milli-CPU: nobody means that


def listed(amounts: Amounts) -> str:
    """`{"cpu":"100m","memory":"128Mi"}`."""
    return msgspec.json.encode(listed_amounts({name: each for name, each in amounts.items() if each})).decode()


def listed_amounts(amounts: Amounts) -> dict[str, str]:
    """As quantities, in the largest units that fit."""
    return {name: _quantity(name, amount) for name, amount in sorted(amounts.items())}


def _quantity(name: str, amount: int) -> str:
    if name == CPU:
        return f"{amount // 1000}" if amount % 1000 == 0 else f"{amount}m"
    for unit, suffix in ((1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")):
        if amount and amount % unit == 0:
            return f"{amount // unit}{suffix}"
    return str(amount)


class Refusals:
    """Collected in one decision."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self.errors: dict[str, str] = {}
        self.by_pool: dict[str, dict[str, str]] = {}

    def add(self, info: PodInfo, plans: Sequence[PoolPlan]) -> None:
        """The pod fits into none of these."""
        error = self._simulator.error(info)
        if error.rejection:
            self.errors[info.uid] = error.rejection
            return
        if not plans:
            self.errors[info.uid] = NO_POOLS
            return
        found = {plan.pool.name: self._why(info, plan) for plan in plans}
        self.by_pool[info.uid] = found
        self.errors[info.uid] = "; ".join(
            why if why.startswith("all available") else f'incompatible with nodepool "{pool}", {why}'
            for pool, why in found.items()
        )

    def _why(self, info: PodInfo, plan: PoolPlan) -> str:
        pool = plan.pool
        for taint in pool.taints:
            told = (taint.key, taint.value or "", taint.effect)
            if keeps_out(info.spec.tolerations or (), (told,)):
                value = f"={taint.value}" if taint.value else ""
                return f"did not tolerate taint (taint={taint.key}{value}:{taint.effect})"
        if not len(plan.shapes):
            return "no instance type met all requirements or had an available offering"
        clash = self._clash(info, plan)
        if clash:
            return clash
        overhead = _sum(PodInfo(pod) for pod in (plan.shapes.daemons[0] if plan.shapes.daemons else ()))
        prefix = f"daemonset overhead={listed(overhead)}, " if overhead else ""
        feasible = plan.shapes.fits(self._simulator.feasible(info))
        if feasible.any():
            if not (feasible & plan.affordable()).any():
                return f'all available instance types exceed limits for nodepool: "{pool.name}"'
            key = plan.flexible(feasible & plan.affordable())
            return f"{prefix}minValues requirement is not met for label(s) (label(s)=[{key}])"
        wanted = {**info.requests, "pods": 1}
        if not plan.shapes.holds(info.requests, 1).any():
            why = "no instance type has enough resources"
            if info.requests.get(CPU, 0) >= _MILLION:
                why += " (CPU request >= 1 Million, m vs M typo?)"
            return f"{prefix}no instance type satisfied resources {listed(wanted)} and requirements ({why})"
        reasons = self._reasons(info, plan)
        if reasons:
            return f"{prefix}{', '.join(reasons)}"
        return (
            f"{prefix}no instance type satisfied resources {listed(wanted)} and requirements "
            "(no instance type which met the scheduling requirements had enough resources)"
        )

    @staticmethod
    def _clash(info: PodInfo, plan: PoolPlan) -> str:
        """What the pod demands of labels that no node of the pool can have."""
        pool = requirements_of(plan.pool)
        found = ""
        for term in required_terms(info):
            found = ""
            for each in term:
                values = set(plan.shapes.values(each.key))
                if any(each.allows(value) for value in values):
                    continue
                known = pool.get(each.key)
                if known is None and each.key not in names.WELL_KNOWN:
                    found = f'incompatible requirements, label "{each.key}" does not have known values'
                else:
                    have = known if known is not None else f"{each.key} In {sorted(v for v in values if v)}"
                    found = f"incompatible requirements, key {each.key}, {each} not in {have}"
                break
            if not found:
                return ""
        return found

    def _reasons(self, info: PodInfo, plan: PoolPlan) -> list[str]:
        ours = set(plan.shapes.columns.tolist())
        found: dict[str, None] = {}
        for refusal in self._simulator.error(info).refusals:
            if ours.intersection(refusal.columns.tolist()) and refusal.plugin != "NodeResourcesFit":
                found |= dict.fromkeys(refusal.reasons)
        return list(found)


def _sum(infos: Iterable[PodInfo]) -> dict[str, int]:
    total: dict[str, int] = {}
    count = 0
    for info in infos:
        count += 1
        for name, amount in info.requests.items():
            total[name] = total.get(name, 0) + amount
    return {**total, "pods": count} if count else {}
