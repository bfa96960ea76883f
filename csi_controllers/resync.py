"""Now and then the driver is asked which volumes are where, and attachments that it does not know are made anew.

Owns the comparison of ListVolumes with VolumeAttachments (external-attacher's reconcile-sync): clouds lose attachments
without telling Kubernetes. Only for drivers that can tell.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

from typing import Final

from api.volumes import Volume, annotations_of
from client.informer import Informer, Informers
from csi_controllers.attacher import Attacher
from csi_controllers.driver import About, Can, Driver, DriverError
from csi_controllers.objects import NODE_ID, handle_of
from machinery import log
from machinery.clock import Clock
from machinery.log import kv
from machinery.meta import ObjectKey
from proto.csi.v1 import csi_pb2 as pb

PERIOD: Final = 60.0
PAGE: Final = 500
PAGES: Final = 1000
_log = log.get(__name__)


class Resync:
    """A loop beside the attacher's."""

    def __init__(self, informers: Informers, clock: Clock, driver: Driver, about: About, attacher: Attacher) -> None:
        self._clock = clock
        self._driver = driver
        self._about = about
        self._attacher = attacher
        self._volumes: Informer[Volume] = informers.informer(Volume)

    @property
    def wanted(self) -> bool:
        return {Can.LIST_VOLUMES, Can.LIST_VOLUMES_PUBLISHED_NODES} <= self._about.can

    async def run(self) -> None:
        """Until cancelled; at once done with for drivers that cannot tell."""
        while self.wanted:
            await self._clock.sleep(PERIOD)
            try:
                self.compare(await self._published())
            except DriverError as error:
                _log.warning("Failed to list volumes", extra=kv(error=error))

    async def _published(self) -> dict[str, set[str]]:
        """Node ids by volume handle."""
        found: dict[str, set[str]] = {}
        token = ""
        for _ in range(PAGES):
            request = pb.ListVolumesRequest(max_entries=PAGE, starting_token=token)
            answer = await self._driver.call("ListVolumes", request)
            found |= {each.volume.volume_id: set(each.status.published_node_ids) for each in answer.entries}
            token = answer.next_token
            if not token:
                break
        return found

    def compare(self, published: dict[str, set[str]]) -> None:
        """Have those attached again that should be and are not. A volume that is not listed says nothing."""
        for each in self._attacher.attachments.lister.list():
            attached = each.status is not None and each.status.attached
            if not self._attacher.is_mine(each) or not attached or each.metadata.deletionTimestamp is not None:
                continue
            volume = self._volumes.lister.get(ObjectKey("", each.spec.source.persistentVolumeName or ""))
            nodes = published.get(handle_of(volume, self._about.name))
            if nodes is not None and annotations_of(each).get(NODE_ID) not in nodes:
                _log.warning("Found a volume not attached that should be", extra=kv(attachment=each.metadata.name))
                self._attacher.redo(each)
