"""The outcome of one scheduling attempt, and the words for a failed one.

The message is part of the API in practice (people and autoscalers parse it), so it is upstream's to the letter:
`0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable. preemption: 0/3 nodes are available: …`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scheduler.framework.columns import IntArray
from scheduler.framework.interface import PostFilterResult, Refusal

ScoreArray = NDArray[np.float32]
NO_NODES = "no nodes available to schedule pods"


def available_message(node_count: int, reasons: Mapping[str, int]) -> str:
    """Counted reasons, sorted as texts (so that "10 …" comes before "2 …", as upstream has it)."""
    listed = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
    return f"0/{node_count} nodes are available:" + (f" {listed}." if listed else "")


@dataclass(slots=True)
class FitError:
    """Why a pod fits nowhere. Nodes are columns of the snapshot it was decided on; `names` resolves them at once."""

    node_count: int
    refusals: tuple[Refusal, ...] = ()
    plugins: frozenset[str] = frozenset()
    rejection: str = ""
    post_filter_message: str = ""
    post: PostFilterResult = field(default_factory=PostFilterResult)
    _reasons: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        for refusal in self.refusals:
            for reason in refusal.reasons:
                self._reasons[reason] += len(refusal.columns)

    @property
    def reasons(self) -> Mapping[str, int]:
        """How many nodes were refused for each reason."""
        return self._reasons

    def resolvable_columns(self) -> IntArray:
        """Nodes on which removing pods might help, in order."""
        found = [refusal.columns for refusal in self.refusals if refusal.resolvable]
        return np.sort(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)

    def resolvable_count(self) -> int:
        return sum(len(refusal.columns) for refusal in self.refusals if refusal.resolvable)

    def statuses(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Reasons by node; `names` are the snapshot's, by column."""
        by_column = list(names)
        return {by_column[int(column)]: refusal.reasons for refusal in self.refusals for column in refusal.columns}

    @property
    def message(self) -> str:
        if not self.node_count:
            return NO_NODES
        if self.rejection:
            text = f"0/{self.node_count} nodes are available: {self.rejection}."
        else:
            text = available_message(self.node_count, self._reasons)
        return f"{text} {self.post_filter_message}" if self.post_filter_message else text


@dataclass(frozen=True, slots=True)
class Decision:
    """Either a node, with how many were feasible and the winner's score, or an error."""

    node: str = ""
    feasible: int = 0
    score: float = 0.0
    error: FitError | None = None


@dataclass(frozen=True, slots=True)
class NodeVerdict:
    """One node's line in an explanation: its reasons if refused, else its weighted scores by plugin."""

    node: str
    reasons: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    refused_by: str = ""

    @property
    def total(self) -> float:
        return sum(self.scores.values())


@dataclass(frozen=True, slots=True)
class VerdictTable:
    """All nodes' verdicts about one pod, compact: a row of weighted scores per plugin, a column per node."""

    names: Sequence[str]  # "" for columns not in use
    plugins: tuple[str, ...]
    scores: ScoreArray
    refusals: tuple[Refusal, ...]

    @property
    def size(self) -> int:
        """Bytes, about: names are shared by all tables that saw the same nodes."""
        return 500 + self.scores.nbytes + sum(refusal.columns.nbytes for refusal in self.refusals)

    def verdicts(self) -> list[NodeVerdict]:
        refused = {int(column): refusal for refusal in self.refusals for column in refusal.columns}
        return [
            NodeVerdict(name, refused[column].reasons, {}, refused[column].plugin)
            if column in refused
            else NodeVerdict(
                name, (), {plugin: float(self.scores[row, column]) for row, plugin in enumerate(self.plugins)}
            )
            for column, name in enumerate(self.names)
            if name
        ]
