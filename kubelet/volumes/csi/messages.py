"""A pod's CSI volume as a value, and the requests to its driver that follow from it. Pure.

Rules are upstream's (pkg/volume/csi): which access mode a driver is told, whose files fsGroup changes, what it learns
of the pod. Called by `devices` and `pod_csi`.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from api import attachments
from api import volumes as rules
from api.models import core_v1, storage_v1
from api.volumes import Volume
from proto.csi.v1 import csi_pb2 as csi

Mode = csi.VolumeCapability.AccessMode
SecretName = tuple[str, str]
PERSISTENT, EPHEMERAL = "Persistent", "Ephemeral"
_POD: Final = "csi.storage.k8s.io/"
TOKENS: Final = f"{_POD}serviceAccount.tokens"
_SHARED: Final = {"ReadOnlyMany": Mode.MULTI_NODE_READER_ONLY, "ReadWriteMany": Mode.MULTI_NODE_MULTI_WRITER}
_WRITERS: Final = {"ReadWriteOncePod": Mode.SINGLE_NODE_SINGLE_WRITER}


@dataclass(frozen=True, slots=True)
class CsiVolume:
    """What a pod's volume asks of a driver. `name`: the PersistentVolume's, or the pod's own for it."""

    driver: str
    handle: str
    name: str
    persistent: bool = True
    block: bool = False
    modes: tuple[str, ...] = ()
    fs_type: str = ""
    mount_options: tuple[str, ...] = ()
    read_only: bool = False
    attributes: Mapping[str, str] = field(default_factory=dict)
    stage_secret: SecretName | None = None
    publish_secret: SecretName | None = None
    expand_secret: SecretName | None = None

    @property
    def unique(self) -> str:
        """Its name in the Node's status."""
        return attachments.unique_name(self.driver, self.handle)

    @property
    def lifecycle(self) -> str:
        return PERSISTENT if self.persistent else EPHEMERAL


def persistent(volume: Volume, *, read_only: bool) -> CsiVolume:
    """Of a PersistentVolume with a CSI source; `read_only` as the pod asks for it."""
    source = volume.spec.csi
    return CsiVolume(
        driver=source.driver,
        handle=source.volumeHandle,
        name=volume.metadata.name or "",
        block=rules.mode_of(volume) == "Block",
        modes=tuple(volume.spec.accessModes or ()),
        fs_type=source.fsType or "",
        mount_options=tuple(volume.spec.mountOptions or ()),
        read_only=read_only,
        attributes=dict(source.volumeAttributes or {}),
        stage_secret=_secret(source.nodeStageSecretRef),
        publish_secret=_secret(source.nodePublishSecretRef),
        expand_secret=_secret(source.nodeExpandSecretRef),
    )


def inline(pod: core_v1.Pod, volume: core_v1.Volume) -> CsiVolume:
    """Of a volume that lives and dies with its pod; its handle is made of both."""
    source, meta = volume.csi, pod.metadata
    secret = source.nodePublishSecretRef
    return CsiVolume(
        driver=source.driver,
        handle="csi-" + hashlib.sha256(f"{meta.uid}{volume.name}".encode()).hexdigest(),
        name=volume.name,
        persistent=False,
        fs_type=source.fsType or "",
        read_only=bool(source.readOnly),
        attributes=dict(source.volumeAttributes or {}),
        publish_secret=(meta.namespace or "", secret.name or "") if secret is not None else None,
    )


def _secret(ref: core_v1.SecretReference | None) -> SecretName | None:
    return (ref.namespace or "", ref.name or "") if ref is not None else None


def access_mode(volume: CsiVolume, *, tells_writers_apart: bool) -> Mode.Mode.ValueType:
    """What the driver is told: the first of the volume's modes; drivers of old know one kind of single writer."""
    first = volume.modes[0] if volume.modes else "ReadWriteOnce"
    if first in _SHARED:
        return _SHARED[first]
    if tells_writers_apart and volume.persistent:
        return _WRITERS.get(first, Mode.SINGLE_NODE_MULTI_WRITER)
    return Mode.SINGLE_NODE_WRITER


def capability(volume: CsiVolume, *, tells_writers_apart: bool, group: int | None = None) -> csi.VolumeCapability:
    """`group`: to be set by the driver, not by the kubelet."""
    made = csi.VolumeCapability(
        access_mode=Mode(mode=access_mode(volume, tells_writers_apart=tells_writers_apart)),
    )
    if volume.block:
        made.block.SetInParent()
        return made
    made.mount.fs_type = volume.fs_type
    made.mount.mount_flags.extend(volume.mount_options)
    if group is not None:
        made.mount.volume_mount_group = str(group)
    made.mount.SetInParent()
    return made


def changes_group(volume: CsiVolume, driver: storage_v1.CSIDriver | None) -> bool:
    """Whether the kubelet gives the volume's files to the pod's fsGroup."""
    if volume.read_only or volume.block:
        return False
    policy = driver.spec.fsGroupPolicy if driver is not None else None
    if policy == "None":
        return False
    if policy == "File":
        return True
    if not volume.fs_type:
        return False
    return not volume.persistent or bool({"ReadWriteOnce", "ReadWriteOncePod"}.intersection(volume.modes))


def pod_facts(pod: core_v1.Pod, volume: CsiVolume, driver: storage_v1.CSIDriver | None) -> dict[str, str]:
    """What a driver that wants to know (podInfoOnMount) learns of the pod."""
    if driver is None or not driver.spec.podInfoOnMount:
        return {}
    meta = pod.metadata
    return {
        f"{_POD}pod.name": meta.name or "",
        f"{_POD}pod.namespace": meta.namespace or "",
        f"{_POD}pod.uid": meta.uid or "",
        f"{_POD}serviceAccount.name": pod.spec.serviceAccountName or "",
        f"{_POD}ephemeral": "false" if volume.persistent else "true",
    }


def mode_problem(volume: CsiVolume, driver: storage_v1.CSIDriver | None) -> str:
    """Why the driver cannot be asked for a volume of this lifecycle; "" when it can."""
    lead = f'volume mode "{volume.lifecycle}" not supported by driver {volume.driver}'
    if driver is None:
        return "" if volume.persistent else f"{lead} (no CSIDriver object)"
    modes = driver.spec.volumeLifecycleModes or [PERSISTENT]
    if volume.lifecycle in modes:
        return ""
    listed = " ".join(f'"{mode}"' for mode in modes)
    return f"{lead} (only supports [{listed}])"
