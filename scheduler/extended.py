"""A decision in which HTTP extenders have a say.

Owns the order: our filters, theirs, our scores and theirs; where nobody is left, preemption with their consent. Called
by the scheduler's loop for pods that an extender is interested in; the loop waits, so that decisions stay in order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from machinery.errors import InternalError
from scheduler.extenders import Extender, ExtenderError, Extenders
from scheduler.framework.decision import Decision
from scheduler.framework.framework import Framework
from scheduler.framework.interface import PostFilterResult, Refusal
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.plugins.default_preemption import chosen_from

REFUSED = "preemption: no extender agreed to any of the nodes"


async def decide(
    framework: Framework,
    extenders: Extenders,
    pod: PodInfo,
    snapshot: ClusterSnapshot,
    told: Callable[[str], None],
) -> Decision:
    """Raises ExtenderError. `told` hears of ignored failures."""
    names = framework.feasible(pod, snapshot)
    if not names:
        return await _consented(framework.schedule(pod, snapshot), framework, extenders, pod, snapshot, told)
    records = ((name, snapshot.record(name)) for name in names)
    nodes = {name: record.node for name, record in records if record is not None}
    verdict = await extenders.judge(pod, nodes, told)
    decision = framework.schedule(pod, snapshot, verdict.points, _refusals(verdict.refused, snapshot))
    return await _consented(decision, framework, extenders, pod, snapshot, told)


def _refusals(refused: Mapping[str, tuple[str, bool]], snapshot: ClusterSnapshot) -> list[Refusal]:
    by_reason: dict[tuple[str, bool], list[int]] = {}
    for name, told in refused.items():
        column = snapshot.column(name)
        if column is not None:
            by_reason.setdefault(told, []).append(column)
    return [Refusal(np.array(columns), (reason,), can) for (reason, can), columns in by_reason.items()]


async def _consented(
    decision: Decision,
    framework: Framework,
    extenders: Extenders,
    pod: PodInfo,
    snapshot: ClusterSnapshot,
    told: Callable[[str], None],
) -> Decision:
    error = decision.error
    if error is None or not error.post.candidates:
        return decision
    offered = {snapshot.name_at(each.column): each for each in error.post.candidates}
    left = await extenders.preempt(pod, offered, told)
    if left.keys() == offered.keys() and all(left[name] == offered[name] for name in left):
        return decision
    if left:
        error.post = chosen_from(list(left.values()), pod, snapshot, framework.nominations)
    else:
        error.post = PostFilterResult(REFUSED, "")
        error.post_filter_message = REFUSED
    return decision


class ExtenderBinder:
    """Bind, by an extender."""

    def __init__(self, extender: Extender) -> None:
        self.name = extender.name
        self._extender = extender

    def registrations(self) -> tuple[()]:
        return ()

    async def bind(self, pod: PodInfo, node: str) -> None:
        try:
            await self._extender.bind(pod, node)
        except ExtenderError as error:
            raise InternalError(str(error)) from error
