"""What a label's value may be: requirements of pools, offerings and pods, as sets that can be intersected. Pure.

A requirement is a set of values, or everything but a set; Gt and Lt bound integers. DoesNotExist is the empty set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from nodepool_autoscaler.names import NORMALIZED

IN, NOT_IN, EXISTS, DOES_NOT_EXIST, GT, LT = "In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"
OPERATORS: Final = (IN, NOT_IN, EXISTS, DOES_NOT_EXIST, GT, LT)


@dataclass(frozen=True, slots=True)
class Requirement:
    """`complement`: every value but `values`. `above` and `below` are exclusive bounds of integers."""

    key: str
    values: frozenset[str] = frozenset()
    complement: bool = False
    above: int | None = None
    below: int | None = None
    min_values: int | None = None

    @classmethod
    def of(cls, key: str, operator: str, values: Iterable[str] = (), min_values: int | None = None) -> Requirement:
        """Raises ValueError for an operator that is none, and for bounds that are no integers."""
        key, listed = NORMALIZED.get(key, key), frozenset(values)
        if operator == IN:
            return cls(key, listed, min_values=min_values)
        if operator == NOT_IN:
            return cls(key, listed, complement=True, min_values=min_values)
        if operator == EXISTS:
            return cls(key, complement=True, min_values=min_values)
        if operator == DOES_NOT_EXIST:
            return cls(key, min_values=min_values)
        if operator in (GT, LT):
            (bound,) = listed or ("",)
            number = int(bound)
            if operator == GT:
                return cls(key, complement=True, above=number, min_values=min_values)
            return cls(key, complement=True, below=number, min_values=min_values)
        raise ValueError(f"{operator!r} is no operator")

    @property
    def empty(self) -> bool:
        """Whether no value at all is allowed."""
        if not self.complement:
            return not self.values
        return self.above is not None and self.below is not None and self.below - self.above <= 1

    def allows(self, value: str | None) -> bool:
        """None: the label is not there."""
        if value is None:
            return self.empty or (self.complement and bool(self.values) and self.above is None and self.below is None)
        return (value not in self.values if self.complement else value in self.values) and self._within(value)

    def example(self) -> str | None:
        """One value that is allowed, always the same; None when there is none."""
        if not self.complement:
            return min(self.values, default=None)
        first = self.above + 1 if self.above is not None else min(0, (self.below or 1) - 1)
        # Of as many as are ruled out and one more, one is left.
        numbers = (str(each) for each in range(first, first + len(self.values) + 1))
        found = next(each for each in numbers if each not in self.values)
        return found if self.allows(found) else None

    def _within(self, value: str) -> bool:
        if self.above is None and self.below is None:
            return True
        try:
            number = int(value)
        except ValueError:
            return False
        return (self.above is None or number > self.above) and (self.below is None or number < self.below)

    def intersect(self, other: Requirement) -> Requirement:
        """What both allow."""
        above = _most(self.above, other.above)
        below = _least(self.below, other.below)
        least = _most(self.min_values, other.min_values)
        if self.complement and other.complement:
            return Requirement(self.key, self.values | other.values, True, above, below, least)
        if self.complement:
            values = other.values - self.values
        elif other.complement:
            values = self.values - other.values
        else:
            values = self.values & other.values
        bounded = Requirement(self.key, frozenset(), True, above, below)
        return Requirement(self.key, frozenset(each for each in values if bounded.allows(each)), min_values=least)

    def told(self) -> list[dict[str, Any]]:
        """As NodeSelectorRequirements, with minValues."""
        least = {"minValues": self.min_values} if self.min_values is not None else {}
        if not self.complement:
            if not self.values:
                return [{"key": self.key, "operator": DOES_NOT_EXIST, **least}]
            return [{"key": self.key, "operator": IN, "values": sorted(self.values), **least}]
        found: list[dict[str, Any]] = []
        if self.above is not None:
            found.append({"key": self.key, "operator": GT, "values": [str(self.above)]})
        if self.below is not None:
            found.append({"key": self.key, "operator": LT, "values": [str(self.below)]})
        if self.values:
            found.append({"key": self.key, "operator": NOT_IN, "values": sorted(self.values)})
        if not found:
            found.append({"key": self.key, "operator": EXISTS})
        found[0] |= least
        return found

    def __str__(self) -> str:
        return ", ".join(
            " ".join([each["key"], each["operator"], *([str(each["values"])] if "values" in each else [])])
            for each in self.told()
        )


def merged(*groups: Iterable[Requirement]) -> dict[str, Requirement]:
    """All of them at once, by label."""
    found: dict[str, Requirement] = {}
    for group in groups:
        for each in group:
            known = found.get(each.key)
            found[each.key] = each if known is None else known.intersect(each)
    return found


def of_labels(labels: Mapping[str, str]) -> list[Requirement]:
    return [Requirement.of(key, IN, [value]) for key, value in labels.items()]


def _most(one: int | None, other: int | None) -> int | None:
    return one if other is None else other if one is None else max(one, other)


def _least(one: int | None, other: int | None) -> int | None:
    return one if other is None else other if one is None else min(one, other)
