"""The next node of a group, as the simulation adds it: a ready node of the group made clean, or the cloud's template.

A real node is preferred: it cannot lie about what the kubelet and the system keep for themselves. DaemonSets' pods that
would run on it are part of it. Pure.
"""
# mypy: disable-error-code="union-attr,type-var"

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from api.daemons import daemon_pod
from api.models import apps_v1, core_v1, meta_v1
from cluster_autoscaler import node_facts as facts
from cluster_autoscaler.simulation import Simulator
from scheduler.framework.pod_info import PodInfo

HOSTNAME: Final = "kubernetes.io/hostname"
# Of a node's condition or of its start, not of what it will be.
_PASSING_TAINTS: Final = frozenset(
    {
        facts.TO_BE_DELETED,
        facts.CANDIDATE,
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
        "node.kubernetes.io/unschedulable",
        "node.kubernetes.io/memory-pressure",
        "node.kubernetes.io/disk-pressure",
        "node.kubernetes.io/pid-pressure",
        "node.kubernetes.io/network-unavailable",
        "node.cloudprovider.kubernetes.io/uninitialized",
        "node.cloudprovider.kubernetes.io/shutdown",
    }
)
_PASSING_PREFIXES: Final = (
    "startup-taint.cluster-autoscaler.kubernetes.io/",
    "status-taint.cluster-autoscaler.kubernetes.io/",
    "ignore-taint.cluster-autoscaler.kubernetes.io/",
)


@dataclass(frozen=True, slots=True)
class Template:
    """A node to make copies of, and the DaemonSets' pods that run on each."""

    group: str
    node: core_v1.Node
    daemons: tuple[core_v1.Pod, ...] = ()

    def copy(self, name: str) -> core_v1.Node:
        """A node of its own name."""
        metadata = self.node.metadata
        labels = {**(metadata.labels or {}), HOSTNAME: name}
        return core_v1.Node(
            metadata=msgspec.structs.replace(metadata, name=name, labels=labels),
            spec=self.node.spec,
            status=self.node.status,
        )

    def daemon_infos(self, name: str) -> list[PodInfo]:
        """The pods of DaemonSets on that copy."""
        made = []
        for each in self.daemons:
            own = f"{each.metadata.name}-{name}"
            metadata = msgspec.structs.replace(each.metadata, name=own, uid=f"daemon/{each.metadata.namespace}/{own}")
            made.append(PodInfo(core_v1.Pod(metadata=metadata, spec=each.spec)))
        return made

    def add_to(self, simulator: Simulator, name: str) -> None:
        """Put a copy and its daemons into the snapshot."""
        simulator.snapshot.set_node(self.copy(name))
        for info in self.daemon_infos(name):
            simulator.snapshot.add_pod(info, name)


def sanitized(node: core_v1.Node, name: str) -> core_v1.Node:
    """Without what only this node, or only this moment, has."""
    labels = {**facts.labels(node), HOSTNAME: name}
    spec = node.spec
    taints = [
        each
        for each in (spec.taints if spec is not None else None) or ()
        if each.key not in _PASSING_TAINTS and not each.key.startswith(_PASSING_PREFIXES)
    ]
    status = node.status
    return core_v1.Node(
        metadata=meta_v1.ObjectMeta(name=name, labels=labels),
        spec=core_v1.NodeSpec(taints=taints or None),
        status=core_v1.NodeStatus(
            allocatable=status.allocatable if status is not None else None,
            capacity=status.capacity if status is not None else None,
            images=status.images if status is not None else None,
        ),
    )


def make(
    simulator: Simulator,
    group: str,
    samples: Iterable[core_v1.Node],
    told: core_v1.Node | None,
    daemons: Sequence[apps_v1.DaemonSet],
) -> Template | None:
    """The group's template; None when neither a good node nor the cloud can tell. `samples`: the group's nodes."""
    good = [node for node in samples if facts.is_ready(node) and not facts.is_being_deleted(node)]
    source = min(good, key=facts.name) if good else told
    if source is None:
        return None
    node = sanitized(source, f"template-node-for-{group}")
    if not facts.allocatable(node):
        return None
    name = facts.name(node)
    wanted: list[core_v1.Pod] = []
    with simulator.fork():
        simulator.snapshot.set_node(node)
        for daemon in daemons:
            pod = daemon_pod(daemon)
            if pod is None:
                continue
            info = PodInfo(pod)
            if simulator.fits_on(info, name):
                simulator.snapshot.add_pod(info, name)
                wanted.append(pod)
    return Template(group, node, tuple(wanted))
