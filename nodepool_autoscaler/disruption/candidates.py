"""Which nodes may be disrupted at all, and why the others not. Pure.

Source: karpenter.sh, "Disruption"; the messages are upstream's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from nodepool_autoscaler.disruption.blocking import PodBudget, blocking
from nodepool_autoscaler.disruption.budgets import PoolCount
from nodepool_autoscaler.disruption.cost import disruption_cost
from nodepool_autoscaler.disruption.pods import Elapsed, reschedulable
from nodepool_autoscaler.model import NodeState, Pool, World
from nodepool_autoscaler.names import DO_NOT_DISRUPT, INSTANCE_TERMINATING
from scheduler.framework.pod_info import PodInfo


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that may go. `pods`: those that need room elsewhere; `cost`: what their move costs the workloads."""

    state: NodeState
    pool: Pool
    pods: tuple[PodInfo, ...]
    cost: float

    @property
    def name(self) -> str:
        return self.state.name

    @property
    def claim(self) -> str:
        return self.state.claim.name if self.state.claim is not None else ""

    @property
    def price(self) -> float:
        """Dollars per hour."""
        return self.state.price

    @property
    def empty(self) -> bool:
        return not self.pods

    @property
    def capacity_type(self) -> str:
        return self.state.offering.capacity_type if self.state.offering is not None else ""

    @property
    def instance_type(self) -> str:
        return self.state.offering.instance_type if self.state.offering is not None else ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a node stays. `reason`: of the event; `node`: name of its NodeState."""

    node: str
    reason: str
    message: str


BLOCKED = "DisruptionBlocked"
UNCONSOLIDATABLE = "Unconsolidatable"


def sentence(text: str) -> str:
    """With a capital letter, as upstream writes events."""
    return text[:1].upper() + text[1:]


@dataclass(frozen=True, slots=True)
class Look:
    """What is known at one moment."""

    world: World
    budgets: Sequence[PodBudget]
    elapsed: Elapsed


def _node_blocks(state: NodeState) -> str:
    claim = state.claim
    assert claim is not None
    if state.node is None:
        return "nodeclaim does not have an associated node"
    if not state.initialized:
        return "node isn't initialized"
    if state.marked or claim.deleting:
        return "node is deleting or marked for deletion"
    if state.nominated:
        return "node is nominated for a pending pod"
    notes = (state.node.metadata.annotations if state.node.metadata is not None else None) or {}
    if "true" in (notes.get(DO_NOT_DISRUPT), claim.annotations.get(DO_NOT_DISRUPT)):
        return f'disruption is blocked through the "{DO_NOT_DISRUPT}" annotation'
    return ""


def judge(state: NodeState, look: Look, *, eventual: bool) -> Candidate | str:
    """The candidate, or why it is none. `eventual`: pods hold the node only if nothing ends its drain in the end."""
    claim = state.claim
    if claim is None:
        return "node isn't managed by karpenter"
    why = _node_blocks(state)
    if why:
        return why
    pool = look.world.pool(claim.pool)
    if pool is None:
        return f"NodePool not found (NodePool={claim.pool})"
    why = blocking(state.pods, look.budgets, look.elapsed)
    if why and not (eventual and claim.termination_grace is not None):
        return why
    moving = tuple(pod for pod in state.pods if reschedulable(pod))
    cost = disruption_cost(state.pods, look.elapsed(claim.created), claim.expire_after)
    return Candidate(state, pool, moving, cost)


def find(look: Look, *, eventual: bool = False) -> tuple[list[Candidate], list[Verdict]]:
    """All candidates of the world, and why the other nodes of pools are none."""
    found: list[Candidate] = []
    verdicts: list[Verdict] = []
    for state in look.world.nodes:
        if state.claim is None:
            continue
        judged = judge(state, look, eventual=eventual)
        if isinstance(judged, Candidate):
            found.append(judged)
        else:
            verdicts.append(Verdict(state.name, BLOCKED, sentence(judged)))
    return found, verdicts


def is_ready(state: NodeState) -> bool:
    conditions = (
        state.node.status.conditions if state.node is not None and state.node.status is not None else None
    ) or ()
    return any(each.type == "Ready" and each.status == "True" for each in conditions)


def counts(world: World) -> Mapping[str, PoolCount]:
    """By pool. Nodes that are not initialized yet count for nothing, so that replacements on their way do not widen a
    budget of percent."""
    total: dict[str, int] = {}
    gone: dict[str, int] = {}
    for state in world.nodes:
        claim = state.claim
        if claim is None or not state.initialized or claim.is_true(INSTANCE_TERMINATING):
            continue
        total[claim.pool] = total.get(claim.pool, 0) + 1
        if state.marked or claim.deleting or not is_ready(state):
            gone[claim.pool] = gone.get(claim.pool, 0) + 1
    return {name: PoolCount(count, gone.get(name, 0)) for name, count in total.items()}


def by_name(candidates: Sequence[Candidate], names: Collection[str]) -> list[Candidate]:
    return [each for each in candidates if each.name in names]
