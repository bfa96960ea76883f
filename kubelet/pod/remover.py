"""Takes a pod off this node: containers, sandboxes, volumes, logs. Idempotent; what is gone already is fine.

Called by pod workers at the end of a pod, and for pods that the API server does not know (any more).
"""

from __future__ import annotations

import asyncio
import math
import shutil
from pathlib import Path

from kubelet.cri import Cri, CriError
from kubelet.pod.cgroups import PodCgroups
from kubelet.records import POD_NAME, POD_NAMESPACE
from kubelet.volumes.payload import VolumeError
from kubelet.volumes.pod_volumes import PodVolumes
from machinery import log
from machinery.clock import Clock
from machinery.log import kv
from proto.cri.v1 import cri_pb2 as cri

_log = log.get(__name__)
RETRY_FIRST, RETRY_LAST = 0.2, 10.0


class PodRemover:
    """One per kubelet."""

    def __init__(self, runtime: Cri, volumes: PodVolumes, clock: Clock, log_dir: Path, cgroups: PodCgroups) -> None:
        self._cri = runtime
        self._volumes = volumes
        self._clock = clock
        self._log_dir = log_dir
        self._cgroups = cgroups

    def known(self) -> list[str]:
        """The uids of pods that have logs on this node."""
        return [folder.name.rpartition("_")[2] for folder in self._log_dir.glob("*_*_*")]

    async def remove(self, uid: str, grace: float = 0.0) -> None:
        """Try until nothing is left. `grace` in cluster seconds, for containers that still run."""
        delay = RETRY_FIRST
        while True:
            try:
                await self._once(uid, grace)
                return
            except (CriError, OSError, VolumeError) as error:
                _log.warning("Failed to remove pod from node", extra=kv(uid=uid, error=error))
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_LAST)

    async def _once(self, uid: str, grace: float) -> None:
        containers = await self._cri.list_containers(uid)
        running = [each for each in containers if each.state == cri.CONTAINER_RUNNING]
        timeout = math.ceil(self._clock.real(grace))
        await asyncio.gather(*(self._gone(self._cri.stop_container(each.id, timeout)) for each in running))
        sandboxes = await self._cri.list_sandboxes(uid)
        for sandbox in sandboxes:
            await self._gone(self._cri.stop_sandbox(sandbox.id))
        await asyncio.gather(*(self._gone(self._cri.remove_container(each.id)) for each in containers))
        for sandbox in sandboxes:
            await self._gone(self._cri.remove_sandbox(sandbox.id))
        await self._volumes.clean(uid)
        self._cgroups.remove(uid)
        for folder in self._log_dir.glob(f"*_{uid}"):
            shutil.rmtree(folder, ignore_errors=True)
        for sandbox in sandboxes[:1]:
            name = f"{sandbox.labels.get(POD_NAMESPACE, '')}/{sandbox.labels.get(POD_NAME, '')}"
            _log.info("Removed pod from node", extra=kv(pod=name, uid=uid))

    @staticmethod
    async def _gone(call: object) -> None:
        try:
            await call  # type: ignore[misc]
        except CriError as error:
            if not error.not_found:
                raise
