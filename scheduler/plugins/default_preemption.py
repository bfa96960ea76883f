"""DefaultPreemption: for a pod that fits nowhere, the cheapest set of less important pods to remove for it.

Decides only: the scheduler deletes the victims. What all nodes could offer without their less important pods is one
array operation; nodes that would not do even then are out. On those left (enough of them, from a random one on) the
removal is simulated, and as many victims as possible are reprieved.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from scheduler.framework.columns import IntArray
from scheduler.framework.decision import FitError, available_message
from scheduler.framework.events import Action, EventResource, Registration
from scheduler.framework.interface import Attempt, FreeingFilterPlugin, PostFilterResult
from scheduler.framework.node_check import NodeCheck
from scheduler.framework.nominations import Nominations
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.preemption import Budget, Candidate, candidate_count, pick, reprieve
from scheduler.framework.room import Room
from scheduler.framework.snapshot import PODS_ROW, ClusterSnapshot

NEVER = "not eligible due to preemptionPolicy=Never."
LEAVING = "not eligible due to a terminating pod on the nominated node."
NOT_HELPFUL = "Preemption is not helpful for scheduling"
NO_VICTIMS = "No preemption victims found for incoming pod"

Budgets = Callable[[], Sequence[Budget]]


def no_budgets() -> Sequence[Budget]:
    return ()


def chosen_from(
    candidates: Sequence[Candidate], pod: PodInfo, snapshot: ClusterSnapshot, nominations: Nominations
) -> PostFilterResult:
    """The cheapest candidate as a result."""
    chosen = pick(candidates)
    node = snapshot.name_at(chosen.column)
    return PostFilterResult("", node, chosen.victims, tuple(nominations.behind(pod, node)), tuple(candidates))


class DefaultPreemption:
    """PostFilter."""

    name = "DefaultPreemption"

    def __init__(
        self,
        budgets: Budgets = no_budgets,
        *,
        rng: random.Random | None = None,
        percentage: int = 10,
        least: int = 100,
    ) -> None:
        self.budgets = budgets  # where the scheduler's informers are known, it replaces this
        self._rng = rng if rng is not None else random.Random(0)
        self._percentage = percentage
        self._least = least

    def registrations(self) -> Sequence[Registration]:
        return (Registration(EventResource.ASSIGNED_POD, Action.DELETE),)

    def post_filter(
        self, pod: PodInfo, snapshot: ClusterSnapshot, error: FitError, attempt: Attempt
    ) -> PostFilterResult | None:
        why_not = self._ineligible(pod, snapshot, error, attempt)
        if why_not:
            return PostFilterResult(f"preemption: {why_not}")
        tried = error.resolvable_columns()
        told: Counter[str] = Counter({NOT_HELPFUL: error.node_count - len(tried)})
        candidates = self._candidates(pod, snapshot, tried, attempt, told) if len(tried) else []
        if not candidates:
            reasons = {reason: count for reason, count in told.items() if count}
            return PostFilterResult(f"preemption: {available_message(error.node_count, reasons)}", "")
        return chosen_from(candidates, pod, snapshot, attempt.nominations)

    @staticmethod
    def _ineligible(pod: PodInfo, snapshot: ClusterSnapshot, error: FitError, attempt: Attempt) -> str:
        if pod.spec.preemptionPolicy == "Never":
            return NEVER
        promised = snapshot.column(attempt.nominations.node_of(pod.uid) or pod.nominated_node)
        if promised is None:
            return ""
        hopeless = any(promised in refusal.columns for refusal in error.refusals if not refusal.resolvable)
        record = snapshot.records[promised]
        if hopeless or record is None:
            return ""
        leaving = any(
            each.priority < pod.priority and (each.leaves_by_preemption or each.uid in attempt.nominations.evicting)
            for each in record.pods.values()
        )
        return LEAVING if leaving else ""

    def _candidates(
        self, pod: PodInfo, snapshot: ClusterSnapshot, tried: IntArray, attempt: Attempt, told: Counter[str]
    ) -> list[Candidate]:
        """Nodes to choose from; why the others are none is added to `told`."""
        check = NodeCheck(attempt.filters, pod, snapshot, attempt.nominations.ahead_of(pod))
        freed = snapshot.taken_below(pod.priority)
        lacking_victims = freed[PODS_ROW, tried] == 0
        told[NO_VICTIMS] += int(lacking_victims.sum())
        columns = self._rid_of_hopeless(check, snapshot, tried[~lacking_victims], freed, told)
        enough = candidate_count(len(tried), self._percentage, self._least)
        if len(columns):
            columns = np.roll(columns, -self._rng.randrange(len(columns)))
        budgets = self.budgets()
        candidates: list[Candidate] = []
        harmless = 0
        room = Room.of(check, pod, snapshot, freed)
        for column in columns.tolist():
            record = snapshot.records[column]
            assert record is not None
            if room is not None and not check.is_promised(record.name):
                candidate: Candidate | None = room.candidate(record, budgets)
            else:
                candidate = self._simulate(pod, snapshot, column, check, budgets, told)
            if candidate is None:
                continue
            candidates.append(candidate)
            harmless += not candidate.violations
            if harmless and len(candidates) >= enough:
                break
        return candidates

    @staticmethod
    def _rid_of_hopeless(
        check: NodeCheck, snapshot: ClusterSnapshot, columns: IntArray, freed: IntArray, told: Counter[str]
    ) -> IntArray:
        """Leave out nodes that would be refused even without any less important pod, all at once.

        Only when the filter that knows comes first among those that removing pods could turn: else the reason might
        be another one's.
        """
        if not check.moving or not len(columns):
            return columns
        plugin, state = check.moving[0]
        if not isinstance(plugin, FreeingFilterPlugin):
            return columns
        for refusal in plugin.refusals_if_freed(state, snapshot, columns, freed):
            for reason in refusal.reasons:
                told[reason] += len(refusal.columns)
            columns = np.setdiff1d(columns, refusal.columns)
        return columns

    @staticmethod
    def _simulate(
        pod: PodInfo,
        snapshot: ClusterSnapshot,
        column: int,
        check: NodeCheck,
        budgets: Sequence[Budget],
        told: Counter[str],
    ) -> Candidate | None:
        record = snapshot.records[column]
        assert record is not None
        lower = [each for each in record.pods.values() if each.priority < pod.priority]
        snapshot.fork()
        try:
            for each in lower:
                snapshot.remove_pod(each.uid)
            refusal = check.refusal(column)
            if refusal is not None:
                for reason in refusal.reasons:
                    told[reason] += 1
                return None

            def spare(victim: PodInfo) -> bool:
                snapshot.add_pod(victim, record.name)
                if check.fits(column):
                    return True
                snapshot.remove_pod(victim.uid)
                return False

            victims, violations = reprieve(lower, budgets, spare)
            return Candidate(column, victims, violations)
        finally:
            snapshot.revert()
