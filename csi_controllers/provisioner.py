"""The role of external-provisioner: volumes for claims of the driver's classes, and their end when they are released.

Owns the claims that ask for the driver by annotation, the PersistentVolumes made for them, their finalizer and its
events. Never binds: the volume controller does. While a call may still be going on inside the driver, its claim is
remembered, so that a claim deleted meanwhile leaves no disk behind.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Final

from api import volumes as rules
from api.models import core_v1, storage_v1
from api.volumes import Claim, StorageClass, Volume, annotations_of
from client.client import Client, key_of
from client.controller import DONE, Controller, Result
from client.events import NORMAL, WARNING, EventRecorder
from client.informer import EventHandler, Informer, Informers
from csi_controllers import capabilities, parameters, topology
from csi_controllers.driver import About, Can, Driver, DriverError
from csi_controllers.nodes import NODES
from csi_controllers.objects import (
    DELETION_SECRET,
    DELETION_SECRET_NAMESPACE,
    IDENTITY,
    PROVISIONED,
    finalizers_of,
    handle_of,
    with_finalizer,
    without_finalizer,
)
from csi_controllers.parameters import BadParameter, Meaning, SecretRef
from csi_controllers.retries import Retries
from machinery import log, quantity
from machinery.clock import Clock
from machinery.errors import AlreadyExists, NotFound
from machinery.log import kv
from machinery.meta import ObjectKey
from proto.csi.v1 import csi_pb2 as pb

FIRST_RETRY: Final = 1.0
LAST_RETRY: Final = 300.0
WORKERS: Final = 10
BY_VOLUME: Final = "volume"
_log = log.get(__name__)


class Refused(Exception):
    """The claim cannot have a volume now. `reschedule`: the scheduler shall look for another node.

    `under_way`: whether the driver may still be making it; None when it was not asked.
    """

    def __init__(self, text: str, *, reschedule: bool = False, under_way: bool | None = None) -> None:
        super().__init__(text)
        self.reschedule = reschedule
        self.under_way = under_way


def volume_name(claim: Claim) -> str:
    return f"pvc-{claim.metadata.uid}"


def by_volume(attachment: storage_v1.VolumeAttachment) -> list[str]:
    """Indexer for BY_VOLUME."""
    name = attachment.spec.source.persistentVolumeName
    return [name] if name else []


def class_for(claim: Claim, driver: str, classes: Mapping[str, StorageClass]) -> StorageClass | None:
    """The class of a claim for which the driver is to make a volume now; None when it is not."""
    noted = annotations_of(claim)
    if claim.spec.volumeName or driver not in (noted.get(rules.PROVISIONER), noted.get(rules.BETA_PROVISIONER)):
        return None
    found = classes.get(rules.class_of(claim))
    if found is None or found.provisioner != driver:
        return None
    if found.volumeBindingMode == rules.WAIT_FOR_FIRST_CONSUMER and not noted.get(rules.SELECTED_NODE):
        return None
    return found


def is_to_be_deleted(volume: Volume) -> bool:
    """Whether the disk of a volume of ours is to go."""
    if volume.spec.persistentVolumeReclaimPolicy != "Delete":
        return False
    if volume.metadata.deletionTimestamp is not None and PROVISIONED not in finalizers_of(volume):
        return False  # our part is done
    return volume.status is not None and volume.status.phase in ("Released", "Failed")


def _attempt(claim: Claim, found: StorageClass) -> tuple[str | None, ...]:
    """What is tried: with another node or another class it may work at once."""
    return claim.metadata.uid, found.metadata.resourceVersion, annotations_of(claim).get(rules.SELECTED_NODE)


class Provisioner:
    """The loop. Keys are claims and, without a namespace, volumes."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        clock: Clock,
        events: EventRecorder,
        driver: Driver,
        about: About,
        default_fstype: str,
    ) -> None:
        self._client = client
        self._events = events
        self._driver = driver
        self._about = about
        self._default_fstype = default_fstype
        self._identity = f"{int(clock.now().timestamp() * 1000)}-{random.randrange(10_000)}-{about.name}"
        self._claims: Informer[Claim] = informers.informer(Claim)
        self._volumes: Informer[Volume] = informers.informer(Volume)
        self._classes: Informer[StorageClass] = informers.informer(StorageClass)
        self._attachments: Informer[storage_v1.VolumeAttachment] = informers.informer(
            storage_v1.VolumeAttachment, indexers={BY_VOLUME: by_volume}
        )
        self._nodes = informers.informer(NODES)
        self._csi_nodes: Informer[storage_v1.CSINode] = informers.informer(storage_v1.CSINode)
        self._under_way: dict[ObjectKey, Claim] = {}
        self._retries = Retries(clock, FIRST_RETRY, LAST_RETRY)
        reads: list[Informer[Any]] = [
            self._claims,
            self._volumes,
            self._classes,
            self._attachments,
            self._nodes,
            self._csi_nodes,
        ]
        self.controller = Controller("csi-provisioner", self.reconcile, clock=clock, informers=reads, workers=WORKERS)
        self._claims.add_handler(
            EventHandler(self._claim_changed, lambda _, new: self._claim_changed(new), self._claim_changed)
        )
        self._volumes.add_handler(EventHandler(self._volume_changed, lambda _, new: self._volume_changed(new)))
        self._attachments.add_handler(EventHandler(lambda _: None, lambda _old, _new: None, self._let_go))
        self._classes.add_handler(EventHandler(self._class_changed, lambda _, new: self._class_changed(new)))

    # ---- who is looked at ----

    def _claim_changed(self, claim: Claim) -> None:
        noted = annotations_of(claim)
        if self._about.name in (noted.get(rules.PROVISIONER), noted.get(rules.BETA_PROVISIONER)):
            self.controller.enqueue(key_of(claim))

    def _volume_changed(self, volume: Volume) -> None:
        if annotations_of(volume).get(rules.PROVISIONED_BY) == self._about.name:
            self.controller.enqueue(key_of(volume))

    def _class_changed(self, changed: StorageClass) -> None:
        for claim in self._claims.lister.list():
            if rules.class_of(claim) == changed.metadata.name:
                self._claim_changed(claim)

    def _let_go(self, attachment: storage_v1.VolumeAttachment) -> None:
        for name in by_volume(attachment):
            self.controller.enqueue(ObjectKey("", name))

    async def reconcile(self, key: ObjectKey) -> Result:
        if not key.namespace:
            volume = self._volumes.lister.get(key)
            if volume is None:
                self._retries.forget(key)
                return DONE
            return await self._keep(volume)
        claim = self._claims.lister.get(key)
        remembered = self._under_way.get(key)
        if remembered is not None and (claim is None or claim.metadata.uid != remembered.metadata.uid):
            return await self._provision(key, remembered)
        if claim is None:
            self._retries.forget(key)
            return DONE
        if claim.metadata.deletionTimestamp is not None and remembered is None:
            return DONE
        return await self._provision(key, claim)

    # ---- making ----

    async def _provision(self, key: ObjectKey, claim: Claim) -> Result:
        classes = {each.metadata.name or "": each for each in self._classes.lister.list()}
        found = class_for(claim, self._about.name, classes)
        name = volume_name(claim)
        if found is None or self._volumes.lister.get(ObjectKey("", name)) is not None:
            self._settled(key)
            return DONE
        what = _attempt(claim, found)
        left = self._retries.left(key, what)
        if left:
            return Result(requeue_after=left)
        text = f'External provisioner is provisioning volume for claim "{key}"'
        self._events.event(claim, NORMAL, "Provisioning", text)
        try:
            made = await self._make(name, claim, found)
        except Refused as error:
            return await self._refused(key, claim, found, error)
        self._under_way[key] = claim  # until it is written down that there is a disk
        try:
            await self._client.create(made)
        except AlreadyExists:
            self._settled(key)  # by an earlier pass
            return DONE
        self._settled(key)
        self._events.event(claim, NORMAL, "ProvisioningSucceeded", f"Successfully provisioned volume {name}")
        return DONE

    def _settled(self, key: ObjectKey) -> None:
        self._under_way.pop(key, None)
        self._retries.forget(key)

    async def _refused(self, key: ObjectKey, claim: Claim, found: StorageClass, error: Refused) -> Result:
        text = f'failed to provision volume with StorageClass "{found.metadata.name}": {error}'
        self._events.event(claim, WARNING, "ProvisioningFailed", text)
        if error.under_way:
            self._under_way[key] = claim
        elif error.under_way is False:
            self._under_way.pop(key, None)
        if error.reschedule and annotations_of(claim).get(rules.SELECTED_NODE):
            patch = {"metadata": {"annotations": {rules.SELECTED_NODE: None}}}
            meta = claim.metadata
            await self._client.patch(
                Claim, meta.name or "", patch, meta.namespace, resource_version=meta.resourceVersion
            )
            return DONE
        return Result(requeue_after=self._retries.after_failure(key, _attempt(claim, found)))

    async def _make(self, name: str, claim: Claim, found: StorageClass) -> dict[str, Any]:
        """The PersistentVolume of a new disk. Raises Refused."""
        if claim.spec.selector is not None:
            raise Refused("claim Selector is not supported")
        if claim.spec.dataSource is not None or claim.spec.dataSourceRef is not None:
            raise Refused("claims with a data source are not supported")
        if Can.CREATE_DELETE_VOLUME not in self._about.can:
            raise Refused("CSI driver does not support dynamic provisioning: plugin CREATE_DELETE_VOLUME not supported")
        try:
            meaning = parameters.understand(found.parameters, claim, name)
        except BadParameter as error:
            raise Refused(str(error)) from error
        request = self._request(name, claim, found, meaning)
        await self._with_secret(request, meaning.provisioner)
        try:
            answer = await self._driver.call("CreateVolume", request)
        except DriverError as error:
            chosen = annotations_of(claim).get(rules.SELECTED_NODE)
            reschedule = error.code == "RESOURCE_EXHAUSTED" and bool(chosen)
            raise Refused(str(error), reschedule=reschedule, under_way=not error.is_final) from error
        size = answer.volume.capacity_bytes or request.capacity_range.required_bytes
        if size < request.capacity_range.required_bytes:
            raise Refused(f"created volume capacity {size} less than requested capacity {rules.requested(claim)}")
        return self._volume(name, claim, found, meaning, answer.volume, size)

    def _request(self, name: str, claim: Claim, found: StorageClass, meaning: Meaning) -> pb.CreateVolumeRequest:
        block = rules.mode_of(claim) == "Block"
        fstype = "" if block else meaning.fstype or self._default_fstype
        modes = claim.spec.accessModes or ["ReadWriteOnce"]
        try:
            wanted = [
                capabilities.capability(mode, self._about, block=block, fstype=fstype, options=found.mountOptions or ())
                for mode in modes
            ]
        except capabilities.UnsupportedModes as error:
            raise Refused(str(error)) from error
        request = pb.CreateVolumeRequest(
            name=name,
            capacity_range=pb.CapacityRange(required_bytes=rules.requested(claim)),
            volume_capabilities=wanted,
            parameters=meaning.for_driver,
        )
        if self._about.has_topology:
            try:
                request.accessibility_requirements.CopyFrom(self._topology(claim, found))
            except topology.NoTopology as error:
                raise Refused(f"error generating accessibility requirements: {error}") from error
        return request

    def _topology(self, claim: Claim, found: StorageClass) -> pb.TopologyRequirement:
        return topology.requirement(
            claim.metadata.name or "",
            self._about.name,
            {each.metadata.name or "": each for each in self._csi_nodes.lister.list()},
            {each.metadata.name: each.metadata.labels or {} for each in self._nodes.lister.list()},
            found.allowedTopologies or (),
            annotations_of(claim).get(rules.SELECTED_NODE, ""),
        )

    async def _with_secret(self, request: Any, ref: SecretRef | None) -> None:
        if ref is None:
            return
        try:
            secret = await self._client.get(core_v1.Secret, ref.name, ref.namespace)
            request.secrets.update(parameters.secret_data(secret))
        except (NotFound, BadParameter) as error:
            text = f"error getting secret {ref.name} in namespace {ref.namespace}: {error}"
            raise Refused(text) from error

    def _volume(
        self, name: str, claim: Claim, found: StorageClass, meaning: Meaning, made: pb.Volume, size: int
    ) -> dict[str, Any]:
        meta = claim.metadata
        block = rules.mode_of(claim) == "Block"
        source: dict[str, Any] = {
            "driver": self._about.name,
            "volumeHandle": made.volume_id,
            "volumeAttributes": {**made.volume_context, IDENTITY: self._identity},
        }
        fstype = meaning.fstype or self._default_fstype
        if fstype and not block:
            source["fsType"] = fstype
        for field, ref in meaning.volume_refs.items():
            source[field] = {"name": ref.name, "namespace": ref.namespace}
        if list(claim.spec.accessModes or ()) == ["ReadOnlyMany"] and not block:
            source["readOnly"] = True
        spec: dict[str, Any] = {
            "csi": source,
            "capacity": {"storage": quantity.format_bytes(size)},
            "accessModes": list(claim.spec.accessModes or ()),
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": meta.namespace,
                "name": meta.name,
                "uid": meta.uid,
                "resourceVersion": meta.resourceVersion,
            },
            "persistentVolumeReclaimPolicy": found.reclaimPolicy or "Delete",
            "storageClassName": found.metadata.name,
            "volumeMode": rules.mode_of(claim),
        }
        if found.mountOptions and not block:
            spec["mountOptions"] = list(found.mountOptions)
        affinity = topology.node_affinity(made.accessible_topology)
        if affinity is not None:
            spec["nodeAffinity"] = affinity
        secret = meaning.provisioner
        annotations = {
            rules.PROVISIONED_BY: self._about.name,
            DELETION_SECRET: secret.name if secret is not None else "",
            DELETION_SECRET_NAMESPACE: secret.namespace if secret is not None else "",
        }
        finalizers = [PROVISIONED] if spec["persistentVolumeReclaimPolicy"] == "Delete" else []
        metadata = {"name": name, "annotations": annotations, **({"finalizers": finalizers} if finalizers else {})}
        return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec}

    # ---- ending ----

    async def _keep(self, volume: Volume) -> Result:
        key = key_of(volume)
        if annotations_of(volume).get(rules.PROVISIONED_BY) != self._about.name:
            return DONE
        if not is_to_be_deleted(volume):
            await self._guard(volume)
            return DONE
        node = next((each.spec.nodeName for each in self._attachments.lister.by_index(BY_VOLUME, key.name)), None)
        left = self._retries.left(key, node)
        if left:
            return Result(requeue_after=left)
        try:
            if node is not None:
                raise Refused(f"persistentvolume {key.name} is still attached to node {node}")
            current = await self._client.get(Volume, key.name)
            if current.metadata.uid != volume.metadata.uid or not is_to_be_deleted(current):
                return DONE  # the cache has yet to hear of it
            await self._delete(volume)
        except NotFound:
            return DONE
        except Refused as error:
            self._events.event(volume, WARNING, "VolumeFailedDelete", str(error))
            return Result(requeue_after=self._retries.after_failure(key, node))
        self._retries.forget(key)
        try:
            if PROVISIONED in finalizers_of(volume):
                patch = without_finalizer(volume, PROVISIONED)
                await self._client.patch(Volume, key.name, patch, resource_version=volume.metadata.resourceVersion)
            if volume.metadata.deletionTimestamp is None:
                await self._client.delete(Volume, key.name, uid=volume.metadata.uid)
        except NotFound:
            return DONE
        return DONE

    async def _guard(self, volume: Volume) -> None:
        """The finalizer is on volumes whose disk goes with them, and on no others."""
        guarded, deleting = PROVISIONED in finalizers_of(volume), volume.metadata.deletionTimestamp is not None
        wanted = volume.spec.persistentVolumeReclaimPolicy == "Delete"
        if guarded == wanted or (wanted and deleting):
            return
        change = with_finalizer if wanted else without_finalizer
        name, version = volume.metadata.name or "", volume.metadata.resourceVersion
        await self._client.patch(Volume, name, change(volume, PROVISIONED), resource_version=version)

    async def _delete(self, volume: Volume) -> None:
        handle = handle_of(volume, self._about.name)
        if not handle:
            raise Refused("the volume is not one of this driver's")
        request = pb.DeleteVolumeRequest(volume_id=handle)
        noted = annotations_of(volume)
        if noted.get(DELETION_SECRET):
            await self._with_secret(
                request, SecretRef(noted[DELETION_SECRET], noted.get(DELETION_SECRET_NAMESPACE, ""))
            )
        try:
            await self._driver.call("DeleteVolume", request)
        except DriverError as error:
            raise Refused(str(error)) from error
        _log.info("Deleted the disk of a volume", extra=kv(volume=volume.metadata.name, handle=handle))
