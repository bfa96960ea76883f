"""What is to be done: these nodes go, these claims come first. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from nodepool_autoscaler.disruption.candidates import Candidate
from nodepool_autoscaler.model import DisruptionReason, PlannedClaim

Decision = Literal["delete", "replace"]
ConsolidationType = Literal["", "empty", "multi", "single"]
_SHOWN_TYPES = 5


@dataclass(frozen=True, slots=True)
class Command:
    """`placed`: where the pods of the candidates are expected to go: names of NodeStates by uid."""

    reason: DisruptionReason
    consolidation: ConsolidationType
    candidates: tuple[Candidate, ...]
    replacements: tuple[PlannedClaim, ...] = ()
    placed: Mapping[str, str] = field(default_factory=dict)

    @property
    def decision(self) -> Decision:
        return "replace" if self.replacements else "delete"

    @property
    def before(self) -> float:
        """Dollars per hour of the nodes that go."""
        return sum(each.price for each in self.candidates)

    @property
    def after(self) -> float:
        """Dollars per hour of what comes instead."""
        return sum(each.price for each in self.replacements)

    @property
    def savings(self) -> float:
        return self.before - self.after

    def __str__(self) -> str:
        pods = sum(len(each.pods) for each in self.candidates)
        nodes = ", ".join(f"{each.name}/{each.instance_type}/{each.capacity_type}" for each in self.candidates)
        text = f"{self.decision}, terminating {len(self.candidates)} nodes ({pods} pods) {nodes}"
        if not self.replacements:
            return text
        first = self.replacements[0]
        types = ", ".join(first.instance_types[:_SHOWN_TYPES])
        others = len(first.instance_types) - _SHOWN_TYPES
        if others > 0:
            types += f" and {others} other(s)"
        bought = [{each.capacity_type for each in claim.offerings} for claim in self.replacements]
        if len(self.replacements) > 1:
            spot, on_demand = (sum(kind in each for each in bought) for kind in ("spot", "on-demand"))
            return f"{text} and replacing with {spot} spot and {on_demand} on-demand, from types {types}"
        kind = f"{next(iter(bought[0]))} node" if len(bought[0]) == 1 else "node"
        return f"{text} and replacing with {kind} from types {types}"
