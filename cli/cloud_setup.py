"""The cloud a cluster starts with: its workers as one node group, so that an autoscaler has something to grow.

Owns the first content of the cloud's state file, and the labels that workers register with. Called by `up`.
"""

from __future__ import annotations

import time

from cli import layout
from cli.layout import ClusterConfig, ClusterPaths, NodeConfig
from cli.processes import has_cloud
from cloud.model import ZONES, Group, Instance, State, instance_type, node_labels, standard_types
from cloud.store import Store

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
