"""The ways of disrupting nodes, in the order in which they are tried; each proposes one command at a time.

Source: karpenter.sh, "Disruption": empty nodes go first, all at once; then one drifted node; then as many nodes as can
be spared together; then any single one. Decides only: what it asks of the world are simulations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from machinery.clock import Clock
from nodepool_autoscaler.disruption.budgets import DRIFTED, EMPTY, UNDERUTILIZED, Allowance
from nodepool_autoscaler.disruption.candidates import BLOCKED, UNCONSOLIDATABLE, Candidate, Verdict, sentence
from nodepool_autoscaler.disruption.commands import Command, ConsolidationType
from nodepool_autoscaler.disruption.consolidation import Simulate, consolidate
from nodepool_autoscaler.model import DisruptionReason
from nodepool_autoscaler.names import CONSOLIDATABLE, INSTANCE_TYPE
from nodepool_autoscaler.names import DRIFTED as DRIFTED_CONDITION

MULTI_TIMEOUT: Final = 60.0
SINGLE_TIMEOUT: Final = 180.0
MAX_PARALLEL: Final = 100
_EARLY: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class Proposal:
    """`constrained`: a budget kept a candidate out, so that nothing can be concluded from there being no command.
    `timed_out`: not everything was looked at."""

    command: Command | None = None
    verdicts: list[Verdict] = field(default_factory=list)
    constrained: bool = False
    timed_out: bool = False


class Method(Protocol):
    """`eventual`: takes nodes whose pods hold them, if something ends the drain. `settles`: whether its finding nothing
    means that there is nothing to find until something changes. `checked`: whether a command has to hold for a while.
    """

    reason: DisruptionReason
    consolidation: ConsolidationType
    eventual: bool
    settles: bool
    checked: bool

    def wants(self, candidate: Candidate) -> bool | str:
        """Whether the method is about such a node; a text: why not, to be told the user."""

    async def propose(self, candidates: Sequence[Candidate], allowance: Allowance, simulate: Simulate) -> Proposal:
        """Of candidates that it wants. Uses the allowance up."""


def by_cost(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those whose end disrupts least come first."""
    return sorted(candidates, key=lambda each: (each.cost, each.name))


def _disabled(candidate: Candidate) -> str:
    if candidate.pool.consolidate_after is None:
        return f'NodePool "{candidate.pool.name}" has consolidation disabled'
    return ""


def _ripe(candidate: Candidate) -> bool:
    return candidate.state.claim is not None and candidate.state.claim.is_true(CONSOLIDATABLE)


def _not_empty(candidates: Iterable[Candidate]) -> list[Candidate]:
    """An empty node that is still there was left to stay by a budget for empty nodes, which another reason must not get
    around."""
    return [each for each in candidates if not each.empty]


class Emptiness:
    """All empty nodes that budgets allow, at once."""

    reason: DisruptionReason = EMPTY
    consolidation: ConsolidationType = "empty"
    eventual = False
    settles = True
    checked = True

    def wants(self, candidate: Candidate) -> bool | str:
        return _disabled(candidate) or (candidate.empty and _ripe(candidate))

    async def propose(self, candidates: Sequence[Candidate], allowance: Allowance, simulate: Simulate) -> Proposal:
        chosen = [each for each in by_cost(candidates) if each.empty and allowance.take(each.pool.name)]
        constrained = len(chosen) < sum(each.empty for each in candidates)
        command = Command(EMPTY, "empty", tuple(chosen)) if chosen else None
        return Proposal(command, constrained=constrained)


class Drift:
    """One drifted node at a time: empty ones first, then those that drifted first."""

    reason: DisruptionReason = DRIFTED
    consolidation: ConsolidationType = ""
    eventual = True
    settles = False
    checked = False

    def wants(self, candidate: Candidate) -> bool | str:
        return candidate.state.claim is not None and candidate.state.claim.is_true(DRIFTED_CONDITION)

    @staticmethod
    def _order(candidate: Candidate) -> tuple[bool, datetime, str]:
        claim = candidate.state.claim
        since = claim.conditions[DRIFTED_CONDITION].since if claim is not None else None
        return not candidate.empty, since or _EARLY, candidate.name

    async def propose(self, candidates: Sequence[Candidate], allowance: Allowance, simulate: Simulate) -> Proposal:
        proposal = Proposal()
        for candidate in sorted(candidates, key=self._order):
            if not allowance.any_left(candidate.pool.name):
                proposal.constrained = True
                continue
            simulation = await simulate([candidate])
            if simulation is None:
                continue
            if simulation.problems:
                proposal.verdicts.append(Verdict(candidate.name, BLOCKED, sentence(simulation.told)))
                continue
            outcome = simulation.outcome
            proposal.command = Command(DRIFTED, "", (candidate,), outcome.claims, outcome.placed)
            break
        return proposal


class _Underutilized:
    """What multi-node and single-node consolidation have in common."""

    reason: DisruptionReason = UNDERUTILIZED
    eventual = False
    settles = True
    checked = True

    def __init__(self, clock: Clock, *, spot_to_spot: bool = False) -> None:
        self._clock = clock
        self._spot_to_spot = spot_to_spot

    def wants(self, candidate: Candidate) -> bool | str:
        claim = candidate.state.claim
        if candidate.state.offering is None and claim is not None:
            return f'Instance Type "{claim.labels.get(INSTANCE_TYPE, "")}" not found'  # so that its price is not known
        disabled = _disabled(candidate)
        if not disabled and candidate.pool.consolidation_policy != "WhenEmptyOrUnderutilized":
            disabled = f'NodePool "{candidate.pool.name}" has non-empty consolidation disabled'
        return disabled or _ripe(candidate)


class MultiNode(_Underutilized):
    """As many of the cheapest to disrupt as can go together: found by halving, as upstream does."""

    consolidation: ConsolidationType = "multi"

    async def propose(self, candidates: Sequence[Candidate], allowance: Allowance, simulate: Simulate) -> Proposal:
        able = _not_empty(candidates)
        chosen = [each for each in by_cost(able) if allowance.take(each.pool.name)]
        proposal = Proposal(constrained=len(chosen) < len(able))
        ends = self._clock.monotonic() + MULTI_TIMEOUT
        least, most = 2, min(len(chosen), MAX_PARALLEL)
        while least <= most:
            if self._clock.monotonic() > ends:
                proposal.timed_out = True
                break
            count = (least + most) // 2
            some = chosen[:count]
            simulation = await simulate(some)
            found = (
                consolidate(some, simulation, "multi", spot_to_spot=self._spot_to_spot)
                if simulation is not None
                else "a candidate is being deleted"
            )
            if isinstance(found, Command):
                proposal.command = found
                least = count + 1
            else:
                most = count - 1
        return proposal


class SingleNode(_Underutilized):
    """The first that can go or be replaced by a cheaper one. Pools take turns; those that a timeout left out last time
    come first."""

    consolidation: ConsolidationType = "single"

    def __init__(self, clock: Clock, *, spot_to_spot: bool = False) -> None:
        super().__init__(clock, spot_to_spot=spot_to_spot)
        self._unseen: set[str] = set()

    def _order(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        by_pool: dict[str, list[Candidate]] = {}
        for each in by_cost(_not_empty(candidates)):
            by_pool.setdefault(each.pool.name, []).append(each)
        turns = sorted(by_pool, key=lambda name: (name not in self._unseen, name))
        longest = max(map(len, by_pool.values()), default=0)
        return [by_pool[name][turn] for turn in range(longest) for name in turns if turn < len(by_pool[name])]

    async def propose(self, candidates: Sequence[Candidate], allowance: Allowance, simulate: Simulate) -> Proposal:
        proposal = Proposal()
        unseen = {each.pool.name for each in candidates}
        ends = self._clock.monotonic() + SINGLE_TIMEOUT
        for candidate in self._order(candidates):
            if self._clock.monotonic() > ends:
                proposal.timed_out = True
                break
            unseen.discard(candidate.pool.name)
            if not allowance.any_left(candidate.pool.name):
                proposal.constrained = True
                continue
            simulation = await simulate([candidate])
            if simulation is None:
                continue
            found = consolidate([candidate], simulation, "single", spot_to_spot=self._spot_to_spot)
            if isinstance(found, Command):
                proposal.command = found
                break
            proposal.verdicts.append(Verdict(candidate.name, UNCONSOLIDATABLE, sentence(found)))
        self._unseen = unseen if proposal.timed_out else set()
        return proposal


def all_methods(clock: Clock, *, spot_to_spot: bool = False) -> list[Method]:
    """In the order in which they are tried."""
    return [
        Emptiness(),
        Drift(),
        MultiNode(clock, spot_to_spot=spot_to_spot),
        SingleNode(clock, spot_to_spot=spot_to_spot),
    ]
