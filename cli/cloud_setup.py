"""The cloud a cluster starts with: its workers as one node group, so that an autoscaler has something to grow.

Owns the first content of the cloud's state file, and the labels that workers register with,
and the cloud's rights. Called by `up`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from cli import hollow, layout
from cli.layout import ClusterConfig, ClusterPaths, NodeConfig
from cli.processes import has_cloud
from cloud.model import ZONES, Group, Instance, State, instance_type, node_labels, standard_types
from cloud.store import Store

USER = "system:cloud-controller-manager"
GROUP, PREFIX = "workers", "worker"
ROOM = 4  # how many machines more than at the start the group may have
BOOT_DELAY = 5.0


def workers(config: ClusterConfig) -> Group:
    """The node group of the workers that `up` starts."""
    count = len(config.nodes)
    size = config.nodes[0] if config.nodes else NodeConfig(name="", index=0)
    return Group(
        name=GROUP,
        type=instance_type(size.cpu, size.memory, size.max_pods).name,
        min=count,
        max=min(count + ROOM, layout.MAX_NODES),
        desired=count,
        prefix=PREFIX,
        zones=[ZONES[0]],
        bootDelay=BOOT_DELAY,
        next=count + 1,
    )


def rights() -> Iterator[tuple[str, dict[str, Any]]]:
    """(collection, object) of what the cloud and its hollow machines may do."""
    group = "rbac.authorization.k8s.io"
    role: dict[str, Any] = {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": USER}}
    rules = {
        "nodes": "get list watch update patch delete",
        "nodes/status": "patch",
        "pods": "get list watch",
        "pods/eviction": "create",
        "services": "get list watch update patch",
        "services/status": "update patch",
        "events": "create update patch",
    }
    role["rules"] = [
        {"apiGroups": [""], "resources": [resource], "verbs": verbs.split()} for resource, verbs in rules.items()
    ]
    yield f"/apis/{group}/v1/clusterroles", role
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": USER},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": USER},
        "subjects": [{"apiGroup": group, "kind": "User", "name": USER}],
    }
    yield f"/apis/{group}/v1/clusterrolebindings", binding
    yield f"/apis/{group}/v1/clusterroles", hollow.role()
    yield f"/apis/{group}/v1/clusterrolebindings", hollow.binding()


def enroll(config: ClusterConfig) -> None:
    """Let the workers of a new cluster be that group's."""
    group = workers(config)
    text = ",".join(f"{key}={value}" for key, value in node_labels(group, ZONES[0]).items())
    for node in config.nodes:
        node.group, node.labels = GROUP, text


def ensure(config: ClusterConfig, paths: ClusterPaths) -> None:
    """Write the state file of a new cluster; one that is there is kept."""
    if not has_cloud(config) or not config.has_machines or paths.cloud_state.exists():
        return
    group, now = workers(config), time.time() * config.time_scale
    size = config.nodes[0] if config.nodes else NodeConfig(name="", index=0)
    kind = instance_type(size.cpu, size.memory, size.max_pods)
    state = State(cluster=config.name, since=now, groups={GROUP: group}, types={**standard_types(), kind.name: kind})
    for node in config.nodes:
        state.instances[node.name] = Instance(
            name=node.name,
            group=GROUP,
            type=kind.name,
            zone=ZONES[0],
            price=kind.pricePerHour,
            created=now,
            phase="running",
            launched=now,
        )
    Store(paths.cloud_state).save(state)
