"""What disruption needs of the rest: what there is, and hands that change it.

Two Protocols, implemented over the API server's caches and client, and by tests.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from nodepool_autoscaler.disruption.blocking import PodBudget
from nodepool_autoscaler.model import Claim, DisruptionReason, NodeState, Outcome, PlannedClaim, World
from scheduler.framework.pod_info import PodInfo


class Site(Protocol):
    """What there is."""

    def world(self) -> World:
        """A look at everything; nodes that commands have marked are marked in it."""

    def claim(self, name: str) -> Claim | None:
        """As it is by now."""

    def pod_budgets(self) -> Sequence[PodBudget]:
        """All PodDisruptionBudgets."""

    def waiting(self) -> Sequence[PodInfo]:
        """Pods that wait for room: refused by the scheduler, on no node."""

    def solve(self, world: World, pods: Sequence[PodInfo], *, without: Collection[str] = ()) -> Outcome:
        """See `Solver.solve`."""


class Hands(Protocol):
    """What can be done. Everything that writes may raise StatusError."""

    async def mark(self, state: NodeState, reason: DisruptionReason) -> None:
        """Taint the node karpenter.sh/disrupted:NoSchedule and set its claim's condition DisruptionReason."""

    async def unmark(self, state: NodeState) -> None:
        """Undo `mark`; a node or claim that is gone or being deleted is left alone."""

    async def launch(self, planned: PlannedClaim, reason: DisruptionReason) -> str:
        """Create the claim; its name. From now on it is in every look at the world."""

    def nominate(self, placed: Mapping[str, str], launched: Mapping[str, Sequence[PodInfo]]) -> None:
        """Tell where pods are expected: names of NodeStates by uid; pods by the names of new claims."""

    async def delete_claim(self, claim: Claim) -> None:
        """Let the claim's termination begin; one that is gone is no error."""

    async def set_status(
        self, claim: Claim, conditions: Mapping[str, str | None], last_pod_event: datetime | None = None
    ) -> None:
        """Set conditions to True with such a reason (which is the message too), or remove those that are None."""

    def node_event(self, node: str, reason: str, message: str, *, warning: bool = False) -> None:
        """On a node; nothing happens when there is none of that name. So with the others."""

    def claim_event(self, claim: str, reason: str, message: str, *, warning: bool = False) -> None:
        """On a claim."""

    def pool_event(self, pool: str, reason: str, message: str) -> None:
        """On a NodePool."""
