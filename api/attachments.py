"""Attachable volumes: their names, and which there are; shared by the attach/detach controller and the kubelet.

Pure functions on typed objects. Names are upstream's: a volume's in a Node's status, a VolumeAttachment's from volume
handle, driver and node (pkg/volume/csi/csi_attacher.go), so that either side could be the original.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

import hashlib
from typing import Final

from api.models import storage_v1
from api.volumes import Volume

MANAGED: Final = "volumes.kubernetes.io/controller-managed-attach-detach"
"""Annotation of nodes whose volumes the attach/detach controller attaches."""
_SHARED_MODES: Final = frozenset({"ReadWriteMany", "ReadOnlyMany"})


def unique_name(driver: str, handle: str) -> str:
    """What `volumesInUse` and `volumesAttached` of a Node call the volume."""
    return f"kubernetes.io/csi/{driver}^{handle}"


def unique_name_of(volume: Volume) -> str:
    """The unique name of a CSI volume, "" of others."""
    source = volume.spec.csi
    return unique_name(source.driver, source.volumeHandle) if source is not None else ""


def attachment_name(driver: str, handle: str, node: str) -> str:
    """The name of the VolumeAttachment of a volume to a node."""
    return "csi-" + hashlib.sha256(f"{handle}{driver}{node}".encode()).hexdigest()


def attach_required(driver: storage_v1.CSIDriver | None) -> bool:
    """Whether volumes of the driver are attached; those of a driver without an object are."""
    return driver is None or driver.spec.attachRequired is not False


def one_node_at_a_time(volume: Volume) -> bool:
    """Whether the volume may be attached to one node only: it says its access modes, and none of them is shared."""
    modes = volume.spec.accessModes or ()
    return bool(modes) and not _SHARED_MODES.intersection(modes)
