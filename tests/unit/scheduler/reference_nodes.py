"""The slow reference of what a pod asks of a node: requests, tolerations, node selectors. Plain Python.

Shares nothing with the scheduler but the API types and quantity parsing.
"""

from __future__ import annotations

import math
from fractions import Fraction

from api.models import core_v1
from machinery import quantity

Taint = tuple[str, str, str]


def units(resource: str, exact: Fraction) -> int:
    return math.ceil(exact * 1000) if resource == "cpu" else math.ceil(exact)


def requests(pod: core_v1.Pod, defaults: dict[str, str] | None = None) -> dict[str, int]:
    assert pod.spec is not None
    names = {"cpu", "memory", "ephemeral-storage"}
    everyone = [*pod.spec.containers, *(pod.spec.initContainers or [])]
    for each in everyone:
        names |= set((each.resources.requests or {}) if each.resources else {})
    names |= set(pod.spec.overhead or {})
    names |= set((pod.spec.resources.requests or {}) if pod.spec.resources else {})

    def of(container: core_v1.Container, name: str) -> Fraction:
        listed = (container.resources.requests if container.resources else None) or {}
        text = listed.get(name, (defaults or {}).get(name, "0"))
        return quantity.parse(text)

    result = {}
    for name in names:
        sidecars = Fraction(0)
        peak = Fraction(0)
        for each in pod.spec.initContainers or []:
            if each.restartPolicy == "Always":
                sidecars += of(each, name)
                peak = max(peak, sidecars)
            else:
                peak = max(peak, sidecars + of(each, name))
        total = max(sum((of(each, name) for each in pod.spec.containers), sidecars), peak)
        stated = (pod.spec.resources.requests if pod.spec.resources else None) or {}
        if name in stated:  # for the whole pod
            total = quantity.parse(stated[name])
        total += quantity.parse((pod.spec.overhead or {}).get(name, "0"))
        if total:
            result[name] = units(name, total)
    return result


def scoring(pod: core_v1.Pod) -> dict[str, int]:
    return requests(pod, {"cpu": "100m", "memory": "200Mi"})


def tolerated(pod: core_v1.Pod, taint: Taint) -> bool:
    assert pod.spec is not None
    key, value, effect = taint
    for each in pod.spec.tolerations or []:
        if each.effect and each.effect != effect:
            continue
        if each.key and each.key != key:
            continue
        if each.operator == "Exists":
            return True
        if each.key and (each.value or "") == value:
            return True
    return False


def _holds(labels: dict[str, str], each: core_v1.NodeSelectorRequirement) -> bool:
    value, values = labels.get(each.key), each.values or []
    match each.operator:
        case "In":
            return value in values
        case "NotIn":
            return bool(values) and value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    try:
        number, bound = int(value or ""), int(values[0])
    except (ValueError, IndexError):
        return False
    return number > bound if each.operator == "Gt" else number < bound


def term_holds(node: core_v1.Node, each: core_v1.NodeSelectorTerm) -> bool:
    assert node.metadata is not None
    labels = node.metadata.labels or {}
    if not each.matchExpressions and not each.matchFields:
        return False
    fields = {"metadata.name": node.metadata.name or ""}
    return all(_holds(labels, one) for one in each.matchExpressions or []) and all(
        _holds(fields, one) for one in each.matchFields or []
    )


def selected(pod: core_v1.Pod, node: core_v1.Node) -> bool:
    assert pod.spec is not None and node.metadata is not None
    labels = node.metadata.labels or {}
    if any(labels.get(key) != value for key, value in (pod.spec.nodeSelector or {}).items()):
        return False
    wanted = pod.spec.affinity.nodeAffinity if pod.spec.affinity else None
    required = wanted.requiredDuringSchedulingIgnoredDuringExecution if wanted else None
    return required is None or any(term_holds(node, each) for each in required.nodeSelectorTerms or [])


def pinned(pod: core_v1.Pod) -> set[str] | None:
    """The nodes that each of the required terms names, so that no other is looked at; None when a term names none."""
    assert pod.spec is not None
    wanted = pod.spec.affinity.nodeAffinity if pod.spec.affinity else None
    required = wanted.requiredDuringSchedulingIgnoredDuringExecution if wanted else None
    found: set[str] = set()
    for each in (required.nodeSelectorTerms if required else None) or []:
        named = [set(one.values or []) for one in each.matchFields or [] if one.operator == "In"]
        if not named:
            return None
        found |= set.intersection(*named)
    return found if required and required.nodeSelectorTerms else None
