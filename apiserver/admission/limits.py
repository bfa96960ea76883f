"""The rules of LimitRanges, in upstream's words.

Owns the defaults that a LimitRange gives containers and what is wrong with a pod or a claim under it. Pure; called by
the LimitRanger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

from api.pod_resources import pod_amounts, quantity_text
from machinery import quantity

Obj = dict[str, Any]
Resources = Mapping[str, Any]

ANNOTATION = "kubernetes.io/limit-ranger"


def container_defaults(limit_range: Obj) -> tuple[Resources, Resources]:
    """The default requests and limits of containers; later items win."""
    requests: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    for item in _items(limit_range, "Container"):
        requests.update(item.get("defaultRequest") or {})
        limits.update(item.get("default") or {})
    return requests, limits


def apply_defaults(pod: Obj, limit_range: Obj) -> None:
    """Fill in what containers do not say, and tell so in an annotation."""
    requests, limits = container_defaults(limit_range)
    if not requests and not limits:
        return
    spec, told = pod["spec"], list[str]()
    for field, shown in (("containers", "container"), ("initContainers", "init container")):
        containers = spec.get(field)
        if not containers:
            continue
        filled = []
        for container in containers:
            resources = dict(container.get("resources") or {})
            for part, wanted in (("requests", requests), ("limits", limits)):
                given = resources.get(part) or {}
                added = sorted(name for name in wanted if name not in given)
                if added:
                    resources[part] = {**given, **{name: wanted[name] for name in added}}
                    told.append(f"{', '.join(added)} {part[:-1]} for {shown} {container.get('name', '')}")
            filled.append({**container, "resources": resources})
        spec[field] = filled
    if told:
        annotations = pod["metadata"].get("annotations") or {}
        pod["metadata"]["annotations"] = {**annotations, ANNOTATION: f"LimitRanger plugin set: {'; '.join(told)}"}


def pod_findings(spec: Obj, limit_range: Obj) -> list[str]:
    """What a pod's spec asks for against the limits."""
    found: list[str] = []
    for item in (limit_range.get("spec") or {}).get("limits") or ():
        kind = item.get("type")
        if kind == "Container":
            for field in ("containers", "initContainers"):
                for container in spec.get(field) or ():
                    resources = container.get("resources") or {}
                    found += _constraints(item, resources.get("requests") or {}, resources.get("limits") or {})
        elif kind == "Pod":
            found += _constraints(item, _totals(spec, "requests"), _totals(spec, "limits"))
    return list(dict.fromkeys(found))


def claim_findings(claim: Obj, limit_range: Obj) -> list[str]:
    """What a PersistentVolumeClaim asks for against the limits."""
    requests = ((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}
    found: list[str] = []
    for item in _items(limit_range, "PersistentVolumeClaim"):
        found += [text for name, bound in _bounds(item, "min") if (text := _minimum(item, name, bound, requests, {}))]
        for name, bound in _bounds(item, "max"):
            least = f"maximum {name} usage per PersistentVolumeClaim is {bound}"
            if name not in requests:
                found.append(f"{least}.  No request is specified")
            elif quantity.parse(requests[name]) > quantity.parse(bound):
                found.append(f"{least}, but request is {requests[name]}")
    return list(dict.fromkeys(found))


def message(findings: list[str]) -> str:
    """Findings as upstream's aggregated error prints them."""
    return findings[0] if len(findings) == 1 else f"[{', '.join(findings)}]"


def _items(limit_range: Obj, kind: str) -> Iterator[Obj]:
    return (item for item in (limit_range.get("spec") or {}).get("limits") or () if item.get("type") == kind)


def _bounds(item: Obj, field: str) -> list[tuple[str, str]]:
    return sorted((name, str(value)) for name, value in (item.get(field) or {}).items())


def _totals(spec: Obj, field: str) -> Resources:
    samples: dict[str, str] = {}
    for each in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        for name, value in ((each.get("resources") or {}).get(field) or {}).items():
            samples.setdefault(name, str(value))
    totals = pod_amounts(spec, field, overhead=False)
    return {name: quantity_text(number, samples.get(name, "0")) for name, number in totals.items()}


Rule = Callable[[Obj, str, str, Resources, Resources], str]


def _constraints(item: Obj, requests: Resources, limits: Resources) -> list[str]:
    rules: tuple[tuple[str, Rule], ...] = (("min", _minimum), ("max", _maximum), ("maxLimitRequestRatio", _ratio))
    return [
        text
        for field, rule in rules
        for name, bound in _bounds(item, field)
        if (text := rule(item, name, bound, requests, limits))
    ]


def _minimum(item: Obj, name: str, bound: str, requests: Resources, limits: Resources) -> str:
    least = f"minimum {name} usage per {item['type']} is {bound}"
    if name not in requests:
        return f"{least}.  No request is specified"
    for shown, given in (("request", requests), ("limit", limits)):
        if name in given and quantity.parse(given[name]) < quantity.parse(bound):
            return f"{least}, but {shown} is {given[name]}"
    return ""


def _maximum(item: Obj, name: str, bound: str, requests: Resources, limits: Resources) -> str:
    most = f"maximum {name} usage per {item['type']} is {bound}"
    if name not in limits:
        return f"{most}.  No limit is specified"
    for shown, given in (("limit", limits), ("request", requests)):
        if name in given and quantity.parse(given[name]) > quantity.parse(bound):
            return f"{most}, but {shown} is {given[name]}"
    return ""


def _ratio(item: Obj, name: str, bound: str, requests: Resources, limits: Resources) -> str:
    most = f"{name} max limit to request ratio per {item['type']} is {bound}"
    request, limit = (quantity.parse(given.get(name, 0)) for given in (requests, limits))
    if not request:
        return f"{most}, but no request is specified or request is 0"
    if not limit:
        return f"{most}, but no limit is specified or limit is 0"
    ratio = Fraction(limit, request)
    return f"{most}, but provided ratio is {float(ratio):.6f}" if ratio > quantity.parse(bound) else ""
