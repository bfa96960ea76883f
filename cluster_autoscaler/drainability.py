"""Which pods keep a node from being taken away. Pure; reasons are cluster-autoscaler's.

A pod may say for itself whether it may be moved (`cluster-autoscaler.kubernetes.io/safe-to-evict`); otherwise it must
have a controller that makes it again, keep nothing on the node, and be no unguarded part of the system.
"""
# mypy: disable-error-code="union-attr"

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from api.models import core_v1
from cluster_autoscaler import node_facts as facts
from cluster_autoscaler.options import Options
from scheduler.framework.pod_info import PodInfo, is_terminal
from scheduler.framework.preemption import Budget

SAFE_TO_EVICT: Final = "cluster-autoscaler.kubernetes.io/safe-to-evict"
LOCAL_VOLUMES: Final = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
CONTROLLERS: Final = frozenset({"ReplicationController", "ReplicaSet", "Job", "StatefulSet"})
Exists = Callable[[str, str, str], bool | None]
"""(kind, namespace, name) → whether that controller exists; None when nobody looks after such ones."""


@dataclass(frozen=True, slots=True)
class Blocking:
    """The pod that holds the node."""

    pod: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Drain:
    """`moving` need a place elsewhere; `daemons` go with the node."""

    moving: tuple[PodInfo, ...] = ()
    daemons: tuple[PodInfo, ...] = ()
    blocking: Blocking | None = None


def local_storage(pod: core_v1.Pod) -> list[str]:
    """Volumes that would be lost and that nobody called dispensable."""
    listed = facts.notes(pod).get(LOCAL_VOLUMES, "").split(",")
    spared = {each.strip() for each in listed}
    return [
        volume.name
        for volume in (pod.spec.volumes if pod.spec is not None else None) or ()
        if (volume.hostPath is not None or (volume.emptyDir is not None and volume.emptyDir.medium != "Memory"))
        and volume.name not in spared
    ]


def judge(pod: PodInfo, options: Options, exists: Exists, budgets: Sequence[Budget]) -> Blocking | None:
    """Why the pod cannot be moved; None when it can."""
    safe = facts.notes(pod.pod).get(SAFE_TO_EVICT)
    if safe == "true":
        return None
    return (
        _unreplicated(pod, options, exists)
        or _system(pod, options, budgets)
        or (
            Blocking(pod.key, "NotSafeToEvictAnnotation", f"pod annotated as not safe to evict present: {pod.name}")
            if safe == "false"
            else None
        )
        or _stored(pod, options)
    )


def _unreplicated(pod: PodInfo, options: Options, exists: Exists) -> Blocking | None:
    kind, name = pod.owner
    if not kind:
        return Blocking(pod.key, "NotReplicated", f"{pod.key} is not replicated")
    if kind not in CONTROLLERS:
        if options.skip_custom_controllers:
            return Blocking(pod.key, "NotReplicated", f"{pod.key} is not replicated")
        return None
    if exists(kind, pod.namespace, name) is False:
        message = f"{kind} for {pod.key} is not available, err: {name} not found"
        return Blocking(pod.key, "ControllerNotFound", message)
    return None


def _system(pod: PodInfo, options: Options, budgets: Sequence[Budget]) -> Blocking | None:
    if not options.skip_system_pods or pod.namespace != "kube-system":
        return None
    if any(budget.namespace == pod.namespace and budget.selector.matches(pod.labels) for budget in budgets):
        return None
    message = f"non-daemonset, non-mirrored, non-pdb-assigned kube-system pod present: {pod.name}"
    return Blocking(pod.key, "UnmovableKubeSystemPod", message)


def _stored(pod: PodInfo, options: Options) -> Blocking | None:
    if options.skip_local_storage and local_storage(pod.pod):
        return Blocking(pod.key, "LocalStorageRequested", f"pod with local storage present: {pod.name}")
    return None


def drain(pods: Iterable[PodInfo], options: Options, exists: Exists, budgets: Sequence[Budget]) -> Drain:
    """Everything on a node, sorted; the first pod that holds it ends the work."""
    moving: list[PodInfo] = []
    daemons: list[PodInfo] = []
    used: dict[int, int] = {}
    for pod in sorted(pods, key=lambda each: each.key):
        if is_terminal(pod.pod) or pod.terminating or facts.is_mirror(pod.pod):
            continue
        if pod.owner[0] == "DaemonSet":
            daemons.append(pod)
            continue
        blocking = judge(pod, options, exists, budgets)
        if blocking is not None:
            return Drain(blocking=blocking)
        for number, budget in enumerate(budgets):
            if budget.covers(pod):
                used[number] = used.get(number, 0) + 1
                if used[number] > budget.allowed:
                    message = f"not enough pod disruption budget to move {pod.key}"
                    return Drain(blocking=Blocking(pod.key, "NotEnoughPdb", message))
        moving.append(pod)
    return Drain(tuple(moving), tuple(daemons))
