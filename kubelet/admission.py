"""May a pod that was bound to this node run on it? Upstream's reasons and messages. Pure; called when a pod appears."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from api.models import core_v1
from api.node_selectors import admits
from kubelet import qos
from machinery import quantity


@dataclass(frozen=True, slots=True)
class Rejection:
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Allocatable:
    """What the node offers to pods."""

    cpu_milli: int
    memory: int
    pods: int


def admit(
    pod: core_v1.Pod, others: Iterable[core_v1.Pod], node_labels: Mapping[str, str], node_name: str, room: Allocatable
) -> Rejection | None:
    """None, or why not. `others` are the pods on this node that have not ended."""
    spec = pod.spec
    assert spec is not None
    if not admits(spec, node_labels, node_name):
        return Rejection(
            "NodeAffinity",
            "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        )
    present = [other.spec for other in others if other.spec is not None]
    taken = {each for other in present for each in _host_ports(other)}
    if any(_conflict(one, other) for one in _host_ports(spec) for other in taken):
        return Rejection(
            "NodePorts",
            "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        )
    if len(present) + 1 > room.pods:
        return _out_of("pods", 1, len(present), room.pods)
    for name, capacity in (("cpu", room.cpu_milli), ("memory", room.memory)):
        wanted = qos.pod_requests(spec, name)
        used = sum(qos.pod_requests(other, name) for other in present) if wanted else 0
        if wanted and wanted + used > capacity:
            return _out_of(name, wanted, used, capacity)
    return None


def resize(pod: core_v1.Pod, others: Iterable[core_v1.Pod], room: Allocatable) -> tuple[str, str]:
    """Whether the node can give a running pod what it now asks: ("", ""), or Deferred or Infeasible and why."""
    spec = pod.spec
    assert spec is not None
    present = [other.spec for other in others if other.spec is not None]
    later = ("", "")
    for name, capacity in (("cpu", room.cpu_milli), ("memory", room.memory)):
        wanted = qos.pod_requests(spec, name)
        if wanted > capacity:
            why = f"Node didn't have enough capacity: {name}, requested: {wanted}, capacity: {capacity}"
            return "Infeasible", why
        used = sum(qos.pod_requests(other, name) for other in present)
        if wanted + used > capacity and not later[0]:
            why = f"Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, capacity: {capacity}"
            later = ("Deferred", why)
    return later


def _out_of(resource: str, requested: int, used: int, capacity: int) -> Rejection:
    return Rejection(
        f"OutOf{resource}",
        f"Pod was rejected: Node didn't have enough resource: {resource}, "
        f"requested: {requested}, used: {used}, capacity: {capacity}",
    )


def _host_ports(spec: core_v1.PodSpec) -> Iterator[tuple[str, str, int]]:
    """(address, protocol, port) of every port that containers hold on the node as long as the pod lives."""
    sidecars = (each for each in spec.initContainers or () if each.restartPolicy == "Always")
    for container in (*spec.containers, *sidecars):
        for port in container.ports or ():
            if port.hostPort:
                yield port.hostIP or "0.0.0.0", port.protocol or "TCP", port.hostPort


def _conflict(one: tuple[str, str, int], other: tuple[str, str, int]) -> bool:
    return one[1:] == other[1:] and (one[0] == other[0] or "0.0.0.0" in (one[0], other[0]))


def allocatable(cpu: str, memory: str, pods: int, eviction_hard_memory: str = "100Mi") -> Allocatable:
    """Declared capacity minus what hard eviction keeps back."""
    return Allocatable(quantity.milli(cpu), max(quantity.value(memory) - quantity.value(eviction_hard_memory), 0), pods)
