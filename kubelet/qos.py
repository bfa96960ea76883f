"""Resources of a pod as the kernel gets them: QoS class, cgroup parent, shares, quota, limits, OOM score. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.models import core_v1
from machinery import quantity

GUARANTEED, BURSTABLE, BEST_EFFORT = "Guaranteed", "Burstable", "BestEffort"
CPU_PERIOD = 100_000  # µs, the CFS quota period
MIN_QUOTA = 1_000
MIN_SHARES, MAX_SHARES = 2, 262_144
CGROUP_ROOT = "/kubepods"
COMPUTE = ("cpu", "memory")
SWAPPED_OUT_LAST, KILLED_FIRST = -997, 1000


@dataclass(frozen=True, slots=True)
class LinuxResources:
    """0 means unset."""

    shares: int
    quota: int
    memory_limit: int
    oom_score_adj: int = 0


def _quantities(source: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: amount for name, amount in (source or {}).items() if quantity.milli(amount) > 0}


def qos_class(spec: core_v1.PodSpec) -> str:
    """Guaranteed, Burstable or BestEffort, by cpu and memory of all containers (pod-level resources win)."""
    if spec.resources is not None and (spec.resources.requests or spec.resources.limits):
        claims: list[core_v1.ResourceRequirements | None] = [spec.resources]
    else:
        claims = [container.resources for container in (*spec.containers, *(spec.initContainers or ()))]
    guaranteed, any_compute = True, False
    for claim in claims:
        requests = _quantities(claim.requests if claim else None)
        limits = _quantities(claim.limits if claim else None)
        for name in COMPUTE:
            if name in requests or name in limits:
                any_compute = True
            if name not in limits or (
                name in requests and quantity.parse(requests[name]) != quantity.parse(limits[name])
            ):
                guaranteed = False
    if not any_compute:
        return BEST_EFFORT
    return GUARANTEED if guaranteed else BURSTABLE


def cgroup_parent(root: str, uid: str, qos: str) -> str:
    """The pod's cgroup below the machine's own, relative to the controllers' mounts."""
    tier = "" if qos == GUARANTEED else f"/{qos.lower()}"
    return f"/{root.strip('/')}{CGROUP_ROOT}{tier}/pod{uid}"


def cpu_shares(milli_cpu: int) -> int:
    """cgroup v1 shares of a request."""
    return max(MIN_SHARES, min(MAX_SHARES, milli_cpu * 1024 // 1000)) if milli_cpu else MIN_SHARES


def cpu_quota(milli_cpu: int) -> int:
    """CFS quota of a limit, 0 without one."""
    return max(MIN_QUOTA, milli_cpu * CPU_PERIOD // 1000) if milli_cpu else 0


def _milli(source: Mapping[str, Any] | None, name: str) -> int:
    amount = (source or {}).get(name)
    return quantity.milli(amount) if amount is not None else 0


def _value(source: Mapping[str, Any] | None, name: str) -> int:
    amount = (source or {}).get(name)
    return quantity.value(amount) if amount is not None else 0


def container_resources(
    container: core_v1.Container, qos: str, node_memory: int, priority: int | None = None
) -> LinuxResources:
    """What one container gets. A limit without request requests as much (the API server's default too)."""
    claim = container.resources
    requests, limits = (claim.requests, claim.limits) if claim else (None, None)
    request = _milli(requests, "cpu") or _milli(limits, "cpu")
    memory_request = _value(requests, "memory") or _value(limits, "memory")
    return LinuxResources(
        shares=cpu_shares(request),
        quota=cpu_quota(_milli(limits, "cpu")),
        memory_limit=_value(limits, "memory"),
        oom_score_adj=oom_score_adj(qos, memory_request, node_memory, priority),
    )


def oom_score_adj(qos: str, memory_request: int, node_memory: int, priority: int | None = None) -> int:
    """Who is killed first when the node runs out of memory."""
    if qos == GUARANTEED or (priority or 0) >= 2_000_000_000:
        return SWAPPED_OUT_LAST
    if qos == BEST_EFFORT or node_memory <= 0:
        return KILLED_FIRST
    score = 1000 - 1000 * memory_request // node_memory
    return max(3, min(score, 999))


def pod_requests(spec: core_v1.PodSpec, name: str) -> int:
    """The pod's request of cpu (milli) or another resource (whole units), as the scheduler counts it."""
    measure = _milli if name == "cpu" else _value

    def asks(container: core_v1.Container) -> int:
        return measure(container.resources.requests if container.resources else None, name)

    if spec.resources is not None and name in (spec.resources.requests or {}):
        return measure(spec.resources.requests, name) + measure(spec.overhead, name)
    total = _combine(spec, asks)
    return total + measure(spec.overhead, name)


def _combine(spec: core_v1.PodSpec, asks: Any) -> int:
    """Mains and sidecars run together; a plain init container runs beside the sidecars before it."""
    sidecars, peak = 0, 0
    for container in spec.initContainers or ():
        if container.restartPolicy == ALWAYS_RESTART:
            sidecars += asks(container)
            peak = max(peak, sidecars)
        else:
            peak = max(peak, sidecars + asks(container))
    return int(max(peak, sidecars + sum(asks(container) for container in spec.containers)))


ALWAYS_RESTART = "Always"


def pod_resources(spec: core_v1.PodSpec, qos: str) -> LinuxResources:
    """The limits of the pod's own cgroup: set only where every container has one (or at pod level)."""
    pod_level = spec.resources.limits if spec.resources else None

    def limit(name: str) -> int:
        measure = _milli if name == "cpu" else _value
        if pod_level and name in pod_level:
            return measure(pod_level, name)
        everyone = (*spec.containers, *(spec.initContainers or ()))
        if not all(name in ((each.resources.limits if each.resources else None) or {}) for each in everyone):
            return 0
        total = _combine(spec, lambda each: measure(each.resources.limits if each.resources else None, name))
        return total + measure(spec.overhead, name)

    shares = MIN_SHARES if qos == BEST_EFFORT else cpu_shares(pod_requests(spec, "cpu"))
    return LinuxResources(shares=shares, quota=cpu_quota(limit("cpu")), memory_limit=limit("memory"))
