"""Whether a command still holds a while after it was found: pods come and go meanwhile. Pure but for a simulation.

Source: karpenter.sh, "Consolidation"; upstream's validation: every candidate is still one, budgets still allow them
all, and a simulation of now asks for no more than the command has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nodepool_autoscaler.disruption.budgets import Allowance
from nodepool_autoscaler.disruption.candidates import Candidate
from nodepool_autoscaler.disruption.commands import Command
from nodepool_autoscaler.disruption.consolidation import Simulate


def still_empty(command: Command, candidates: Sequence[Candidate], allowance: Allowance) -> Command | str:
    """`candidates`: those that the method would take now. What is left of the command, or why nothing is."""
    names = {each.name for each in command.candidates}
    left = [each for each in candidates if each.name in names and each.empty and allowance.take(each.pool.name)]
    return replace(command, candidates=tuple(left)) if left else f"{len(names)} candidates are no longer valid"


async def still_valid(
    command: Command, candidates: Sequence[Candidate], allowance: Allowance, simulate: Simulate
) -> Command | str:
    """The command with candidates as they are now, or why it holds no more."""
    now = {each.name: each for each in candidates}
    kept = [now[each.name] for each in command.candidates if each.name in now]
    if len(kept) != len(command.candidates):
        return f"{len(command.candidates) - len(kept)} candidates are no longer valid"
    if not all(allowance.take(each.pool.name) for each in kept):
        return "a candidate can no longer be disrupted without violating budgets"
    simulation = await simulate(kept)
    if simulation is None:
        return "a candidate is being deleted"
    if simulation.problems:
        return simulation.told
    claims = simulation.outcome.claims
    renewed = replace(command, candidates=tuple(kept), placed=simulation.outcome.placed)
    if renewed.before < command.before:
        return "the price of a candidate has fallen"
    if not claims and not command.replacements:
        return renewed
    if len(claims) != len(command.replacements):
        return "scheduling simulation produced new results"
    # The simulation looks at no price, so that dearer types are among its own.
    if not set(command.replacements[0].instance_types) <= set(claims[0].instance_types):
        return "scheduling simulation produced new results"
    return renewed
