"""What the autoscaler reads from nodes and pods. Pure."""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

import msgspec

from api.models import core_v1
from scheduler.framework.node_facts import allocatable, labels, name, taints

TO_BE_DELETED: Final = "ToBeDeletedByClusterAutoscaler"
CANDIDATE: Final = "DeletionCandidateOfClusterAutoscaler"
SCALE_DOWN_DISABLED: Final = "cluster-autoscaler.kubernetes.io/scale-down-disabled"
EVICT_DAEMON: Final = "cluster-autoscaler.kubernetes.io/enable-ds-eviction"
NOT_READY: Final = "node.kubernetes.io/not-ready"
STATIC_SOURCE: Final = "kubernetes.io/config.source"
MIRROR: Final = "kubernetes.io/config.mirror"

__all__ = [
    "CANDIDATE",
    "TO_BE_DELETED",
    "allocatable",
    "controller",
    "created",
    "has_taint",
    "is_being_deleted",
    "is_daemon",
    "is_mirror",
    "is_ready",
    "labels",
    "name",
    "notes",
    "provider_id",
    "taints",
    "without_node",
]


def notes(obj: core_v1.Node | core_v1.Pod) -> Mapping[str, str]:
    return obj.metadata.annotations or {}


def created(obj: core_v1.Node | core_v1.Pod) -> datetime | None:
    return obj.metadata.creationTimestamp


def provider_id(node: core_v1.Node) -> str:
    return (node.spec.providerID if node.spec is not None else None) or ""


def is_ready(node: core_v1.Node) -> bool:
    """Ready by its condition, and nobody says otherwise by a taint."""
    conditions: Iterable[core_v1.NodeCondition] = (node.status.conditions if node.status is not None else None) or ()
    ready = any(each.type == "Ready" and each.status == "True" for each in conditions)
    return ready and not has_taint(node, NOT_READY)


def has_taint(node: core_v1.Node, key: str) -> bool:
    return any(each[0] == key for each in taints(node))


def is_being_deleted(node: core_v1.Node) -> bool:
    """Whether it is on its way out."""
    return has_taint(node, TO_BE_DELETED) or node.metadata.deletionTimestamp is not None


def controller(pod: core_v1.Pod) -> tuple[str, str]:
    """Kind and name of the controller, or two empty texts."""
    for owner in pod.metadata.ownerReferences or ():
        if owner.controller:
            return owner.kind, owner.name
    return "", ""


def is_daemon(pod: core_v1.Pod) -> bool:
    return controller(pod)[0] == "DaemonSet"


def is_mirror(pod: core_v1.Pod) -> bool:
    """A static pod's image in the API."""
    return MIRROR in notes(pod) or notes(pod).get(STATIC_SOURCE, "api") != "api"


def evicts_daemon(pod: core_v1.Pod, default: bool) -> bool:
    """Whether a pod of a DaemonSet is evicted before its node goes: as the pod says, else as the flags do."""
    return {"true": True, "false": False}.get(notes(pod).get(EVICT_DAEMON, ""), default)


def without_node(pod: core_v1.Pod) -> core_v1.Pod:
    """The pod as its controller would make it again: on no node."""
    return core_v1.Pod(
        metadata=pod.metadata,
        spec=msgspec.structs.replace(pod.spec, nodeName=None) if pod.spec is not None else None,
    )
