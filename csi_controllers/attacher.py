"""The role of external-attacher: what VolumeAttachments ask for is done by the driver, and what became of it is told.

Owns their finalizer (on attachments and on the volumes they use), the annotation with the node's id, and their status.
Who asks, and when, is the attach/detach controller's.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

from typing import Any, Final

from api import volumes as rules
from api.models import core_v1, storage_v1
from api.volumes import Volume, annotations_of
from client.client import Client, key_of
from client.controller import DONE, Controller, Result
from client.informer import EventHandler, Informer, Informers
from csi_controllers import capabilities, parameters
from csi_controllers.driver import About, Can, Driver, DriverError
from csi_controllers.objects import (
    NODE_ID,
    attacher_finalizer,
    finalizers_of,
    handle_of,
    with_finalizer,
    without_finalizer,
)
from csi_controllers.provisioner import BY_VOLUME, by_volume
from csi_controllers.retries import Retries
from machinery import log
from machinery.clock import Clock
from machinery.errors import NotFound
from machinery.log import kv
from machinery.meta import ObjectKey, rfc3339
from proto.csi.v1 import csi_pb2 as pb

FIRST_RETRY: Final = 1.0
LAST_RETRY: Final = 300.0
WORKERS: Final = 10
Attachment = storage_v1.VolumeAttachment
_log = log.get(__name__)


class Failure(Exception):
    """It did not work; the message is what the attachment's status says. `code`: gRPC's number, 0 for none."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


def node_id_of(csi_node: storage_v1.CSINode | None, driver: str) -> str:
    """What the driver calls a node; "" when it is not there."""
    for each in (csi_node.spec.drivers if csi_node is not None and csi_node.spec is not None else None) or ():
        if each.name == driver:
            return str(each.nodeID)
    return ""


class Attacher:
    """The loop. Keys are VolumeAttachments and, under a namespace that neither has, PersistentVolumes."""

    def __init__(self, client: Client, informers: Informers, clock: Clock, driver: Driver, about: About) -> None:
        self._client = client
        self._clock = clock
        self._driver = driver
        self._about = about
        self._finalizer = attacher_finalizer(about.name)
        self._volumes: Informer[Volume] = informers.informer(Volume)
        self._csi_nodes: Informer[storage_v1.CSINode] = informers.informer(storage_v1.CSINode)
        self.attachments: Informer[Attachment] = informers.informer(Attachment, indexers={BY_VOLUME: by_volume})
        self._retries = Retries(clock, FIRST_RETRY, LAST_RETRY)
        self._again: set[ObjectKey] = set()
        self.controller = Controller(
            "csi-attacher",
            self.reconcile,
            clock=clock,
            informers=[self._volumes, self._csi_nodes, self.attachments],
            workers=WORKERS,
        )
        self.attachments.add_handler(
            EventHandler(self._changed, lambda _, new: self._changed(new), self._attachment_gone)
        )
        self._volumes.add_handler(EventHandler(self._volume_changed, lambda _, new: self._volume_changed(new)))

    def is_mine(self, attachment: Attachment) -> bool:
        return bool(attachment.spec.attacher == self._about.name)

    def _changed(self, attachment: Attachment) -> None:
        if self.is_mine(attachment):
            self.controller.enqueue(key_of(attachment))

    def _attachment_gone(self, attachment: Attachment) -> None:
        if self.is_mine(attachment):
            self._changed(attachment)
            for name in by_volume(attachment):
                self.controller.enqueue(ObjectKey(_VOLUME, name))

    def _volume_changed(self, volume: Volume) -> None:
        if volume.metadata.deletionTimestamp is not None and self._finalizer in finalizers_of(volume):
            self.controller.enqueue(ObjectKey(_VOLUME, volume.metadata.name or ""))

    def redo(self, attachment: Attachment) -> None:
        """Attach once more, though the status says that it is attached: the driver says otherwise."""
        self._again.add(key_of(attachment))
        self.controller.enqueue(key_of(attachment))

    async def reconcile(self, key: ObjectKey) -> Result:
        if key.namespace == _VOLUME:
            await self._release(self._volumes.lister.get(ObjectKey("", key.name)))
            return DONE
        attachment = self.attachments.lister.get(key)
        if attachment is None or not self.is_mine(attachment):
            self._retries.forget(key)
            self._again.discard(key)
            return DONE
        leaving = attachment.metadata.deletionTimestamp is not None
        what = (
            leaving,
            node_id_of(self._csi_nodes.lister.get(ObjectKey("", attachment.spec.nodeName)), self._about.name),
        )
        left = self._retries.left(key, what)
        if left:
            return Result(requeue_after=left)
        try:
            if leaving:
                await self._detach(attachment)
            elif not (attachment.status is not None and attachment.status.attached) or key in self._again:
                await self._attach(attachment)
                self._again.discard(key)
        except Failure as error:
            _log.warning("Failed", extra=kv(attachment=key.name, error=error))
            return Result(requeue_after=self._retries.after_failure(key, what))
        self._retries.forget(key)
        return DONE

    # ---- attach ----

    async def _attach(self, attachment: Attachment) -> None:
        try:
            if Can.PUBLISH_UNPUBLISH_VOLUME not in self._about.can:
                await self._status(attachment, {"attached": True, "attachError": None})
                return
            node, request = await self._prepare(attachment)
            attachment = await self._mark(attachment, node)
            answer = await self._call("ControllerPublishVolume", request)
        except Failure as error:
            await self._status(attachment, {"attached": False, "attachError": self._error(error)})
            raise
        metadata = dict(answer.publish_context)
        await self._status(attachment, {"attached": True, "attachmentMetadata": metadata or None, "attachError": None})
        _log.info("Attached", extra=kv(attachment=attachment.metadata.name, node=attachment.spec.nodeName))

    async def _prepare(self, attachment: Attachment) -> tuple[str, pb.ControllerPublishVolumeRequest]:
        volume, csi = self._source(attachment)
        if volume.metadata.deletionTimestamp is not None and self._finalizer not in finalizers_of(volume):
            raise Failure(f'PersistentVolume "{volume.metadata.name}" is marked for deletion')
        node = attachment.spec.nodeName
        node_id = node_id_of(self._csi_nodes.lister.get(ObjectKey("", node)), self._about.name)
        if not node_id:
            raise Failure(f"CSINode {node} does not contain driver {self._about.name}")
        if self._finalizer not in finalizers_of(volume):
            patch, version = with_finalizer(volume, self._finalizer), volume.metadata.resourceVersion
            await self._client.patch(Volume, volume.metadata.name or "", patch, resource_version=version)
        try:
            mode = capabilities.strongest(volume.spec.accessModes or ())
            wanted = capabilities.capability(
                mode,
                self._about,
                block=rules.mode_of(volume) == "Block",
                fstype=csi.fsType or "",
                options=volume.spec.mountOptions or (),
            )
        except capabilities.UnsupportedModes as error:
            raise Failure(str(error)) from error
        request = pb.ControllerPublishVolumeRequest(
            volume_id=csi.volumeHandle,
            node_id=node_id,
            volume_capability=wanted,
            readonly=bool(csi.readOnly) and Can.PUBLISH_READONLY in self._about.can,
            volume_context=csi.volumeAttributes or {},
        )
        await self._with_secret(request, csi)
        return node_id, request

    def _source(self, attachment: Attachment) -> tuple[Volume, core_v1.CSIPersistentVolumeSource]:
        name = attachment.spec.source.persistentVolumeName
        if not name:
            raise Failure("neither InlineCSIVolumeSource nor PersistentVolumeName specified in VA source")
        volume = self._volumes.lister.get(ObjectKey("", name))
        if volume is None:
            raise Failure(f'could not add PersistentVolume finalizer: persistentvolume "{name}" not found')
        if not handle_of(volume, self._about.name) or volume.spec.csi is None:
            raise Failure(f"persistent volume {name} is not a volume of driver {self._about.name}")
        return volume, volume.spec.csi

    async def _with_secret(self, request: Any, csi: core_v1.CSIPersistentVolumeSource) -> None:
        ref = csi.controllerPublishSecretRef
        if ref is None:
            return
        try:
            secret = await self._client.get(core_v1.Secret, ref.name or "", ref.namespace)
            request.secrets.update(parameters.secret_data(secret))
        except (NotFound, parameters.BadParameter) as error:
            raise Failure(f'failed to load secret "{ref.namespace}/{ref.name}": {error}') from error

    async def _mark(self, attachment: Attachment, node_id: str) -> Attachment:
        """Before the driver is called: whoever deletes the attachment must wait for us from now on."""
        patch: dict[str, Any] = {}
        if self._finalizer not in finalizers_of(attachment):
            patch = with_finalizer(attachment, self._finalizer)
        if annotations_of(attachment).get(NODE_ID) != node_id:
            patch.setdefault("metadata", {})["annotations"] = {NODE_ID: node_id}
        if not patch:
            return attachment
        name, version = attachment.metadata.name or "", attachment.metadata.resourceVersion
        return await self._client.patch(Attachment, name, patch, resource_version=version)

    # ---- detach ----

    async def _detach(self, attachment: Attachment) -> None:
        if self._finalizer not in finalizers_of(attachment):
            return  # it was never begun, or our part is done
        if Can.PUBLISH_UNPUBLISH_VOLUME in self._about.can:
            try:
                await self._call("ControllerUnpublishVolume", await self._farewell(attachment))
            except Failure as error:
                await self._status(attachment, {"detachError": self._error(error)})
                raise
        name = attachment.metadata.name or ""
        try:
            if attachment.status is not None and (attachment.status.attached or attachment.status.detachError):
                status = {"attached": False, "detachError": None, "attachmentMetadata": None}
                attachment = await self._status(attachment, status)
            patch, version = without_finalizer(attachment, self._finalizer), attachment.metadata.resourceVersion
            await self._client.patch(Attachment, name, patch, resource_version=version)
        except NotFound:
            return
        _log.info("Detached", extra=kv(attachment=name, node=attachment.spec.nodeName))

    async def _farewell(self, attachment: Attachment) -> pb.ControllerUnpublishVolumeRequest:
        _, csi = self._source(attachment)
        node = attachment.spec.nodeName
        # The node may be gone, and its CSINode with it: the id was noted down when the volume was attached.
        node_id = annotations_of(attachment).get(NODE_ID) or node_id_of(
            self._csi_nodes.lister.get(ObjectKey("", node)), self._about.name
        )
        if not node_id:
            raise Failure(f'node "{node}" has no NodeID annotation')
        request = pb.ControllerUnpublishVolumeRequest(volume_id=csi.volumeHandle, node_id=node_id)
        await self._with_secret(request, csi)
        return request

    async def _release(self, volume: Volume | None) -> None:
        """A volume that is being deleted is held only as long as something is attached."""
        if volume is None or volume.metadata.deletionTimestamp is None or self._finalizer not in finalizers_of(volume):
            return
        name = volume.metadata.name or ""
        if any(self.is_mine(each) for each in self.attachments.lister.by_index(BY_VOLUME, name)):
            return
        patch, version = without_finalizer(volume, self._finalizer), volume.metadata.resourceVersion
        await self._client.patch(Volume, name, patch, resource_version=version)

    # ---- what became of it ----

    async def _call(self, method: str, request: Any) -> Any:
        try:
            return await self._driver.call(method, request)
        except DriverError as error:
            raise Failure(str(error), error.number) from error

    def _error(self, error: Failure) -> dict[str, Any]:
        told = {"message": str(error), "time": rfc3339(self._clock.now())}
        return {**told, "errorCode": error.code} if error.code else told

    async def _status(self, attachment: Attachment, status: dict[str, Any]) -> Attachment:
        name = attachment.metadata.name or ""
        if "attached" not in status:
            status = {"attached": bool(attachment.status is not None and attachment.status.attached), **status}
        return await self._client.patch(Attachment, name, {"status": status}, subresource="status")


_VOLUME: Final = "volume"
