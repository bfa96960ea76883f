"""The node that a group's next machine will be, as an autoscaler wants it for its simulation: empty and ready. Pure."""

from __future__ import annotations

import platform
from typing import Any

from cloud.model import ZONES, Group, InstanceType, node_labels
from machinery import quantity

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
EVICTION_MEMORY = quantity.value("100Mi")  # what a kubelet keeps back for hard eviction
HOLLOW_LABELS = {"nanokube.io/hollow": "true", "node-role.kubernetes.io/hollow": ""}
HOLLOW_STORAGE = 64 << 30


def template_node(group: Group, kind: InstanceType, disk: int) -> dict[str, Any]:
    """core/v1 Node. It lies in the group's first zone. `disk`: bytes that a real machine sees."""
    storage = HOLLOW_STORAGE if group.hollow else disk
    name = f"template-{group.name}"
    machine = platform.machine()
    arch = ARCHITECTURES.get(machine, machine)
    memory = quantity.value(kind.memory)
    common = {
        "cpu": quantity.canonical(kind.cpu),
        "pods": str(kind.maxPods),
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "beta.kubernetes.io/arch": arch,
                "beta.kubernetes.io/os": "linux",
                "kubernetes.io/arch": arch,
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                **(HOLLOW_LABELS if group.hollow else {}),
                **node_labels(group, (group.zones or ZONES)[0]),
            },
        },
        "spec": {"taints": [_taint(each.key, each.value, each.effect) for each in group.taints]},
        "status": {
            "capacity": {
                **common,
                "memory": f"{memory // 1024}Ki",
                "ephemeral-storage": f"{storage // 1024}Ki",
            },
            "allocatable": {
                **common,
                "memory": f"{max(memory - EVICTION_MEMORY, 0) // 1024}Ki",
                "ephemeral-storage": str(storage * 9 // 10),
            },
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "nodeInfo": {"architecture": arch, "operatingSystem": "linux"},
        },
    }


def _taint(key: str, value: str, effect: str) -> dict[str, str]:
    return {"key": key, "effect": effect, **({"value": value} if value else {})}
