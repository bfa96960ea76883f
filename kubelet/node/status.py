"""The Node object a kubelet makes of itself: labels, capacity, conditions, images. Pure; written by `node.reporter`."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from machinery import quantity
from machinery.meta import rfc3339

KUBELET_VERSION = "v1.36.0"
NOT_READY_TAINT = "node.kubernetes.io/not-ready"
MAX_IMAGES = 50  # nodeStatusMaxImages
MAX_NAMES_PER_IMAGE = 5
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
READY_MESSAGE = "kubelet is posting ready status"
# condition -> (reason, message) without and with it
PRESSURES = {
    "MemoryPressure": (
        ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
    ),
    "DiskPressure": (
        ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("KubeletHasDiskPressure", "kubelet has disk pressure"),
    ),
    "PIDPressure": (
        ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
    ),
}


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What the flags say about this node."""

    name: str
    ip: str
    port: int
    cpu: str
    memory: str
    max_pods: int
    eviction_memory: str = "100Mi"
    ephemeral_storage: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What the machine says about itself."""

    machine_id: str = ""
    system_uuid: str = ""
    boot_id: str = ""
    kernel: str = ""
    os_image: str = ""
    runtime: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """What decides the Ready condition: "" means well."""

    runtime_problem: str = ""
    network_problem: str = ""
    pressures: frozenset[str] = frozenset()  # MemoryPressure, DiskPressure, PIDPressure where they hold

    @property
    def problems(self) -> str:
        return ", ".join(problem for problem in (self.runtime_problem, self.network_problem) if problem)


def architecture() -> str:
    machine = platform.machine()
    return ARCHITECTURES.get(machine, machine)


def node_labels(settings: NodeSettings) -> dict[str, str]:
    """The labels a node gives itself."""
    arch = architecture()
    return {
        "beta.kubernetes.io/arch": arch,
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": arch,
        "kubernetes.io/hostname": settings.name,
        "kubernetes.io/os": "linux",
        **settings.labels,
    }


def capacity(settings: NodeSettings) -> tuple[dict[str, str], dict[str, str]]:
    """(capacity, allocatable): what the machine has, and what is left after hard eviction's reserve."""
    memory = quantity.value(settings.memory)
    kept_back = quantity.value(settings.eviction_memory)
    common = {"cpu": quantity.canonical(settings.cpu), "hugepages-1Gi": "0", "hugepages-2Mi": "0"}
    whole = {**common, "memory": f"{memory // 1024}Ki", "pods": str(settings.max_pods)}
    usable = {**common, "memory": f"{max(memory - kept_back, 0) // 1024}Ki", "pods": str(settings.max_pods)}
    if settings.ephemeral_storage:
        whole["ephemeral-storage"] = f"{settings.ephemeral_storage // 1024}Ki"
        usable["ephemeral-storage"] = str(settings.ephemeral_storage * 9 // 10)  # nodefs.available<10%
    return whole, usable


def conditions(health: Health, known: Iterable[Mapping[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """The four conditions; transition times are kept where the status is."""
    before = {condition.get("type"): condition for condition in known}
    facts = [
        (kind, "True", *bad) if kind in health.pressures else (kind, "False", *good)
        for kind, (good, bad) in PRESSURES.items()
    ]
    if health.problems:
        facts.append(("Ready", "False", "KubeletNotReady", health.problems))
    else:
        facts.append(("Ready", "True", "KubeletReady", READY_MESSAGE))
    stamp = rfc3339(now)
    result = []
    for kind, status, reason, message in facts:
        old = before.get(kind)
        since = old.get("lastTransitionTime") if old is not None and old.get("status") == status else None
        result.append(
            {
                "type": kind,
                "status": status,
                "lastHeartbeatTime": stamp,
                "lastTransitionTime": since or stamp,
                "reason": reason,
                "message": message,
            }
        )
    return result


def image_list(images: Iterable[Any]) -> list[dict[str, Any]]:
    """CRI images as v1.ContainerImage, the largest first."""
    found = []
    for image in images:
        names = [*image.repo_digests, *image.repo_tags][:MAX_NAMES_PER_IMAGE]
        if names:
            found.append({"names": names, "sizeBytes": int(image.size)})
    return sorted(found, key=lambda entry: (-int(str(entry["sizeBytes"])), entry["names"]))[:MAX_IMAGES]


def node_status(
    settings: NodeSettings,
    info: NodeInfo,
    health: Health,
    images: Sequence[Mapping[str, Any]],
    known: Iterable[Mapping[str, Any]],
    now: datetime,
) -> dict[str, Any]:
    """The whole v1.NodeStatus as JSON."""
    whole, usable = capacity(settings)
    return {
        "capacity": whole,
        "allocatable": usable,
        "conditions": conditions(health, known, now),
        "addresses": [
            {"type": "InternalIP", "address": settings.ip},
            {"type": "Hostname", "address": settings.name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": settings.port}},
        "nodeInfo": {
            "machineID": info.machine_id,
            "systemUUID": info.system_uuid,
            "bootID": info.boot_id,
            "kernelVersion": info.kernel,
            "osImage": info.os_image,
            "containerRuntimeVersion": info.runtime,
            "kubeletVersion": KUBELET_VERSION,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": architecture(),
        },
        "images": list(images),
    }


def same_but_heartbeat(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether nothing but heartbeats differs, so that the write may wait for the long period."""

    def without(status: Mapping[str, Any]) -> dict[str, Any]:
        stripped = dict(status)
        stripped["conditions"] = [
            {key: value for key, value in condition.items() if key not in ("lastHeartbeatTime", "lastTransitionTime")}
            for condition in status.get("conditions") or ()
        ]
        return stripped

    return without(old) == without(new)


def new_node(settings: NodeSettings, status: Mapping[str, Any], pod_cidr: str = "") -> dict[str, Any]:
    """The Node to register: not to be scheduled to until it has been seen ready."""
    taints = [
        {"key": key, "effect": effect, **({"value": value} if value else {})} for key, value, effect in settings.taints
    ]
    spec: dict[str, Any] = {"taints": [*taints, {"key": NOT_READY_TAINT, "effect": "NoSchedule"}]}
    if pod_cidr:
        spec["podCIDR"], spec["podCIDRs"] = pod_cidr, [pod_cidr]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": settings.name,
            "labels": node_labels(settings),
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        },
        "spec": spec,
        "status": dict(status),
    }


def parse_taints(text: str) -> tuple[tuple[str, str, str], ...]:
    """`key=value:Effect,key:Effect` as (key, value, effect). Raises ValueError."""
    taints = []
    for part in filter(None, text.split(",")):
        pair, colon, effect = part.rpartition(":")
        key, _, value = pair.partition("=")
        if not colon or not key or effect not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
            raise ValueError(f"invalid taint {part!r}: want key[=value]:Effect")
        taints.append((key, value, effect))
    return tuple(taints)


def parse_labels(text: str) -> dict[str, str]:
    """`key=value,…`. Raises ValueError."""
    labels = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise ValueError(f"invalid label {part!r}: want key=value")
        labels[key] = value
    return labels
