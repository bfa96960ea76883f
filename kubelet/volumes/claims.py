"""PersistentVolumeClaims of pods on the node: from the claim to the folder that goes into the containers.

Owns the questions that are asked before a claim's volume may be mounted (bound, to each other, reachable from here, a
kind we can do) and the texts of the answers. hostPath and local volumes lie on the node already and are bound into
containers from where they are; those of a driver are `csi`'s. Called by PodVolumes.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from api import volumes as rules
from api.models import core_v1
from api.volumes import Claim, Volume, annotations_of
from kubelet.volumes.objects import ObjectReader
from kubelet.volumes.payload import VolumeError
from machinery.errors import StatusError


@dataclass(frozen=True, slots=True)
class Mounted:
    """A claim's volume, ready to be bound into containers. `host_type` is of a hostPath volume."""

    path: Path
    volume: str
    read_only: bool
    host_type: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """A claim and the volume it is bound to, which the pod may use here."""

    claim: Claim
    volume: Volume
    read_only: bool


class ClaimVolumes:
    """One per kubelet."""

    def __init__(self, reader: ObjectReader, node_labels: Callable[[], Mapping[str, str]]) -> None:
        self._reader = reader
        self._node_labels = node_labels

    async def find(self, pod: core_v1.Pod, volume: core_v1.Volume) -> Found:
        """What the claim of a pod's volume is bound to. Raises VolumeError."""
        name = rules.claim_name(pod.metadata.name or "", volume)
        namespace = pod.metadata.namespace or ""
        try:
            claim = await self._claim(pod, volume, namespace, name)
            found = await self._bound(claim)
            _check_mode(pod, volume, found)
        except VolumeError as error:
            raise VolumeError(
                f"Unable to attach or mount volumes: unmounted volumes=[{volume.name}], unattached volumes=[], failed "
                f"to process volumes=[{volume.name}]: {error}"
            ) from error
        self._check_place(found)
        source = volume.persistentVolumeClaim
        return Found(claim, found, bool(source is not None and source.readOnly))

    async def _claim(self, pod: core_v1.Pod, volume: core_v1.Volume, namespace: str, name: str) -> Claim:
        lead = f"error processing PVC {namespace}/{name}: "
        try:
            claim = await self._reader.claim(namespace, name)
        except StatusError as error:
            raise VolumeError(f"{lead}failed to fetch PVC from API server: {error.message}") from error
        if claim is None:
            raise VolumeError(f'{lead}failed to fetch PVC from API server: persistentvolumeclaims "{name}" not found')
        if claim.metadata.deletionTimestamp is not None:
            raise VolumeError(f"{lead}PVC is being deleted")
        if claim.status is None or claim.status.phase != "Bound":
            raise VolumeError(f"{lead}PVC is not bound")
        if not claim.spec.volumeName:
            raise VolumeError(f"{lead}PVC has empty pvc.Spec.VolumeName")
        if volume.ephemeral is not None and not rules.is_for_pod(pod, claim):
            raise VolumeError(rules.not_for_pod(pod, claim))
        return claim

    async def _bound(self, claim: Claim) -> Volume:
        name = claim.spec.volumeName or ""
        try:
            volume = await self._reader.volume(name)
        except StatusError as error:
            raise VolumeError(f"failed to fetch PV {name} from API server: {error.message}") from error
        if volume is None:
            raise VolumeError(f'failed to fetch PV {name} from API server: persistentvolumes "{name}" not found')
        ref = volume.spec.claimRef
        if ref is None:
            why = "it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim"
            raise VolumeError(f"found PV object {name} but {why}")
        if ref.uid != claim.metadata.uid:
            why = f"its pv.Spec.ClaimRef.UID {ref.uid or ''} does not point to claim.UID {claim.metadata.uid}"
            raise VolumeError(f"found PV object {name} but {why}")
        return volume

    def _check_place(self, volume: Volume) -> None:
        if not rules.reachable(volume, self._node_labels()):
            name = volume.metadata.name
            raise VolumeError(
                f'MountVolume.NodeAffinity check failed for volume "{name}" : no matching NodeSelectorTerms'
            )


def on_this_node(found: Found) -> Mounted:
    """Where a volume is that lies on the node already. Raises VolumeError for a kind we cannot do."""
    volume, name = found.volume, found.volume.metadata.name or ""
    block = rules.mode_of(volume) == "Block"
    if volume.spec.local is not None:
        path = Path(volume.spec.local.path)
        if block and not path.is_block_device():
            raise VolumeError(f'MapVolume.EvalHostSymlinks failed for volume "{name}" : {path} is not a block device')
        if not block:
            _ready_folder(volume, path)
        return Mounted(path, name, found.read_only, None)
    if volume.spec.hostPath is not None and not block:
        return Mounted(Path(volume.spec.hostPath.path), name, found.read_only, volume.spec.hostPath.type or "")
    what = "MapVolume.SetUpDevice" if block else "MountVolume.SetUp"
    raise VolumeError(f'{what} failed for volume "{name}" : no volume plugin matched')


def _check_mode(pod: core_v1.Pod, volume: core_v1.Volume, found: Volume) -> None:
    containers = (*pod.spec.containers, *(pod.spec.initContainers or ()))
    mounted = any(each.name == volume.name for one in containers for each in one.volumeMounts or ())
    as_device = any(each.name == volume.name for one in containers for each in one.volumeDevices or ())
    mode = rules.mode_of(found)
    if mounted and mode == "Block":
        raise VolumeError(f"volume {volume.name} has volumeMode Block, but is specified in volumeMounts")
    if as_device and mode == "Filesystem":
        raise VolumeError(f"volume {volume.name} has volumeMode Filesystem, but is specified in volumeDevices")


def _ready_folder(volume: Volume, path: Path) -> None:
    """The folder of a local volume must be there, unless it is one of our own, which begins with its first pod."""
    if path.exists():
        return
    name = volume.metadata.name
    if annotations_of(volume).get(rules.PROVISIONED_BY) != rules.NODE_LOCAL:
        text = f'MountVolume.NewMounter initialization failed for volume "{name}" : path "{path}" does not exist'
        raise VolumeError(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch = path.with_name(f".{path.name}.new")
        scratch.mkdir(exist_ok=True)
        scratch.chmod(0o777)
        scratch.rename(path)
    except OSError as error:
        raise VolumeError(f'MountVolume.SetUp failed for volume "{name}" : {error}') from error
