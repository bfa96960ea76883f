"""What this machine says about itself: kernel, distribution, identities, disk. Small reads; called once at start."""

from __future__ import annotations

import os
import platform
import uuid
from pathlib import Path

from kubelet.node.status import NodeInfo


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _distribution() -> str:
    for line in _text("/etc/os-release").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip('"')
    return "Linux"


def machine_facts(node: str, runtime: str) -> NodeInfo:
    """Machines share a kernel but not their identity: ids are derived from the node's name where needed."""
    identity = uuid.uuid5(uuid.NAMESPACE_DNS, f"{_text('/etc/machine-id')}.{node}")
    return NodeInfo(
        machine_id=identity.hex,
        system_uuid=str(identity),
        boot_id=_text("/proc/sys/kernel/random/boot_id"),
        kernel=platform.release(),
        os_image=_distribution(),
        runtime=runtime,
    )


def disk_bytes(path: Path) -> int:
    """Size of the file system that holds `path` or its nearest existing parent."""
    for folder in (path, *path.parents):
        try:
            stats = os.statvfs(folder)
        except OSError:
            continue
        return stats.f_blocks * stats.f_frsize
    return 0
