"""A dynamic provisioner: makes volumes for claims that ask for its name, deletes them when they are released, resizes.

Owns the protocol around a `Driver`, which is what external provisioners and resizers of the field speak: annotations on
claims, a PersistentVolume named after the claim's uid, a finalizer on it, events. Never binds. A driver knows storage
and nothing of claims.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from api import volumes as rules
from api.models import core_v1, meta_v1
from api.volumes import Claim, StorageClass, Volume, annotations_of
from client.client import key_of
from client.controller import DONE, Controller, Result
from client.events import NORMAL, WARNING
from client.informer import EventHandler, Informer
from controller_manager.environment import Environment
from controller_manager.persistent_volume.writes import BOUND, FAILED, RELEASED, Writes, phase_of, reference_to
from machinery import quantity
from machinery.errors import AlreadyExists, NotFound
from machinery.meta import ObjectKey, rfc3339

FINALIZER: Final = "external-provisioner.volume.kubernetes.io/finalizer"
RETRY: Final = 15.0  # cluster seconds between attempts that may succeed only when somebody else acts


class ProvisionError(Exception):
    """The driver cannot do it now. `reschedule`: another node might."""

    def __init__(self, text: str, *, reschedule: bool = False) -> None:
        super().__init__(text)
        self.reschedule = reschedule


@dataclass(frozen=True, slots=True)
class Request:
    """A volume that is wanted. `node` is where its first pod will run, None when nobody has decided."""

    name: str
    claim: Claim
    storage_class: StorageClass
    node: core_v1.Node | None


@dataclass(frozen=True, slots=True)
class Made:
    """What a driver made: the source of the volume as in a PersistentVolumeSpec, who can reach it, how big it is."""

    source: dict[str, Any]
    affinity: dict[str, Any] | None
    size: int


class Driver(Protocol):
    """Storage of one kind. Every call may be repeated after a crash and must then find what is done already."""

    @property
    def name(self) -> str:
        """What StorageClasses call it."""

    async def make(self, request: Request) -> Made:
        """Raises ProvisionError."""

    async def delete(self, volume: Volume) -> bool:
        """Whether the data is gone; False: under way, ask again. Raises ProvisionError."""

    async def grow(self, volume: Volume, size: int) -> None:
        """Raises ProvisionError."""

    def follow(self, wake: Callable[[str], None]) -> None:
        """Call `wake(volume name)` whenever a deletion under way may have ended."""


def volume_name(claim: Claim) -> str:
    return f"pvc-{claim.metadata.uid}"


def wanted_from(claim: Claim, driver: str, classes: Iterable[StorageClass]) -> StorageClass | None:
    """The class of a claim for which this driver is to make a volume now; None when it is not."""
    noted = annotations_of(claim)
    if claim.spec.volumeName or claim.metadata.deletionTimestamp is not None:
        return None
    if driver not in (noted.get(rules.PROVISIONER), noted.get(rules.BETA_PROVISIONER)):
        return None
    found = next((each for each in classes if each.metadata.name == rules.class_of(claim)), None)
    if found is None or found.provisioner != driver:
        return None
    if found.volumeBindingMode == rules.WAIT_FOR_FIRST_CONSUMER and not noted.get(rules.SELECTED_NODE):
        return None
    return found


def is_to_be_deleted(volume: Volume, driver: str) -> bool:
    """Whether the data of the volume is to go, and this driver's to delete."""
    return (
        annotations_of(volume).get(rules.PROVISIONED_BY) == driver
        and volume.spec.persistentVolumeReclaimPolicy == "Delete"
        and phase_of(volume) in (RELEASED, FAILED)
    )


def volume_for(request: Request, made: Made, driver: str) -> dict[str, Any]:
    """The PersistentVolume of what was made, bound to its claim from the start."""
    claim, storage_class = request.claim, request.storage_class
    spec: dict[str, Any] = {
        **made.source,
        "capacity": {"storage": quantity.format_bytes(made.size)},
        "accessModes": list(claim.spec.accessModes or ()),
        "claimRef": reference_to(claim),
        "persistentVolumeReclaimPolicy": storage_class.reclaimPolicy or "Delete",
        "storageClassName": storage_class.metadata.name,
        "volumeMode": rules.mode_of(claim),
    }
    if storage_class.mountOptions:
        spec["mountOptions"] = list(storage_class.mountOptions)
    if made.affinity is not None:
        spec["nodeAffinity"] = {"required": made.affinity}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": request.name,
            "annotations": {rules.PROVISIONED_BY: driver},
            "finalizers": [FINALIZER],
        },
        "spec": spec,
    }


class Provisioner:
    """The loop. Keys are claims and, without a namespace, volumes."""

    def __init__(self, env: Environment, driver: Driver) -> None:
        self._client = env.client
        self._clock = env.clock
        self._driver = driver
        self._events = env.recorder(driver.name)
        self._writes = Writes(env.client)
        self._claims: Informer[Claim] = env.informers.informer(Claim)
        self._volumes: Informer[Volume] = env.informers.informer(Volume)
        self._classes: Informer[StorageClass] = env.informers.informer(StorageClass)
        self._nodes: Informer[core_v1.Node] = env.informers.informer(core_v1.Node)
        self.controller = Controller(
            f"provisioner-{driver.name}",
            self.reconcile,
            clock=env.clock,
            informers=[self._claims, self._volumes, self._classes, self._nodes],
            workers=env.options.concurrent_syncs,
        )
        self._claims.add_handler(EventHandler(self._claim_changed, lambda _, new: self._claim_changed(new)))
        self._volumes.add_handler(EventHandler(self._volume_changed, lambda _, new: self._volume_changed(new)))
        driver.follow(lambda name: self.controller.enqueue(ObjectKey("", name)))

    def _claim_changed(self, claim: Claim) -> None:
        noted = annotations_of(claim)
        if self._driver.name in (noted.get(rules.PROVISIONER), noted.get(rules.BETA_PROVISIONER)):
            self.controller.enqueue(key_of(claim))

    def _volume_changed(self, volume: Volume) -> None:
        if annotations_of(volume).get(rules.PROVISIONED_BY) == self._driver.name:
            self.controller.enqueue(key_of(volume))

    async def reconcile(self, key: ObjectKey) -> Result:
        if not key.namespace:
            volume = self._volumes.lister.get(key)
            return await self._reclaim(volume) if volume is not None else DONE
        claim = self._claims.lister.get(key)
        if claim is None:
            return DONE
        if phase_of(claim) == BOUND:
            return await self._grow(claim)
        found = wanted_from(claim, self._driver.name, self._classes.lister.list())
        if found is None or self._volumes.lister.get(ObjectKey("", volume_name(claim))) is not None:
            return DONE
        return await self._provision(claim, found)

    # Making

    async def _provision(self, claim: Claim, storage_class: StorageClass) -> Result:
        key = key_of(claim)
        text = f'External provisioner is provisioning volume for claim "{key}"'
        self._events.event(claim, NORMAL, "Provisioning", text)
        chosen = annotations_of(claim).get(rules.SELECTED_NODE)
        try:
            node = self._nodes.lister.get(ObjectKey("", chosen)) if chosen else None
            if chosen and node is None:
                raise ProvisionError(f'failed to get target node: node "{chosen}" not found', reschedule=True)
            request = Request(volume_name(claim), claim, storage_class, node)
            made = await self._driver.make(request)
        except ProvisionError as error:
            text = f'failed to provision volume with StorageClass "{storage_class.metadata.name}": {error}'
            self._events.event(claim, WARNING, "ProvisioningFailed", text)
            if error.reschedule and chosen:
                await self._writes.claim(claim, {"metadata": {"annotations": {rules.SELECTED_NODE: None}}})
                return DONE
            return Result(requeue_after=RETRY)
        try:
            await self._client.create(volume_for(request, made, self._driver.name))
        except AlreadyExists:
            return DONE  # by an earlier pass
        self._events.event(claim, NORMAL, "ProvisioningSucceeded", f"Successfully provisioned volume {request.name}")
        return DONE

    # Deleting

    async def _reclaim(self, volume: Volume) -> Result:
        deleting = volume.metadata.deletionTimestamp is not None
        if not is_to_be_deleted(volume, self._driver.name):
            kept = volume.spec.persistentVolumeReclaimPolicy != "Delete"
            if deleting and kept and phase_of(volume) != BOUND:
                await self._let_go(volume)  # who keeps the data may delete the object that speaks of it
            return DONE
        if deleting and FINALIZER not in (volume.metadata.finalizers or ()):
            return DONE  # our part is done; others still hold it
        try:
            gone = await self._driver.delete(volume)
        except ProvisionError as error:
            self._events.event(volume, WARNING, "VolumeFailedDelete", str(error))
            return Result(requeue_after=RETRY)
        if not gone:
            return Result(requeue_after=RETRY)
        try:
            volume = await self._let_go(volume)
            if not deleting:
                await self._client.delete(Volume, volume.metadata.name or "", uid=volume.metadata.uid)
        except NotFound:
            return DONE
        return DONE

    async def _let_go(self, volume: Volume) -> Volume:
        finalizers = [each for each in volume.metadata.finalizers or () if each != FINALIZER]
        if finalizers == list(volume.metadata.finalizers or ()):
            return volume
        return await self._writes.volume(volume, {"metadata": {"finalizers": finalizers or None}})

    # Growing

    async def _grow(self, claim: Claim) -> Result:
        volume = self._volumes.lister.get(ObjectKey("", claim.spec.volumeName or ""))
        if volume is None or annotations_of(volume).get(rules.PROVISIONED_BY) != self._driver.name:
            return DONE
        size, has = rules.requested(claim), (claim.status.capacity or {}).get("storage", "0")
        if size <= rules.size(has):
            return DONE
        name = volume.metadata.name
        if not any(each.type == "Resizing" for each in claim.status.conditions or ()):
            now = rfc3339(self._clock.now())
            condition = {"type": "Resizing", "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
            claim = await self._writes.claim(claim, {"status": {"conditions": [condition]}}, "status")
            self._events.event(claim, NORMAL, "Resizing", f"External resizer is resizing volume {name}")
        try:
            await self._driver.grow(volume, size)
        except ProvisionError as error:
            text = f'resize volume "{name}" by resizer "{self._driver.name}" failed: {error}'
            self._events.event(claim, WARNING, "VolumeResizeFailed", text)
            return Result(requeue_after=RETRY)
        amount = {"storage": quantity.format_bytes(size)}
        if rules.capacity(volume) < size:
            await self._writes.volume(volume, {"spec": {"capacity": amount}})
        await self._writes.claim(claim, {"status": {"capacity": amount, "conditions": None}}, "status")
        self._events.event(claim, NORMAL, "VolumeResizeSuccessful", "Resize volume succeeded")
        return DONE


async def ensure_class(env: Environment, made: StorageClass) -> None:
    """Make a StorageClass if there is none of its name. Raises StatusError, but for the one that is there."""
    try:
        await env.client.create(made)
    except AlreadyExists:
        return


def storage_class(name: str, provisioner: str) -> StorageClass:
    """The class that a cluster starts with: default, bound at the first consumer, deleted with its claim."""
    return StorageClass(
        metadata=meta_v1.ObjectMeta(name=name, annotations={rules.DEFAULT_CLASS_MARKS[0]: "true"}),
        provisioner=provisioner,
        reclaimPolicy="Delete",
        volumeBindingMode=rules.WAIT_FOR_FIRST_CONSUMER,
        allowVolumeExpansion=True,
    )
