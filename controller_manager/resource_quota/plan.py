"""What a quota's status has to be, given the objects it counts. Pure; called by the controller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from fractions import Fraction
from typing import Any

from api import quota as rules
from api.pod_resources import quantity_text
from machinery import quantity

Obj = Mapping[str, Any]


def targets(hard: Iterable[str]) -> list[rules.GroupResource]:
    """The resources whose objects the names of a quota count."""
    found = {target for key in hard if (target := rules.counted_resource(key)) is not None}
    return sorted(found)


def plan_used(
    quota: Obj, objects: Mapping[rules.GroupResource, Iterable[Obj]], now: datetime
) -> tuple[rules.Quantities, rules.Quantities]:
    """(hard, used) of the status. Resources that could not be listed keep what they were counted at."""
    hard = {name: str(value) for name, value in ((quota.get("spec") or {}).get("hard") or {}).items()}
    totals = dict.fromkeys(hard, Fraction(0))
    samples: dict[str, str] = {}
    for target, items in objects.items():
        for obj in items:
            if not rules.in_scope(target, obj, quota):
                continue
            for name, number in rules.usage(target, obj, now).items():
                if name in totals:
                    totals[name] += number
            for name, sample in rules.format_samples(obj).items():
                if name in hard:
                    samples.setdefault(name, sample)
    before = (quota.get("status") or {}).get("used") or {}
    used = {}
    for name in hard:
        if rules.counted_resource(name) in objects or name not in before:
            used[name] = quantity_text(totals[name], samples.get(name, "0"), hard[name])
        else:
            used[name] = str(before[name])
    return hard, used


def lowers(before: Mapping[str, str], after: Mapping[str, str]) -> bool:
    """Would this status allow anything that the one before did not?"""
    return any(name in after and quantity.parse(after[name]) < quantity.parse(value) for name, value in before.items())


def same(before: Mapping[str, str], after: Mapping[str, str]) -> bool:
    """Equal as amounts, whatever their format."""
    return before.keys() == after.keys() and all(
        quantity.parse(after[name]) == quantity.parse(value) for name, value in before.items()
    )
