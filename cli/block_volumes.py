"""`up --block-volumes`: what volumes of this machine are made of, and the objects that make their driver known.

Owns that choice (docs/adr/0011), the CSIDriver, the class `block`, and the account of the driver's controller-side
loops. Called by `up`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from cli.addon_objects import READ, Addon, Placed, election, rule
from cli.errors import CommandError
from cli.layout import ClusterConfig, NodeConfig
from cli.output import say
from cloud.model import ZONE_LABEL, ZONES
from cloud.volumes_model import attach_limit
from linux import loop
from linux.probe import probe
from machinery import quantity

DRIVER: Final = "block.csi.nanokube.io"
CLASS: Final = "block"
ACCOUNT: Final = "csi-controllers"
FILESYSTEMS: Final = {"ext4": ("mkfs.ext4", "e2fsprogs"), "xfs": ("mkfs.xfs", "xfsprogs")}
_STORAGE: Final = "storage.k8s.io"


def choose(config: ClusterConfig, *, cloud: bool) -> None:
    """Decide what volumes are made of, once for a cluster's life. Raises CommandError where there can be none."""
    if config.block_volumes:
        return
    if not (cloud and config.has_machines):
        raise CommandError("--block-volumes wants a cloud and workers (not with --only)", 2)
    if loop.available():
        config.block_volumes, config.block_filesystem = "loop", _filesystem()
    else:
        config.block_volumes, config.block_filesystem = "folder", ""
        say("this machine has no loop devices: block volumes are folders, whose size is only a number")


def _filesystem() -> str:
    """ext4, unless it could not grow while it is mounted: for that the kernel demands a capability that we may lack."""
    known = Path("/proc/filesystems").read_text().split()
    return "xfs" if "xfs" in known and not probe().can("SYS_RESOURCE") else "ext4"


def programs(config: ClusterConfig) -> dict[str, str]:
    """Program -> Debian package that volumes need."""
    return dict([FILESYSTEMS[config.block_filesystem]]) if config.block_filesystem else {}


def zone_of(node: NodeConfig) -> str:
    """The zone of a machine: as it is labelled, or the first."""
    labels = dict(part.partition("=")[::2] for part in node.labels.split(",") if part)
    return labels.get(ZONE_LABEL, ZONES[0])


def slots_of(node: NodeConfig) -> int:
    """How many volumes a machine can have."""
    return attach_limit(quantity.milli(node.cpu) / 1000)


def objects(config: ClusterConfig) -> Iterator[Placed]:
    """(collection, object)."""
    addon = Addon(ACCOUNT)
    yield addon.account()
    rules: list[dict[str, Any]] = [
        rule([""], ["persistentvolumes"], (*READ, "create", "patch", "update", "delete")),
        rule([""], ["persistentvolumeclaims"], (*READ, "patch", "update")),
        rule([""], ["persistentvolumeclaims/status"], ("patch", "update")),
        rule([""], ["nodes"]),
        rule([""], ["secrets"], ("get",)),
        rule(["", "events.k8s.io"], ["events"], ("create", "patch", "update")),
        rule([_STORAGE], ["storageclasses", "csinodes"]),
        rule([_STORAGE], ["volumeattachments"], (*READ, "patch")),
        rule([_STORAGE], ["volumeattachments/status"], ("patch",)),
        *election(f"{ACCOUNT}-{DRIVER.replace('.', '-')}"),
    ]
    yield addon.cluster_role(f"system:{ACCOUNT}", rules)
    yield addon.cluster_binding(f"system:{ACCOUNT}", f"system:{ACCOUNT}")
    driver = {
        "attachRequired": True,
        "podInfoOnMount": False,
        "fsGroupPolicy": "File",
        "volumeLifecycleModes": ["Persistent"],
        "storageCapacity": False,
    }
    version = f"{_STORAGE}/v1"
    made: dict[str, Any] = {"apiVersion": version, "kind": "CSIDriver", "metadata": {"name": DRIVER}, "spec": driver}
    yield f"/apis/{version}/csidrivers", made
    filesystem = config.block_filesystem
    parameters = {"csi.storage.k8s.io/fstype": filesystem} if filesystem else {}
    yield (
        f"/apis/{version}/storageclasses",
        {
            "apiVersion": version,
            "kind": "StorageClass",
            "metadata": {"name": CLASS},
            "provisioner": DRIVER,
            "parameters": parameters,
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "WaitForFirstConsumer",
            "allowVolumeExpansion": True,
        },
    )
