"""What objects count for in ResourceQuotas.

Owns: the usage of one object, which quotas it belongs to (scopes), what a quota demands containers to say, and the
arithmetic of quantities that keeps their formats. Pure functions over plain dicts. Used by the API server, which
charges, and by the quota controller, which counts again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any, Final

from api.pod_resources import Amounts, amounts, pod_amounts, quantity_text
from machinery import quantity
from machinery.meta import parse_time

Obj = Mapping[str, Any]
Quantities = dict[str, str]
GroupResource = tuple[str, str]

PODS: Final = ("", "pods")
SERVICES: Final = ("", "services")
CLAIMS: Final = ("", "persistentvolumeclaims")
COUNTED_BY_NAME: Final = frozenset({"configmaps", "resourcequotas", "replicationcontrollers", "secrets"})
"""Core resources that have a name of their own in quotas, besides `count/…`."""
STANDARD: Final = ("cpu", "memory", "ephemeral-storage")
DEMANDED: Final = frozenset({"cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"})
"""What every container has to say when a quota limits it."""
POD_KEYS: Final = frozenset(
    {*STANDARD, *(f"{part}.{name}" for part in ("requests", "limits") for name in STANDARD), "pods", "count/pods"}
)
CLASS_STORAGE: Final = ".storageclass.storage.k8s.io/requests.storage"
CLASS_CLAIMS: Final = ".storageclass.storage.k8s.io/persistentvolumeclaims"
OLD_CLASS: Final = "volume.beta.kubernetes.io/storage-class"


def count_key(target: GroupResource) -> str:
    """`count/deployments.apps`, `count/pods`."""
    group, plural = target
    return f"count/{plural}.{group}" if group else f"count/{plural}"


# -- usage of one object ----------------------------------------------------------------------------------------------


def usage(target: GroupResource, obj: Obj, now: datetime) -> Amounts:
    """What the object counts for, under every name that a quota may use."""
    counted: Amounts = {count_key(target): Fraction(1)}
    if target == PODS:
        if not _ended(obj, now):
            counted |= _pod_usage(obj)
    elif target == SERVICES:
        counted |= _service_usage(obj)
    elif target == CLAIMS:
        counted |= _claim_usage(obj)
    elif not target[0] and target[1] in COUNTED_BY_NAME:
        counted[target[1]] = Fraction(1)
    return counted


def _ended(pod: Obj, now: datetime) -> bool:
    """Pods that hold nothing any more: finished, or overdue in their deletion."""
    if (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded"):
        return True
    meta = pod.get("metadata") or {}
    gone, grace = meta.get("deletionTimestamp"), meta.get("deletionGracePeriodSeconds")
    return gone is not None and grace is not None and now > parse_time(gone) + timedelta(seconds=grace)


def _pod_usage(pod: Obj) -> Amounts:
    spec = pod.get("spec") or {}
    return {
        "pods": Fraction(1),
        **_compute_usage(pod_amounts(spec, "requests"), pod_amounts(spec, "limits")),
    }


def _compute_usage(requests: Amounts, limits: Amounts) -> Amounts:
    found: Amounts = {}
    for name, number in requests.items():
        if name in STANDARD or name.startswith("hugepages-"):
            found[name] = number
        found[f"requests.{name}"] = number
    for name, number in limits.items():
        if name in STANDARD:
            found[f"limits.{name}"] = number
    return found


def _service_usage(service: Obj) -> Amounts:
    spec = service.get("spec") or {}
    kind, ports = spec.get("type"), spec.get("ports") or ()
    nodes = 0
    if kind == "NodePort":
        nodes = len(ports)
    elif kind == "LoadBalancer":
        allocates = spec.get("allocateLoadBalancerNodePorts") is not False
        nodes = len(ports) if allocates else sum(1 for port in ports if port.get("nodePort"))
    return {
        "services": Fraction(1),
        "services.nodeports": Fraction(nodes),
        "services.loadbalancers": Fraction(kind == "LoadBalancer"),
    }


def _claim_usage(claim: Obj) -> Amounts:
    spec = claim.get("spec") or {}
    asked = amounts((spec.get("resources") or {}).get("requests")).get("storage")
    granted = amounts((claim.get("status") or {}).get("allocatedResources")).get("storage")
    storage = max((each for each in (asked, granted) if each is not None), default=None)
    found: Amounts = {"persistentvolumeclaims": Fraction(1)}
    annotations = (claim.get("metadata") or {}).get("annotations") or {}
    chosen = annotations.get(OLD_CLASS) or spec.get("storageClassName")
    if chosen:
        found[f"{chosen}{CLASS_CLAIMS}"] = Fraction(1)
    if storage is not None:
        found["requests.storage"] = storage
        if chosen:
            found[f"{chosen}{CLASS_STORAGE}"] = storage
    return found


def concerns(target: GroupResource, key: str) -> bool:
    """Can objects of this resource count for this name of a quota?"""
    if key == count_key(target):
        return True
    if target == PODS:
        extended = key.startswith("requests.") and ("/" in key or key.startswith("requests.hugepages-"))
        return key in POD_KEYS or key.startswith("hugepages-") or (extended and not key.endswith(CLASS_STORAGE))
    if target == SERVICES:
        return key in ("services", "services.nodeports", "services.loadbalancers")
    if target == CLAIMS:
        return key in ("persistentvolumeclaims", "requests.storage") or key.endswith((CLASS_STORAGE, CLASS_CLAIMS))
    return not target[0] and key == target[1] and key in COUNTED_BY_NAME


def counted_resource(key: str) -> GroupResource | None:
    """Which resource's objects count for this name; None for a name that nothing counts for."""
    if key.startswith("count/"):
        plural, _, group = key[len("count/") :].partition(".")
        return group, plural
    for target in (CLAIMS, SERVICES, PODS):
        if concerns(target, key):
            return target
    return ("", key) if key in COUNTED_BY_NAME else None


# -- scopes -----------------------------------------------------------------------------------------------------------


def in_scope(target: GroupResource, obj: Obj, quota: Obj) -> bool:
    """Does the quota look at this object? Quotas with scopes look at pods only."""
    spec = quota.get("spec") or {}
    selectors = [{"scopeName": scope, "operator": "Exists"} for scope in spec.get("scopes") or ()]
    selectors += (spec.get("scopeSelector") or {}).get("matchExpressions") or ()
    if not selectors:
        return True
    return target == PODS and all(_selected(obj, selector) for selector in selectors)


def _selected(pod: Obj, selector: Obj) -> bool:
    spec = pod.get("spec") or {}
    match selector.get("scopeName"):
        case "Terminating":
            return _terminating(spec)
        case "NotTerminating":
            return not _terminating(spec)
        case "BestEffort":
            return _best_effort(spec)
        case "NotBestEffort":
            return not _best_effort(spec)
        case "CrossNamespacePodAffinity":
            return _crosses_namespaces(spec)
        case "PriorityClass":
            return _priority_selected(spec.get("priorityClassName") or "", selector)
    return False


def _terminating(spec: Obj) -> bool:
    deadline = spec.get("activeDeadlineSeconds")
    return deadline is not None and deadline >= 0


def _best_effort(spec: Obj) -> bool:
    containers = (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
    for each in (spec, *containers):
        resources = each.get("resources") or {}
        for field in ("requests", "limits"):
            named = resources.get(field) or {}
            if any(quantity.parse(named[name]) for name in ("cpu", "memory") if name in named):
                return False
    return True


def _crosses_namespaces(spec: Obj) -> bool:
    affinity = spec.get("affinity") or {}
    for kind in ("podAffinity", "podAntiAffinity"):
        terms = list((affinity.get(kind) or {}).get("requiredDuringSchedulingIgnoredDuringExecution") or ())
        for weighted in (affinity.get(kind) or {}).get("preferredDuringSchedulingIgnoredDuringExecution") or ():
            terms.append(weighted.get("podAffinityTerm") or {})
        if any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms):
            return True
    return False


def _priority_selected(name: str, selector: Obj) -> bool:
    values = selector.get("values") or ()
    match selector.get("operator"):
        case "Exists":
            return bool(name)
        case "DoesNotExist":
            return not name
        case "In":
            return name in values
        case "NotIn":
            return name not in values
    return False


# -- demands ----------------------------------------------------------------------------------------------------------


def unspecified(spec: Obj, keys: Iterable[str]) -> str:
    """`requests.cpu for: a,b; limits.cpu for: a`: what containers must say and do not; "" when all is said."""
    demanded = sorted(DEMANDED.intersection(keys))
    if not demanded:
        return ""
    said_for_pod = _said(spec.get("resources") or {})
    missing: dict[str, set[str]] = {}
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        said = said_for_pod | _said(container.get("resources") or {})
        for key in demanded:
            if key not in said:
                missing.setdefault(key, set()).add(container.get("name") or "")
    return "; ".join(f"{key} for: {','.join(sorted(missing[key]))}" for key in demanded if key in missing)


def _said(resources: Obj) -> set[str]:
    return set(_compute_usage(amounts(resources.get("requests")), amounts(resources.get("limits"))))


# -- arithmetic -------------------------------------------------------------------------------------------------------


def changed(used: Mapping[str, Any], change: Amounts, samples: Mapping[str, str]) -> Quantities:
    """`used` after a change of some of its names; never below zero. `samples` lend their format to zeros."""
    result = {name: str(value) for name, value in used.items()}
    for name, number in change.items():
        now = result.get(name, "0")
        result[name] = quantity_text(max(quantity.parse(now) + number, Fraction(0)), now, samples.get(name, "0"))
    return result


def shown(values: Mapping[str, str]) -> str:
    """`pods=1,requests.cpu=200m`, as refusals tell it."""
    return ",".join(f"{name}={values[name]}" for name in sorted(values))


def format_samples(obj: Obj) -> dict[str, str]:
    """For every name of usage one quantity of the object, whose format its sum takes."""
    samples: dict[str, str] = {}
    spec = obj.get("spec") or {}
    for each in (spec, *(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        resources = each.get("resources") or {}
        for part in ("requests", "limits"):
            for name, value in (resources.get(part) or {}).items():
                samples.setdefault(f"{part}.{name}", str(value))
                if part == "requests":
                    samples.setdefault(name, str(value))
    if "requests.storage" in samples and "storageClassName" in spec:
        samples[f"{spec['storageClassName']}{CLASS_STORAGE}"] = samples["requests.storage"]
    return samples
