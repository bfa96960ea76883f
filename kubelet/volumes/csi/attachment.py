"""Waits until a volume is attached to this node and stays so while it is used here.

The handshake with the attach/detach controller: first the Node's status says that we use the volume (volumesInUse), and
only then is it read whether the volume is attached (volumesAttached). The controller does the same the other way round.
Owns no mount. Told by the node reporter what it has written; called by `devices`.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry status; the models call it optional.

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Final

from api import attachments as names
from api.models import core_v1, storage_v1
from client.backoff import Backoff
from client.client import Client
from kubelet.volumes.payload import VolumeError, VolumeWait
from machinery import log
from machinery.clock import Clock
from machinery.errors import Forbidden, NotFound, StatusError
from machinery.log import kv

WAIT: Final = 123.0  # cluster seconds, upstream's podAttachAndMountTimeout
EXHAUSTED: Final = 8  # gRPC's code in an attachment's error
_log = log.get(__name__)


class Attachments:
    """One per kubelet."""

    def __init__(self, client: Client, clock: Clock, node: str, report: Callable[[], None]) -> None:
        """`report` has the node's status written soon."""
        self._client = client
        self._clock = clock
        self._node = node
        self._report = report
        self._wanted: set[str] = set()
        self._written: set[str] = set()
        self._news = asyncio.Event()

    def in_use(self) -> list[str]:
        """What the Node's status has to say."""
        return sorted(self._wanted)

    def hold(self, unique: str) -> None:
        """The volume may be mounted from now on, as soon as the status has said so."""
        if unique not in self._wanted:
            self._wanted.add(unique)
            self._report()

    def drop(self, unique: str) -> None:
        """The volume is mounted nowhere on this node any more."""
        if unique in self._wanted:
            self._wanted.discard(unique)
            self._written.discard(unique)
            self._report()

    def written(self, in_use: Collection[str]) -> None:
        """The Node's status with these volumes is in the API server."""
        self._written = self._wanted.intersection(in_use)
        self.look()

    def look(self) -> None:
        """Something about the Node has changed."""
        self._news.set()

    async def wait(self, driver: str, handle: str, volume: str) -> dict[str, str]:
        """The publish context of the volume, once it is attached. Raises VolumeError (VolumeWait: not yet)."""
        unique = names.unique_name(driver, handle)
        backoff = Backoff(initial=0.3, cap=10.0)
        why = "Volume has not been added to the list of VolumesInUse in the node's volume status"
        try:
            async with self._clock.timeout(WAIT):
                while True:
                    self._news.clear()
                    if unique in self._written:
                        try:
                            found = await self._look(unique, driver, handle, volume)
                        except StatusError as error:
                            why = error.message
                        else:
                            if found is not None:
                                return found
                            why = "Volume not attached according to node status"
                    await self._pause(backoff.next())
        except TimeoutError as error:
            _log.info("Volume did not come", extra=kv(volume=volume, why=why))
            raise VolumeWait(f'volume "{volume}" is not attached: {why}') from error

    async def _look(self, unique: str, driver: str, handle: str, volume: str) -> dict[str, str] | None:
        node = await self._client.get(core_v1.Node, self._node)
        attached = (node.status.volumesAttached if node.status is not None else None) or ()
        if all(each.name != unique for each in attached):
            return None
        name = names.attachment_name(driver, handle, self._node)
        lead = f'MountVolume.WaitForAttach failed for volume "{volume}" : '
        try:
            attachment = await self._client.get(storage_v1.VolumeAttachment, name)
        except (NotFound, Forbidden) as error:
            why = f"volume {handle} has GET error for volume attachment {name}: {error.message}"
            raise VolumeError(lead + why) from error
        status = attachment.status
        if status is not None and status.attached:
            return dict(status.attachmentMetadata or {})
        failure = status.attachError if status is not None else None
        if failure is not None:
            raise VolumeError(f"{lead}{failure.message}")
        return None

    async def exhausted(self, driver: str, handle: str) -> bool:
        """Whether the volume could not be attached for want of room on this node."""
        name = names.attachment_name(driver, handle, self._node)
        try:
            found = await self._client.get(storage_v1.VolumeAttachment, name)
        except StatusError as error:
            _log.info("Failed to read attachment", extra=kv(attachment=name, error=error.message))
            return False
        failure = found.status.attachError if found.status is not None else None
        return failure is not None and failure.errorCode == EXHAUSTED

    async def _pause(self, seconds: float) -> None:
        """Until there is news, or the time is over; a look costs two reads, so no more than ten a second."""
        await asyncio.sleep(self._clock.real(0.1))
        try:
            async with self._clock.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return
