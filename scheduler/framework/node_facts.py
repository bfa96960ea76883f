"""What the scheduler reads from a Node object. Pure; used by the snapshot and by queueing hints."""

from __future__ import annotations

from collections.abc import Mapping

from api.models import core_v1
from scheduler.framework import resources

Taint = tuple[str, str, str]  # (key, value, effect)
TaintSet = tuple[Taint, ...]


def name(node: core_v1.Node) -> str:
    return (node.metadata.name if node.metadata is not None else None) or ""


def labels(node: core_v1.Node) -> Mapping[str, str]:
    return (node.metadata.labels if node.metadata is not None else None) or {}


def taints(node: core_v1.Node) -> TaintSet:
    taints = (node.spec.taints if node.spec is not None else None) or ()
    return tuple((taint.key, taint.value or "", taint.effect) for taint in taints)


def unschedulable(node: core_v1.Node) -> bool:
    return node.spec is not None and bool(node.spec.unschedulable)


def allocatable(node: core_v1.Node) -> dict[str, int]:
    status = node.status
    return resources.amounts((status.allocatable or status.capacity) if status is not None else None)


def images(node: core_v1.Node) -> dict[str, int]:
    listed = (node.status.images if node.status is not None else None) or ()
    return {name: image.sizeBytes or 0 for image in listed for name in image.names or ()}


def balance(cpu_used: float, cpu: int, memory_used: float, memory: int) -> int:
    """How alike the used shares of CPU and memory are: 100 when equal, 50 when one is full and the other empty."""
    if not cpu or not memory:
        return 100
    return int((1.0 - abs(min(cpu_used / cpu, 1.0) - min(memory_used / memory, 1.0)) * 0.5) * 100.0)
