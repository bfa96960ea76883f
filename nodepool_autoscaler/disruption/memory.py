"""What was decided of late, for whoever asks why a node stays or what was tried. Bounded; owns no decision."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from machinery.decisions import facts, table
from nodepool_autoscaler.disruption.candidates import Verdict
from nodepool_autoscaler.disruption.commands import Command
from nodepool_autoscaler.model import NodeState, World
from proto.explain.v1 import explain_pb2 as pb

KEPT_COMMANDS: Final = 50


@dataclass(slots=True)
class Tried:
    """A command. `outcome`: "" while it is under way. `nodes`: names of its NodeStates; `claims`: of NodeClaims."""

    at: str
    command: Command
    outcome: str = ""


@dataclass(slots=True)
class Memory:
    """`verdicts`: why nodes stay, by name, as of the last pass. `allowed` and `left`: disruptions of pools by reason:
    what budgets allow in all, and what of that was left."""

    at: str = ""
    world: World | None = None
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    allowed: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    tried: deque[Tried] = field(default_factory=lambda: deque(maxlen=KEPT_COMMANDS))

    def began(self, at: str, command: Command, outcome: str = "") -> None:
        self.tried.append(Tried(at, command, outcome))

    def ended(self, command: Command, outcome: str) -> None:
        """The command as it was begun."""
        for each in self.tried:
            if each.command is command:
                each.outcome = outcome

    # --- as it is told -----------------------------------------------------------------------------------------------

    def node(self, name: str) -> pb.Decision | None:
        """Why a node (or the node of a claim) stays or goes."""
        state = self._state(name)
        if state is None or state.claim is None:
            return None
        under_way = next((each for each in reversed(self.tried) if not each.outcome and _is_of(each, state)), None)
        verdict = self.verdicts.get(state.name)
        if under_way is not None:
            headline = f"Node {state.name} is being disrupted: {under_way.command.reason}."
        elif state.marked or state.claim.deleting:
            headline = f"Node {state.name} is on its way out."
        elif verdict is not None:
            headline = f"Node {state.name} stays: {verdict.message}."
        else:
            headline = f"Node {state.name} stays: nothing is to be gained by its end."
        told = {
            "pool": state.pool,
            "offering": str(state.offering) if state.offering is not None else "",
            "price": f"${state.price:.4f} per hour" if state.offering is not None else "",
            "reason": verdict.reason if verdict is not None else "",
        }
        made = pb.Decision(headline=headline, time=self.at, facts=facts(told))
        rows = [each for each in self.tried if _is_of(each, state)]
        if rows:
            made.tables.append(commands_table(rows))
        return made

    def budgets_of(self, pool: str) -> pb.Table | None:
        """What a pool's budgets allow."""
        found = self.allowed.get(pool)
        if not found:
            return None
        rows = [[reason, _count(allowed), _count(left)] for reason, (allowed, left) in sorted(found.items())]
        return table("Disruptions that its budgets allow:", ("REASON", "AT ONCE", "LEFT"), rows)

    def commands_of(self, pool: str) -> pb.Table | None:
        """What was tried with a pool's nodes."""
        rows = [each for each in self.tried if any(which.pool.name == pool for which in each.command.candidates)]
        return commands_table(rows) if rows else None

    def _state(self, name: str) -> NodeState | None:
        nodes = self.world.nodes if self.world is not None else ()
        return next(
            (each for each in nodes if each.name == name or (each.claim is not None and each.claim.name == name)), None
        )


def _count(number: int) -> str:
    return "unbounded" if number >= 2**31 - 1 else str(number)


def _is_of(tried: Tried, state: NodeState) -> bool:
    return any(each.name == state.name for each in tried.command.candidates)


def commands_table(tried: list[Tried]) -> pb.Table:
    rows = []
    for each in reversed(tried):
        prices = f"${each.command.before:.4f}", f"${each.command.after:.4f}"
        rows.append([each.at, each.command.reason, str(each.command), *prices, each.outcome or "under way"])
    return table("Disruptions of late:", ("TIME", "REASON", "COMMAND", "BEFORE", "AFTER", "OUTCOME"), rows)
