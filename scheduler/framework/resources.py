"""What a pod asks for and what a node offers, as integers.

Sums are exact: quantities are added in billionths (the finest grain a Kubernetes quantity has) and rounded up once,
to milli-CPU for `cpu` and to whole units for everything else. Never fails: a quantity that does not parse, which the
API server would not have stored, counts as nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, cast

from api.models import core_v1
from machinery import quantity

CPU: Final = "cpu"
MEMORY: Final = "memory"
EPHEMERAL_STORAGE: Final = "ephemeral-storage"
PODS: Final = "pods"

# A container that states no request still takes something: the scores (never the filters) count it with these.
DEFAULT_MILLI_CPU: Final = 100
DEFAULT_MEMORY: Final = 200 * 1024 * 1024

# One petabyte, or a million million CPUs: sums of the amounts of a whole node stay exact in a 64-bit float.
CEILING: Final = 2**50

_NANO: Final = 10**9
_DEFAULTS: Final = {CPU: DEFAULT_MILLI_CPU * _NANO // 1000, MEMORY: DEFAULT_MEMORY * _NANO}

Nanos = dict[str, int]


@lru_cache(maxsize=8192)
def _nanos(text: str) -> int:
    try:
        return math.ceil(quantity.parse(text) * _NANO)
    except ValueError:
        return 0


def _amount(resource: str, nanos: int) -> int:
    unit = 1_000_000 if resource == CPU else _NANO
    return max(0, min(-(-nanos // unit), CEILING))


def is_counted(resource: str) -> bool:
    """Whether the scheduler keeps account of this resource: the built-in ones, and extended or prefixed ones."""
    return (
        resource in (CPU, MEMORY, EPHEMERAL_STORAGE, PODS)
        or "/" in resource
        or resource.startswith(("hugepages-", "attachable-volumes-"))
    )


def amounts(listed: Mapping[str, Any] | None) -> dict[str, int]:
    """A ResourceList (such as a node's allocatable) as integers."""
    return {name: _amount(name, _nanos(str(text))) for name, text in (listed or {}).items() if is_counted(name)}


def _add(total: Nanos, more: Mapping[str, int]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + value


def _raise_to(total: Nanos, floor: Mapping[str, int]) -> None:
    for name, value in floor.items():
        if value > total.get(name, 0):
            total[name] = value


def _listed(requests: Mapping[str, Any] | None, missing: Mapping[str, int]) -> Nanos:
    parsed = {name: _nanos(str(text)) for name, text in requests.items()} if requests else {}
    for name, value in missing.items():
        parsed.setdefault(name, value)
    return parsed


Lookup = Callable[[core_v1.Container], Mapping[str, Any] | None]


def _spec_requests(container: core_v1.Container) -> Mapping[str, Any] | None:
    return container.resources.requests if container.resources is not None else None


def is_sidecar(container: core_v1.Container) -> bool:
    """A restartable init container: it goes on running beside the regular ones."""
    return container.restartPolicy == "Always"


def _aggregate(spec: core_v1.PodSpec, lookup: Lookup, missing: Mapping[str, int]) -> Nanos:
    """Regular containers and sidecars add up; a plain init container needs its own share on top of the sidecars
    started before it, and the pod needs the largest of these moments (KEP-753)."""
    total: Nanos = {}
    for container in spec.containers:
        _add(total, _listed(lookup(container), missing))
    if spec.initContainers:
        started: Nanos = {}
        peak: Nanos = {}
        for container in spec.initContainers:
            own = _listed(lookup(container), missing)
            if is_sidecar(container):
                _add(total, own)
                _add(started, own)
                own = started
            else:
                _add(own, started)
            _raise_to(peak, own)
        _raise_to(total, peak)
    return total


def _pod_level(spec: core_v1.PodSpec) -> Nanos:
    listed = spec.resources.requests if spec.resources is not None else None
    return {
        name: _nanos(str(text))
        for name, text in (listed or {}).items()
        if name in (CPU, MEMORY) or name.startswith("hugepages-")
    }


def _resized(status: core_v1.PodStatus | None) -> Iterable[Lookup]:
    """What the kubelet has allocated and set for containers that are being resized in place (KEP-1287)."""
    if status is None:
        return ()
    states = [*(status.containerStatuses or ()), *(status.initContainerStatuses or ())]
    if not any(state.allocatedResources or state.resources is not None for state in states):
        return ()
    by_name = {state.name: state for state in states}

    def allocated(container: core_v1.Container) -> Mapping[str, Any] | None:
        state = by_name.get(container.name)
        if state is not None and state.allocatedResources:
            return cast("Mapping[str, Any]", state.allocatedResources)
        return _spec_requests(container)

    def actuated(container: core_v1.Container) -> Mapping[str, Any] | None:
        state = by_name.get(container.name)
        if state is not None and state.resources is not None and state.resources.requests is not None:
            return cast("Mapping[str, Any]", state.resources.requests)
        return allocated(container)

    return (allocated, actuated)


def _requests(pod: core_v1.Pod, missing: Mapping[str, int]) -> Nanos:
    spec = pod.spec
    if spec is None:
        return {}
    total = _aggregate(spec, _spec_requests, missing)
    for lookup in _resized(pod.status):
        _raise_to(total, _aggregate(spec, lookup, missing))
    total.update(_pod_level(spec))
    if spec.overhead:
        _add(total, _listed(spec.overhead, {}))
    return total


def pod_requests(pod: core_v1.Pod) -> dict[str, int]:
    """What the pod needs of each resource at its most demanding moment: what filters count."""
    return {
        name: _amount(name, nanos) for name, nanos in _requests(pod, {}).items() if is_counted(name) and name != PODS
    }


def scoring_requests(pod: core_v1.Pod) -> tuple[int, int]:
    """(milli-CPU, bytes of memory) with the defaults for containers that state none: what scores count."""
    missing = _DEFAULTS
    spec = pod.spec
    if spec is not None and (stated := _pod_level(spec)):
        missing = {name: value for name, value in _DEFAULTS.items() if name not in stated}
    total = _requests(pod, missing)
    return _amount(CPU, total.get(CPU, 0)), _amount(MEMORY, total.get(MEMORY, 0))
