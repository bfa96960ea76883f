"""Whether nodes can go, or one cheaper node can take their place: what a simulation means. Pure.

Source: karpenter.sh, "Consolidation". Pods that already wait for room hinder nothing; pods of nodes that go must have
a place on nodes that are initialized, or on one new node that is cheaper than all that go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from nodepool_autoscaler.disruption.budgets import UNDERUTILIZED
from nodepool_autoscaler.disruption.candidates import Candidate
from nodepool_autoscaler.disruption.commands import Command, ConsolidationType
from nodepool_autoscaler.disruption.prices import PriceError, cheaper, cheaper_spot, without_same_type
from nodepool_autoscaler.model import NodeState, Outcome, World
from nodepool_autoscaler.names import SPOT
from scheduler.framework.pod_info import PodInfo

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Simulation:
    """`problems`: why pods of the candidates would not run again, by namespace/name."""

    outcome: Outcome
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def told(self) -> str:
        """The problems as upstream tells them."""
        shown = " ".join(f"{key} => {why}" for key, why in list(self.problems.items())[:_SHOWN])
        others = len(self.problems) - _SHOWN
        return f"not all pods would schedule, {shown}" + (f" and {others} other(s)" if others > 0 else "")


Simulate = Callable[[Sequence[Candidate]], Awaitable[Simulation | None]]
"""The cluster without the candidates; None when one of them is on its way out by now."""


def _uninitialized(state: NodeState) -> str:
    parts = [f"nodeclaim/{state.claim.name}"] if state.claim is not None else []
    if state.node is not None:
        parts.append(f"node/{state.name}")
    return f"would schedule against uninitialized {', '.join(parts)}"


def interpret(
    world: World,
    outcome: Outcome,
    pods: Mapping[str, PodInfo],
    *,
    waiting: Collection[str],
    leaving: Collection[str],
) -> Simulation:
    """What the outcome means for disruption. `pods`: all that were placed, by uid; `waiting`: uids of those that have
    no node yet, which may stay so; `leaving`: of those on nodes that are on their way out, for which room is made
    already, so that it may still be coming."""
    problems = {
        (pods[uid].key if uid in pods else uid): why
        for uid, why in sorted(outcome.errors.items())
        if uid not in waiting
    }
    coming = {state.name: state for state in world.nodes if not state.initialized}
    for uid, name in sorted(outcome.placed.items()):
        if name in coming and uid in pods and uid not in leaving:
            problems.setdefault(pods[uid].key, _uninitialized(coming[name]))
    return Simulation(outcome, problems)


def consolidate(
    candidates: Sequence[Candidate],
    simulation: Simulation,
    consolidation: ConsolidationType,
    *,
    spot_to_spot: bool,
) -> Command | str:
    """The command, or why there is none. The prices of all candidates are known."""
    outcome = simulation.outcome
    if simulation.problems:
        return simulation.told
    command = Command(UNDERUTILIZED, consolidation, tuple(candidates), placed=outcome.placed)
    if not outcome.claims:
        return command
    if len(outcome.claims) > 1:
        return f"Can't remove without creating {len(outcome.claims)} candidates"
    (planned,) = outcome.claims
    limit = command.before
    try:
        if all(each.capacity_type == SPOT for each in candidates) and any(
            each.capacity_type == SPOT for each in planned.offerings
        ):
            if not spot_to_spot:
                return "SpotToSpotConsolidation is disabled, can't replace a spot node with a spot node"
            planned = cheaper_spot(planned, limit, single=len(candidates) == 1)
        else:
            planned = cheaper(planned, limit)
        if consolidation == "multi":
            planned = without_same_type(planned, candidates)
    except PriceError as error:
        return str(error)
    return Command(UNDERUTILIZED, consolidation, tuple(candidates), (planned,), outcome.placed)
