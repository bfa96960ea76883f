"""What a pod asks for in all: the sums that limits and quotas are compared with.

Owns the rule how containers, init containers, sidecars and overhead add up. Works on plain dicts, exactly (Fractions),
and does no I/O. Used by the API server's admission and by the quota controller.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from machinery import quantity

Obj = Mapping[str, Any]
Amounts = dict[str, Fraction]


def amounts(resources: Mapping[str, Any] | None) -> Amounts:
    """A resource list as numbers."""
    return {name: quantity.parse(value) for name, value in (resources or {}).items()}


def pod_amounts(spec: Obj, field: str, *, overhead: bool = True) -> Amounts:
    """The pod's `requests` or `limits`: the larger of what runs for good and of what any init container needs.

    A sidecar (an init container that restarts) runs for good, and beside every init container after it.
    """
    total: Amounts = {}
    for container in spec.get("containers") or ():
        _add(total, amounts((container.get("resources") or {}).get(field)))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in spec.get("initContainers") or ():
        own = amounts((container.get("resources") or {}).get(field))
        if container.get("restartPolicy") == "Always":
            _add(total, own)
            _add(sidecars, own)
            _raise_to(peak, sidecars)
        else:
            beside = dict(sidecars)
            _add(beside, own)
            _raise_to(peak, beside)
    _raise_to(total, peak)
    total.update(amounts((spec.get("resources") or {}).get(field)))
    if overhead:
        for name, value in amounts(spec.get("overhead")).items():
            if field == "requests" or name in total:
                total[name] = total.get(name, Fraction(0)) + value
    return total


def _add(total: Amounts, more: Amounts) -> None:
    for name, value in more.items():
        total[name] = total.get(name, Fraction(0)) + value


def _raise_to(total: Amounts, least: Amounts) -> None:
    for name, value in least.items():
        if value > total.get(name, Fraction(-1)):
            total[name] = value


def quantity_text(number: Fraction, *like: str) -> str:
    """A number as a canonical quantity, in the format (binary or decimal) of the first of `like` that is not zero."""
    form = next((each for each in like if quantity.parse(each) != 0), "")
    if form.endswith("i") and number.denominator == 1:
        whole = int(number)
        return quantity.canonical(f"{whole // 1024}Ki") if whole % 1024 == 0 and whole >= 1024 else str(whole)
    nano = -((-number * 10**9) // 1)
    return quantity.canonical(f"{nano}n")
