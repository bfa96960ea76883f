"""A pod as the scheduler sees it: what was computed once when its informer event came.

Owns no state of the queue or of a scheduling attempt. Made by event handlers and by simulations; read by plugins.
"""

from __future__ import annotations

from datetime import UTC, datetime

from api.models import core_v1
from api.volumes import claims_of
from machinery.meta import ObjectKey
from scheduler.framework import resources
from scheduler.framework.pod_terms import pod_affinity

ANY_IP = "0.0.0.0"
DEFAULT_SCHEDULER = "default-scheduler"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

ClassKey = tuple[str, frozenset[tuple[str, str]], bool]
Disk = tuple[str, frozenset[str], bool]  # (kind and name, its names, read-only)
HostPort = tuple[str, str, int]  # (protocol, IP, port)


def host_ports(spec: core_v1.PodSpec) -> tuple[HostPort, ...]:
    """Ports the pod takes on its node: those of regular containers and sidecars."""
    containers = list(spec.containers)
    containers += [each for each in spec.initContainers or () if resources.is_sidecar(each)]
    return tuple(
        (port.protocol or "TCP", port.hostIP or ANY_IP, port.hostPort)
        for container in containers
        for port in container.ports or ()
        if port.hostPort
    )


def disks(spec: core_v1.PodSpec) -> tuple[Disk, ...]:
    """In-tree disks that two pods of one node cannot both have; two are the same if they share kind and a name."""
    found: list[Disk] = []
    for volume in spec.volumes or ():
        if volume.gcePersistentDisk is not None:
            gce = volume.gcePersistentDisk
            found.append(("gce", frozenset((gce.pdName,)), bool(gce.readOnly)))
        elif volume.awsElasticBlockStore is not None:
            found.append(("aws", frozenset((volume.awsElasticBlockStore.volumeID,)), False))
        elif volume.iscsi is not None:
            found.append(("iscsi", frozenset((volume.iscsi.iqn,)), bool(volume.iscsi.readOnly)))
        elif volume.rbd is not None:
            rbd = volume.rbd
            kind = f"rbd/{rbd.pool or 'rbd'}/{rbd.image}"
            found.append((kind, frozenset(rbd.monitors or ()), bool(rbd.readOnly)))
    return tuple(found)


def is_assigned(pod: core_v1.Pod) -> bool:
    return pod.spec is not None and bool(pod.spec.nodeName)


def is_terminal(pod: core_v1.Pod) -> bool:
    """A pod that has ended holds no resources and is not scheduled."""
    return pod.status is not None and pod.status.phase in ("Succeeded", "Failed")


def _controller(pod: core_v1.Pod) -> tuple[str, str]:
    """Kind and name of the workload that controls the pod; two empty texts when there is none."""
    for owner in (pod.metadata.ownerReferences if pod.metadata is not None else None) or ():
        if owner.controller:
            return owner.kind, owner.name
    return "", ""


class PodInfo:
    """A pod with its derived facts. Immutable apart from `signature`, which a framework fills in on first use."""

    __slots__ = (
        "affinity",
        "claims",
        "created",
        "disks",
        "host_ports",
        "key",
        "labels",
        "name",
        "namespace",
        "owner",
        "pod",
        "priority",
        "requests",
        "scoring_cpu",
        "scoring_memory",
        "signature",
        "spec",
        "terminating",
        "uid",
    )

    def __init__(self, pod: core_v1.Pod) -> None:
        metadata = pod.metadata
        self.pod = pod
        self.spec = pod.spec if pod.spec is not None else core_v1.PodSpec(containers=[])
        self.name = (metadata.name if metadata is not None else None) or ""
        self.namespace = (metadata.namespace if metadata is not None else None) or ""
        self.key = f"{self.namespace}/{self.name}"
        self.uid = self.uid_of(pod)
        self.created = (metadata.creationTimestamp if metadata is not None else None) or _EPOCH
        self.priority = self.spec.priority or 0
        self.requests = resources.pod_requests(pod)
        self.scoring_cpu, self.scoring_memory = resources.scoring_requests(pod)
        self.host_ports = host_ports(self.spec)
        self.claims = claims_of(pod) if self.spec.volumes else ()
        self.disks = disks(self.spec) if self.spec.volumes else ()
        self.labels = (metadata.labels if metadata is not None else None) or {}
        self.terminating = metadata is not None and metadata.deletionTimestamp is not None
        self.affinity = pod_affinity(self.namespace, self.labels, self.spec.affinity)
        self.owner = _controller(pod)
        self.signature: bytes | None = None

    @staticmethod
    def uid_of(pod: core_v1.Pod) -> str:
        """A pod of a simulation may have no uid; its key is as good while there is one of it."""
        metadata = pod.metadata
        if metadata is None:
            return ""
        return metadata.uid or f"{metadata.namespace or ''}/{metadata.name or ''}"

    @property
    def object_key(self) -> ObjectKey:
        return ObjectKey(self.namespace, self.name)

    @property
    def node_name(self) -> str:
        return self.spec.nodeName or ""

    @property
    def class_key(self) -> ClassKey:
        """The same for pods that other pods cannot tell apart. Not kept: there may be very many pods."""
        return self.namespace, frozenset(self.labels.items()), self.terminating

    @property
    def nominated_node(self) -> str:
        return self.nominated_in(self.pod)

    @staticmethod
    def nominated_in(pod: core_v1.Pod) -> str:
        """The node that a pod's status says it was promised."""
        return (pod.status.nominatedNodeName if pod.status is not None else None) or ""

    @property
    def leaves_by_preemption(self) -> bool:
        """Whether the pod is being deleted because a scheduler preempted it."""
        conditions = (self.pod.status.conditions if self.pod.status is not None else None) or ()
        return self.terminating and any(
            each.type == "DisruptionTarget" and each.status == "True" and each.reason == "PreemptionByScheduler"
            for each in conditions
        )

    @property
    def scheduler_name(self) -> str:
        return self.spec.schedulerName or DEFAULT_SCHEDULER

    def occupies_as(self, other: PodInfo) -> bool:
        """Whether both take the same room on a node and mean the same to other pods."""
        return (
            self.requests == other.requests
            and self.scoring_cpu == other.scoring_cpu
            and self.scoring_memory == other.scoring_memory
            and self.host_ports == other.host_ports
            and self.labels == other.labels
            and self.terminating == other.terminating
            and self.affinity is other.affinity
            and self.priority == other.priority
        )

    def __repr__(self) -> str:
        return f"PodInfo({self.key})"
