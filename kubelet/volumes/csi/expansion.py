"""Lets file systems grow into volumes that have grown, and writes it into the claim.

Owns NodeExpandVolume and the claim's status.capacity after it (the resizer has written the volume's). A claim is behind
its volume exactly while the node still has something to do. Called by `pod_csi`.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from api import volumes as rules
from api.models import core_v1
from api.volumes import Claim, Volume
from client.client import Client
from kubelet.backoff import Backoff
from kubelet.plugins.csi_client import CsiError
from kubelet.plugins.drivers import CsiDrivers, UnknownDriver
from kubelet.volumes.csi.messages import CsiVolume, capability
from kubelet.volumes.csi.secrets import secret_values
from kubelet.volumes.objects import ObjectReader
from kubelet.volumes.payload import VolumeError
from machinery import log
from machinery.clock import Clock
from machinery.errors import StatusError
from machinery.log import kv
from proto.csi.v1 import csi_pb2 as csi

FIRST_RETRY, LAST_RETRY = 0.5, 122.0  # cluster seconds, upstream's durationBeforeRetry
DONE_WITH: Final = frozenset({"Resizing", "FileSystemResizePending", "NodeResizeError"})
Tell = Callable[[Any, str, str, str], None]
_log = log.get(__name__)


class Expansion:
    """One per kubelet."""

    def __init__(
        self, client: Client, reader: ObjectReader, clock: Clock, drivers: CsiDrivers, node: str, tell: Tell
    ) -> None:
        """`tell(object, type, reason, message)` records an event."""
        self._client = client
        self._reader = reader
        self._clock = clock
        self._drivers = drivers
        self._node = node
        self._tell = tell
        self._backoffs: dict[str, Backoff] = {}
        self._not_here: set[str] = set()  # volumes that cannot grow while they are mounted on this node

    async def follow(self, pod: core_v1.Pod, volume: CsiVolume, claim: str, path: Path, staging: str) -> None:
        """Look whether a volume in use has grown; failures are told, and tried again ever later.

        Not what its driver says to be in the way of its use here: that is tried when it is mounted the next time.
        """
        if volume.unique in self._not_here:
            return
        backoff = self._backoffs.setdefault(volume.unique, Backoff(initial=FIRST_RETRY, maximum=LAST_RETRY))
        now = self._clock.monotonic()
        if now < backoff.due(backoff.updated):
            return
        found: Claim | None = None
        try:
            if not self._drivers.get(volume.driver).expands:
                return
            found = await self._reader.claim(pod.metadata.namespace or "", claim)
            if found is not None:
                await self._expand(pod, volume, found, path, staging)
        except (CsiError, VolumeError) as error:
            self._told(volume, error, pod, found)
            if _is_in_use(error):
                self._not_here.add(volume.unique)
        except (StatusError, UnknownDriver) as error:
            _log.info("Failed to look at claim", extra=kv(claim=claim, error=error))
        else:
            self._backoffs.pop(volume.unique, None)
            return
        backoff.advance(now, now)

    async def catch_up(self, pod: core_v1.Pod, volume: CsiVolume, claim: Claim, path: Path, staging: str) -> None:
        """The same for a volume that has just been mounted. Raises VolumeError: the pod waits.

        It does not wait for what can be done only while nobody uses the volume (upstream's FailedPrecondition).
        """
        self._not_here.discard(volume.unique)
        try:
            if self._drivers.get(volume.driver).expands:
                await self._expand(pod, volume, claim, path, staging)
        except (CsiError, UnknownDriver, StatusError, VolumeError) as error:
            if _is_in_use(error):
                self._not_here.add(volume.unique)
                self._told(volume, error, pod, claim)
                return
            text = "MountVolume.Setup failed while expanding volume"
            raise VolumeError(f'{text} for volume "{volume.name}" : {error}') from error

    def _told(self, volume: CsiVolume, error: Exception, *about: object) -> None:
        text = f'NodeExpandVolume.NodeExpandVolume failed for volume "{volume.name}" : {error}'
        for each in about:
            if each is not None:
                self._tell(each, "Warning", "VolumeResizeFailed", text)

    async def _expand(self, pod: core_v1.Pod, volume: CsiVolume, claim: Claim, path: Path, staging: str) -> None:
        source = await self._reader.volume(volume.name)
        if source is None or source.spec.csi is None or not is_behind(claim, source):
            return
        if volume.read_only:
            return  # whoever mounts it for writing does it
        driver = self._drivers.get(volume.driver)
        request = csi.NodeExpandVolumeRequest(
            volume_id=volume.handle,
            volume_path=str(path),
            staging_target_path=staging,
            capacity_range=csi.CapacityRange(required_bytes=rules.capacity(source)),
            volume_capability=capability(volume, tells_writers_apart=driver.tells_writers_apart),
            secrets=await secret_values(self._reader, "NodeExpandSecretRef", volume.expand_secret),
        )
        await driver.client.expand(request)
        await self._client.patch(
            core_v1.PersistentVolumeClaim,
            claim.metadata.name or "",
            {"status": finished(claim, source)},
            claim.metadata.namespace,
            subresource="status",
        )
        text = f'MountVolume.NodeExpandVolume succeeded for volume "{volume.name}" {self._node}'
        for about in (pod, claim):
            self._tell(about, "Normal", "FileSystemResizeSuccessful", text)


def _is_in_use(error: Exception) -> bool:
    return isinstance(error, CsiError) and error.code == "FailedPrecondition"


def is_behind(claim: Claim, volume: Volume) -> bool:
    """Whether the volume has grown and the claim does not say so yet."""
    told = (claim.status.capacity or {}).get("storage") if claim.status is not None else None
    return told is not None and rules.capacity(volume) > rules.size(told)


def finished(claim: Claim, volume: Volume) -> dict[str, Any]:
    """Merge patch of the claim's status: as large as its volume, with nothing left to do."""
    conditions = [each for each in claim.status.conditions or () if each.type not in DONE_WITH]
    return {
        "capacity": {"storage": (volume.spec.capacity or {}).get("storage")},
        "conditions": msgspec.to_builtins(conditions) or None,
        "allocatedResourceStatuses": None,
    }
