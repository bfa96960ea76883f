"""What a cluster has on this machine, from its configuration: machines, their network, cgroups, folders."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from cli.layout import ClusterConfig, ClusterPaths, NodeConfig
from cloud.machine import Machine
from cloud.network import Underlay

CGROUP: Final = "nanokube"


def cluster_cgroup(name: str) -> str:
    """The cgroup under which everything of a cluster runs."""
    return f"{CGROUP}/{name}"


def machine_of(config: ClusterConfig, paths: ClusterPaths, node: NodeConfig) -> Machine:
    """The machine of a node."""
    return Machine(
        name=node.name,
        underlay=underlay_of(config, paths),
        netns=paths.node_netns(node.name),
        address=config.node_ip(node),
        cgroup=f"{cluster_cgroup(config.name)}/{node.name}",
        cpu=node.cpu,
        memory=node.memory,
    )


def underlay_of(config: ClusterConfig, paths: ClusterPaths) -> Underlay:
    """The network of a cluster's machines."""
    return Underlay(str(config.index), config.underlay, paths.switch_netns, paths.host_netns)


def remove_tree(folder: Path) -> None:
    """Unmount everything below a folder and delete it; nothing there is fine."""
    from linux.mount import unmount_below

    unmount_below(str(folder))
    shutil.rmtree(folder, ignore_errors=True)
