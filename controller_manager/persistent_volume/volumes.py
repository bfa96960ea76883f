"""What becomes of a volume: its phase, and what happens to it when its claim is gone.

Owns upstream's decisions and their texts. Deletes nothing itself: a volume that some provisioner made is left to that
provisioner, which sees that it is Released and to be deleted.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from api import volumes as rules
from api.volumes import Claim, Volume, annotations_of
from client.events import WARNING, EventRecorder
from controller_manager.persistent_volume.writes import AVAILABLE, BOUND, FAILED, RELEASED, Writes, phase_of
from machinery.meta import ObjectKey

NO_DELETER: Final = 'error getting deleter volume plugin for volume "{}": no deletable volume plugin matched'
NO_RECYCLER: Final = "No recycler plugin found for the volume!"


class VolumeSync:
    """One pass over one volume. `claim` reads the cache, `live` asks the server, `wake` has a claim looked at."""

    def __init__(
        self,
        writes: Writes,
        events: EventRecorder,
        claim: Callable[[ObjectKey], Claim | None],
        live: Callable[[ObjectKey], Awaitable[Claim | None]],
        wake: Callable[[ObjectKey], None],
    ) -> None:
        self._writes = writes
        self._events = events
        self._claim = claim
        self._live = live
        self._wake = wake

    async def sync(self, volume: Volume) -> None:
        """Raises StatusError."""
        ref = volume.spec.claimRef
        if ref is None or not ref.uid:
            await self._writes.volume_phase(volume, AVAILABLE)
            return
        key = ObjectKey(ref.namespace or "", ref.name or "")
        claim = self._claim(key)
        if claim is None or claim.metadata.uid != ref.uid:
            # Data is at stake: a cache that is behind must not be what says that the claim is gone.
            claim = await self._live(key)
        if claim is None or claim.metadata.uid != ref.uid:
            await self._release(volume)
        elif not claim.spec.volumeName:
            self._tell_mismatch(volume, claim)
            self._wake(key)
        elif claim.spec.volumeName == volume.metadata.name:
            await self._writes.volume_phase(volume, BOUND)
        elif self._was_made_for_claim(volume):
            await self._release(volume)
        else:
            await self._writes.unbind(volume)

    @staticmethod
    def _was_made_for_claim(volume: Volume) -> bool:
        return rules.PROVISIONED_BY in annotations_of(volume) and volume.spec.persistentVolumeReclaimPolicy == "Delete"

    def _tell_mismatch(self, volume: Volume, claim: Claim) -> None:
        if rules.mode_of(volume) == rules.mode_of(claim):
            return
        name, cause = volume.metadata.name, "due to incompatible volumeMode."
        text = f'Cannot bind PersistentVolume to requested PersistentVolumeClaim "{claim.metadata.name}" {cause}'
        self._events.event(volume, WARNING, "VolumeMismatch", text)
        text = f'Cannot bind PersistentVolume "{name}" to requested PersistentVolumeClaim {cause}'
        self._events.event(claim, WARNING, "VolumeMismatch", text)

    async def _release(self, volume: Volume) -> None:
        if phase_of(volume) not in (RELEASED, FAILED):
            volume = await self._writes.volume_phase(volume, RELEASED)
        match volume.spec.persistentVolumeReclaimPolicy:
            case "Delete" if rules.PROVISIONED_BY not in annotations_of(volume) and volume.spec.csi is None:
                await self._fail(volume, "VolumeFailedDelete", NO_DELETER.format(volume.metadata.name))
            case "Recycle":
                await self._fail(volume, "VolumeFailedRecycle", NO_RECYCLER)

    async def _fail(self, volume: Volume, reason: str, text: str) -> None:
        if phase_of(volume) != FAILED:
            await self._writes.volume_phase(volume, FAILED, message=text)
            self._events.event(volume, WARNING, reason, text)
