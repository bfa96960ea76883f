"""Hints in EndpointSlices: for which zones or nodes a proxy should use an endpoint.

Two ways to ask for them: `spec.trafficDistribution` (each endpoint for its own zone, or node) and the annotation
`service.kubernetes.io/topology-mode: Auto`, which wins (endpoints shared out to zones in proportion to the CPUs of
their nodes; given up where a zone would be overloaded by more than a fifth). Pure. Called by the other modules here.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from api.models import core_v1
from controller_manager.endpoints.pods import ZONE
from controller_manager.objects import condition
from machinery import quantity

TOPOLOGY_MODE: Final = "service.kubernetes.io/topology-mode"
TOPOLOGY_HINTS: Final = "service.kubernetes.io/topology-aware-hints"
SAME_NODE: Final = "PreferSameNode"
CLOSE: Final = ("PreferClose", "PreferSameZone", SAME_NODE)
OVERLOAD: Final = 0.2
_EXCLUDED: Final = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
_LEAST_ZONES: Final = 2

Endpoint = dict[str, Any]


class CannotShare(Exception):
    """Endpoints cannot be shared out to zones; the message says why."""


def by_cpu(service: core_v1.Service) -> bool:
    """Whether the Service asks for endpoints in proportion to CPUs."""
    annotations: Mapping[str, str] = service.metadata.annotations or {}
    wish = annotations.get(TOPOLOGY_HINTS) or annotations.get(TOPOLOGY_MODE)
    return wish in ("Auto", "auto")


def hint_closeness(service: core_v1.Service, endpoints: Iterable[Endpoint]) -> None:
    """Hints by spec.trafficDistribution; there are none without one."""
    wish: str = service.spec.trafficDistribution or ""
    if wish not in CLOSE:
        return
    for each in endpoints:
        if not each["conditions"]["ready"]:
            continue
        hints: dict[str, Any] = {}
        if each.get("zone"):
            hints["forZones"] = [{"name": each["zone"]}]
        if each.get("nodeName") and wish == SAME_NODE:
            hints["forNodes"] = [{"name": each["nodeName"]}]
        if hints:
            each["hints"] = hints


def capacity(node: core_v1.Node) -> tuple[str, int] | None:
    """Zone and millicores of a node that counts, ("", 0) where it does not say; None if it does not count."""
    labels: Mapping[str, str] = node.metadata.labels or {}
    ready = condition(node, "Ready")
    if any(each in labels for each in _EXCLUDED) or ready is None or ready.status != "True":
        return None
    zone = labels.get(ZONE, "")
    milli = quantity.milli((node.status.allocatable or {}).get("cpu", "0"))
    return (zone, milli) if zone and milli > 0 else ("", 0)


def zone_ratios(nodes: Iterable[core_v1.Node]) -> dict[str, float]:
    """Each zone's share of the CPUs. Raises CannotShare."""
    cpus: Counter[str] = Counter()
    for node in nodes:
        found = capacity(node)
        if found is None:
            continue
        if not found[0]:
            cpus.clear()
            break
        cpus[found[0]] += found[1]
    if len(cpus) < _LEAST_ZONES:
        raise CannotShare("Insufficient Node information: allocatable CPU or zone not specified on one or more nodes")
    total = cpus.total()
    return {zone: cpus[zone] / total for zone in sorted(cpus)}


def hint_shares(endpoints: Iterable[Endpoint], ratios: Mapping[str, float]) -> None:
    """Hints by which every zone gets its share of the ready endpoints. Raises CannotShare, hinting nothing."""
    # In an order of its own, so that one endpoint that comes or goes does not change the hints of all others.
    ready = sorted((each for each in endpoints if each["conditions"]["ready"]), key=_uid)
    desired = _desired(len(ready), ratios)
    if not all(each.get("zone") for each in ready):
        raise CannotShare("One or more endpoints do not have a zone specified")
    held = Counter(each["zone"] for each in ready)
    surplus = {zone: held[zone] - desired.get(zone, 0.0) for zone in held.keys() | desired.keys()}
    give, take = _transfers(surplus)
    receivers = [zone for zone in sorted(take) for _ in range(take[zone])]
    for each in ready:
        zone = each["zone"]
        if give[zone] > 0 and receivers:
            give[zone] -= 1
            zone = receivers.pop(0)
        each["hints"] = {"forZones": [{"name": zone}]}


def _uid(endpoint: Endpoint) -> str:
    return (endpoint.get("targetRef") or {}).get("uid") or ""


def _desired(count: int, ratios: Mapping[str, float]) -> dict[str, float]:
    told = f"({count} endpoints, {len(ratios)} zones)"
    if len(ratios) > count:
        raise CannotShare(f"Insufficient number of endpoints {told}")
    least = {zone: math.ceil(ratio * count / (1 + OVERLOAD)) for zone, ratio in ratios.items()}
    if sum(least.values()) > count:
        raise CannotShare(
            "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold " + told
        )
    return {zone: max(ratio * count, float(least[zone])) for zone, ratio in ratios.items()}


def _transfers(surplus: Mapping[str, float]) -> tuple[Counter[str], Counter[str]]:
    """Whole endpoints that zones give and take, the most wanting first; halves are not worth a transfer."""
    left = dict(surplus)
    give: Counter[str] = Counter()
    take: Counter[str] = Counter()
    while left:
        giver = max(sorted(left), key=left.__getitem__)
        taker = min(sorted(left), key=left.__getitem__)
        most, need = left[giver], -left[taker]
        if most < 0.5 or need < 0.5 or (most < 1 and need < 1):
            break
        give[giver] += 1
        take[taker] += 1
        left[giver] -= 1
        left[taker] += 1
    return give, take
