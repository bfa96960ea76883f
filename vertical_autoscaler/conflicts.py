"""Where a horizontal and a vertical autoscaler would fight about the same resource of the same target. Pure.

A horizontal autoscaler's utilization is relative to requests; one that also changes the requests makes both run away.
The horizontal one wins: the vertical one leaves that resource alone and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from api.models import autoscaling_v2
from api.resources import split_group_version
from client.client import key_of
from machinery.meta import ObjectKey
from vertical_autoscaler.objects import DEFAULT_CONTAINER, OFF, ContainerPolicy, Vpa

SCALED: Final = frozenset({"cpu", "memory"})


def find(
    vpas: Iterable[Vpa], hpas: Iterable[autoscaling_v2.HorizontalPodAutoscaler]
) -> dict[ObjectKey, dict[str, ObjectKey]]:
    """All conflicts of those that change pods."""
    scaled: dict[tuple[str, str, str, str], dict[str, ObjectKey]] = {}
    for hpa in hpas:
        if hpa.spec is None:
            continue
        target = hpa.spec.scaleTargetRef
        group = split_group_version(target.apiVersion or "")[0]
        place = (key_of(hpa).namespace, group, target.kind, target.name)
        for name in _measured(hpa.spec):
            scaled.setdefault(place, {}).setdefault(name, key_of(hpa))
    found: dict[ObjectKey, dict[str, ObjectKey]] = {}
    for vpa in vpas:
        own = vpa.spec.targetRef
        if own is None or vpa.mode == OFF:
            continue
        theirs = scaled.get((vpa.metadata.namespace or "", split_group_version(own.apiVersion)[0], own.kind, own.name))
        shared = {name: hpa for name, hpa in (theirs or {}).items() if name in controlled(vpa)}
        if shared:
            found[key_of(vpa)] = shared
    return found


def controlled(vpa: Vpa) -> set[str]:
    """Resources that the autoscaler changes in some container."""
    policies = list(vpa.spec.resourcePolicy.containerPolicies) if vpa.spec.resourcePolicy is not None else []
    if not any(policy.containerName == DEFAULT_CONTAINER for policy in policies):
        policies.append(ContainerPolicy(DEFAULT_CONTAINER))
    return {name for policy in policies if not policy.off for name in policy.resources}


def message(shared: Mapping[str, ObjectKey]) -> str:
    """For the vertical autoscaler's condition."""
    told = [f"{name} by HorizontalPodAutoscaler {hpa.name}" for name, hpa in sorted(shared.items())]
    return f"The target is scaled on {' and '.join(told)}; the VPA leaves this to it"


def _measured(spec: autoscaling_v2.HorizontalPodAutoscalerSpec) -> set[str]:
    if not spec.metrics:
        return {"cpu"}  # the documented default: 80 % utilization
    names = set()
    for metric in spec.metrics:
        for source in (metric.resource, metric.containerResource):
            if source is not None:
                names.add(source.name)
    return names & SCALED
