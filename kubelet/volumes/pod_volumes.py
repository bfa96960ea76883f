"""The volumes of this node's pods on disk: set up, kept fresh, bound into containers, removed.

Owns `<root>/pods/<uid>/volumes`. File work is blocking but small. Called by pod workers.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from api.models import core_v1
from kubelet.downward import PodFacts
from kubelet.env import expand_sub_path
from kubelet.pod.config import DevicePlan, MountPlan, NodeFacts
from kubelet.volumes.atomic import write_payload
from kubelet.volumes.claims import ClaimVolumes, Mounted, on_this_node
from kubelet.volumes.csi import messages
from kubelet.volumes.csi.pod_csi import PodCsi
from kubelet.volumes.objects import ObjectReader
from kubelet.volumes.ownership import give_to_pod
from kubelet.volumes.payload import Given, VolumeError, VolumeWait, payload, wants
from kubelet.volumes.sub_path import SUB_PATHS, bind_sub_path
from linux import mount
from machinery import log, quantity
from machinery.log import kv

_log = log.get(__name__)
_HOST_TYPES = {
    "Directory": (stat.S_ISDIR, "is not a directory"),
    "File": (stat.S_ISREG, "is not a file"),
    "Socket": (stat.S_ISSOCK, "is not a socket file"),
    "CharDevice": (stat.S_ISCHR, "is not a character device"),
    "BlockDevice": (stat.S_ISBLK, "is not a block device"),
}


class PodVolumes:
    """One per kubelet."""

    def __init__(
        self, node: NodeFacts, reader: ObjectReader, node_labels: Callable[[], Mapping[str, str]], csi: PodCsi
    ) -> None:
        self._node = node
        self._reader = reader
        self._csi = csi
        self._claims = ClaimVolumes(reader, node_labels)
        self._mounted: dict[str, dict[str, Mounted]] = {}  # by pod and volume

    def path(self, uid: str, volume: core_v1.Volume) -> Path:
        """Where a volume lives on the node. Raises VolumeError for a kind we cannot do."""
        if volume.hostPath is not None:
            return Path(volume.hostPath.path)
        if _is_found(volume):
            mounted = self._mounted.get(uid, {}).get(volume.name)
            if mounted is None:
                raise VolumeError(f'volume "{volume.name}" is not mounted yet')
            return mounted.path
        plugins = {
            "empty-dir": volume.emptyDir,
            "configmap": volume.configMap,
            "secret": volume.secret,
            "downward-api": volume.downwardAPI,
            "projected": volume.projected,
        }
        for name, source in plugins.items():
            if source is not None:
                return self._node.pod_dir(uid) / "volumes" / f"kubernetes.io~{name}" / volume.name
        raise VolumeError("no volume plugin matched")

    async def set_up(self, pod: core_v1.Pod, facts: PodFacts) -> None:
        """Make every volume that a container uses ready, or fresh. Raises VolumeError naming the volume."""
        meta, spec = pod.metadata, pod.spec
        assert meta is not None and spec is not None
        used = _used(spec)
        volumes = [volume for volume in spec.volumes or () if volume.name in used]
        if not volumes:
            return
        uid = meta.uid or ""
        given = await self._given(pod, volumes, facts)
        group = spec.securityContext.fsGroup if spec.securityContext else None
        for volume in volumes:
            if _is_found(volume):
                continue
            try:
                self._set_up_one(pod, uid, volume, given, group)
            except (VolumeError, OSError, ValueError) as error:
                raise VolumeError(f'MountVolume.SetUp failed for volume "{volume.name}" : {error}') from error
        found = [volume for volume in volumes if _is_found(volume)]
        if found:
            await self._find_all(pod, uid, found, group)

    async def _find_all(self, pod: core_v1.Pod, uid: str, volumes: list[core_v1.Volume], group: int | None) -> None:
        """Side by side: one that has to be attached first does not hold up the others."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for volume in volumes:
                    tasks.create_task(self._find(pod, uid, volume, group))
        except BaseExceptionGroup as errors:
            raise _worst(errors) from errors

    async def _find(self, pod: core_v1.Pod, uid: str, volume: core_v1.Volume, group: int | None) -> None:
        """Once per pod: what a claim is bound to does not change while a pod uses it."""
        here = self._mounted.setdefault(uid, {})
        if volume.name in here:
            await self._csi.refresh(pod, here[volume.name].volume)
        elif volume.csi is not None:
            path = await self._csi.set_up(pod, messages.inline(pod, volume), None)
            here[volume.name] = Mounted(path, volume.name, bool(volume.csi.readOnly), None)
        else:
            await self._set_up_claim(pod, uid, volume, group)

    async def _set_up_claim(self, pod: core_v1.Pod, uid: str, volume: core_v1.Volume, group: int | None) -> None:
        here = self._mounted.setdefault(uid, {})
        found = await self._claims.find(pod, volume)
        if found.volume.spec is not None and found.volume.spec.csi is not None:
            wanted = messages.persistent(found.volume, read_only=found.read_only)
            path = await self._csi.set_up(pod, wanted, found.claim)
            here[volume.name] = Mounted(path, wanted.name, found.read_only, None)
            return
        mounted = on_this_node(found)
        try:
            if mounted.host_type is not None:
                _host_path(mounted.path, mounted.host_type)
            elif group is not None and not mounted.read_only and mounted.path.is_dir():
                context = pod.spec.securityContext if pod.spec is not None else None
                policy = context.fsGroupChangePolicy if context is not None else None
                await give_to_pod(mounted.path, group, policy)
        except (VolumeError, OSError) as error:
            raise VolumeError(f'MountVolume.SetUp failed for volume "{mounted.volume}" : {error}') from error
        here[volume.name] = mounted

    def _read_only(self, uid: str, volume: core_v1.Volume) -> bool:
        """Whether the pod asked for the whole volume to be read-only."""
        mounted = self._mounted.get(uid, {}).get(volume.name)
        return mounted is not None and mounted.read_only

    async def _given(self, pod: core_v1.Pod, volumes: list[core_v1.Volume], facts: PodFacts) -> Given:
        asked = wants(volumes)
        namespace = (pod.metadata.namespace if pod.metadata else None) or ""
        try:
            async with asyncio.TaskGroup() as group:
                maps = group.create_task(self._reader.config_maps(namespace, asked.config_maps))
                secrets = group.create_task(self._reader.secrets(namespace, asked.secrets))
                tokens = {key: group.create_task(self._reader.token(pod, *key)) for key in asked.tokens}
        except BaseExceptionGroup as errors:
            raise VolumeError(f"MountVolume.SetUp failed for pod volumes : {_worst(errors)}") from errors
        return Given(maps.result(), secrets.result(), {key: task.result() for key, task in tokens.items()}, facts)

    def _set_up_one(self, pod: core_v1.Pod, uid: str, volume: core_v1.Volume, given: Given, group: int | None) -> None:
        path = self.path(uid, volume)
        if volume.hostPath is not None:
            _host_path(path, volume.hostPath.type or "")
            return
        files = payload(pod, volume, given)
        if files is not None:
            if not path.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                path.chmod(0o777)  # as upstream's: what is inside keeps its own modes
            write_payload(path, files, group)
            return
        if volume.emptyDir is not None:
            _empty_dir(path, volume.emptyDir, group)

    def mounts(self, pod: core_v1.Pod, container: core_v1.Container, environment: Mapping[str, str]) -> list[MountPlan]:
        """The container's bind mounts. Raises VolumeError."""
        meta, spec = pod.metadata, pod.spec
        assert meta is not None and spec is not None
        volumes = {volume.name: volume for volume in spec.volumes or ()}
        plans = []
        for index, wish in enumerate(container.volumeMounts or ()):
            volume = volumes.get(wish.name)
            if volume is None:
                raise VolumeError(f'unable to find volume "{wish.name}"')
            source = self.path(meta.uid or "", volume)
            sub = expand_sub_path(wish.subPathExpr, environment) if wish.subPathExpr else wish.subPath or ""
            if sub:
                place = self._node.pod_dir(meta.uid or "") / SUB_PATHS / wish.name / container.name / str(index)
                try:
                    source = bind_sub_path(source, sub, place)
                except OSError as error:
                    _log.warning("Failed to prepare a subPath", extra=kv(volume=wish.name, path=sub, error=error))
                    what = f'subPath for volumeMount "{wish.name}" of container "{container.name}"'
                    raise VolumeError(f"failed to prepare {what}") from error
            plans.append(
                MountPlan(
                    wish.mountPath if wish.mountPath.startswith("/") else f"/{wish.mountPath}",
                    str(source),
                    bool(wish.readOnly) or self._read_only(meta.uid or "", volume),
                    wish.mountPropagation or "None",
                )
            )
        return plans

    def devices(self, pod: core_v1.Pod, container: core_v1.Container) -> list[DevicePlan]:
        """The container's block volumes. Raises VolumeError."""
        volumes = {volume.name: volume for volume in (pod.spec.volumes if pod.spec is not None else None) or ()}
        uid = (pod.metadata.uid if pod.metadata is not None else None) or ""
        plans = []
        for wish in container.volumeDevices or ():
            if wish.name not in volumes:
                raise VolumeError(f'unable to find volume "{wish.name}"')
            source = self.path(uid, volumes[wish.name])
            plans.append(DevicePlan(wish.devicePath, str(source), readonly=self._read_only(uid, volumes[wish.name])))
        return plans

    async def tear_down(self, uid: str) -> None:
        """Unmount and remove the volumes of a pod that has ended; its logs and last messages stay.

        Raises OSError, VolumeError: try again.
        """
        await self._csi.tear_down(uid)
        self._mounted.pop(uid, None)
        for part in ("volumes", SUB_PATHS):
            folder = self._node.pod_dir(uid) / part
            if folder.is_dir():
                mount.unmount_below(str(folder))
                shutil.rmtree(folder)

    async def clean(self, uid: str) -> None:
        """Remove everything a pod had on this node. Raises OSError, VolumeError: try again."""
        folder = self._node.pod_dir(uid)
        self._reader.forget(uid)
        if (folder / SUB_PATHS).is_dir():  # before the volumes they are in
            mount.unmount_below(str(folder / SUB_PATHS))
        await self.tear_down(uid)
        if folder.is_dir():
            mount.unmount_below(str(folder))
            shutil.rmtree(folder)

    def known(self) -> Iterable[str]:
        """The uids of pods that have something on disk."""
        try:
            return [entry.name for entry in (self._node.root / "pods").iterdir()]
        except FileNotFoundError:
            return []


def _used(spec: core_v1.PodSpec) -> set[str]:
    """The names of volumes that some container uses; the others are nobody's business, as upstream has it."""
    containers: list[Any] = [*spec.containers, *(spec.initContainers or ()), *(spec.ephemeralContainers or ())]
    return {each.name for one in containers for each in (*(one.volumeMounts or ()), *(one.volumeDevices or ()))}


def _is_found(volume: core_v1.Volume) -> bool:
    """Whether it has to be found out where the volume is: it is a claim's or a driver's."""
    return any(each is not None for each in (volume.persistentVolumeClaim, volume.ephemeral, volume.csi))


def _worst(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one to tell: of what is wrong, not of what only takes its time."""
    found: list[BaseException] = []
    for each in errors.exceptions:
        found.append(_worst(each) if isinstance(each, BaseExceptionGroup) else each)
    return next((each for each in found if not isinstance(each, VolumeWait)), found[0])


def _empty_dir(path: Path, source: core_v1.EmptyDirVolumeSource, group: int | None) -> None:
    """Made once; each step is seen to be missing by a kubelet that comes after one that was killed."""

    def open_to_all(folder: Path) -> None:
        if group is not None:
            os.chown(folder, -1, group)
        folder.chmod(0o777 if group is None else 0o2777)

    if not path.is_dir():
        scratch = path.with_name(f".{path.name}.new")
        scratch.mkdir(parents=True, exist_ok=True)
        open_to_all(scratch)
        scratch.rename(path)
    if source.medium == "Memory" and not path.is_mount():
        size = source.sizeLimit
        mount.tmpfs(str(path), size=str(quantity.value(size)) if size else None, mode=0o777)
        open_to_all(path)


def _host_path(path: Path, kind: str) -> None:
    if kind == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True, mode=0o755)
    elif kind == "FileOrCreate":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o644, exist_ok=True)
    elif kind in _HOST_TYPES:
        test, complaint = _HOST_TYPES[kind]
        if not path.exists() or not test(path.stat().st_mode):
            raise VolumeError(f"hostPath type check failed: {path} {complaint}")
    elif not path.exists():  # the kernel would refuse the bind mount later, with a worse text
        path.mkdir(parents=True, exist_ok=True, mode=0o755)
