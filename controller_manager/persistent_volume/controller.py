"""The loop over claims and volumes: upstream's persistentvolume-binder-controller.

Owns who is looked at when. Both kinds share one queue (a volume's key has no namespace), so that a claim and its
volume are looked at in the order in which they changed. Two claims after one volume are kept apart by the volume's
resourceVersion, not by luck.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from api import volumes as rules
from api.models import core_v1
from api.volumes import Claim, StorageClass, Volume
from client.client import key_of
from client.controller import DONE, Controller, Result
from client.informer import EventHandler, Informer
from controller_manager.environment import Environment
from controller_manager.persistent_volume.claims import ClaimSync
from controller_manager.persistent_volume.volumes import VolumeSync
from controller_manager.persistent_volume.writes import PENDING, Writes, phase_of
from machinery.errors import NotFound
from machinery.meta import ObjectKey

COMPONENT: Final = "persistentvolume-controller"
RESYNC: Final = 15.0  # cluster seconds; a claim that waits is told of again and again, as upstream does
BY_CLASS: Final = "storage-class"
BY_CLAIM: Final = "claim"


def storage_class_index(obj: Volume | Claim) -> Iterable[str]:
    """Indexer for BY_CLASS; claims that are bound are of no interest to a new volume."""
    if isinstance(obj, Claim) and obj.spec.volumeName:
        return ()
    return (rules.class_of(obj),)


def claims_index(pod: core_v1.Pod) -> Iterable[str]:
    """Indexer for BY_CLAIM: the claims that a pod uses."""
    return [f"{pod.metadata.namespace}/{name}" for name in rules.claims_of(pod)]


class PersistentVolumeController:
    """Reads listers, writes through the client; keeps no state of its own."""

    def __init__(self, env: Environment) -> None:
        self._client = env.client
        indexers = {BY_CLASS: storage_class_index}
        self._claims: Informer[Claim] = env.informers.informer(Claim, indexers=indexers)
        self._volumes: Informer[Volume] = env.informers.informer(Volume, indexers=indexers)
        self._classes: Informer[StorageClass] = env.informers.informer(StorageClass)
        self._pods: Informer[core_v1.Pod] = env.informers.informer(core_v1.Pod, indexers={BY_CLAIM: claims_index})
        writes, events = Writes(env.client), env.recorder(COMPONENT)
        self._claim_sync = ClaimSync(
            writes,
            events,
            lambda name: self._volumes.lister.get(ObjectKey("", name)),
            lambda name: self._volumes.lister.by_index(BY_CLASS, name),
            self._class_map,
            lambda claim: self._pods.lister.by_index(BY_CLAIM, str(key_of(claim))),
        )
        self.controller = Controller(
            "persistentvolume-binder",
            self.reconcile,
            clock=env.clock,
            informers=[self._claims, self._volumes, self._classes, self._pods],
            workers=env.options.concurrent_syncs,
        )
        self._volume_sync = VolumeSync(writes, events, self._claims.lister.get, self._live, self.controller.enqueue)
        self.controller.watches(self._claims, self._around_claim)
        self.controller.watches(self._volumes, self._around_volume)
        self._classes.add_handler(EventHandler(self._class_changed, lambda _, new: self._class_changed(new)))

    def _class_map(self) -> Mapping[str, StorageClass]:
        return {each.metadata.name or "": each for each in self._classes.lister.list()}

    async def _live(self, key: ObjectKey) -> Claim | None:
        try:
            return await self._client.get(Claim, key.name, key.namespace)
        except NotFound:
            return None

    # Who is looked at

    def _around_claim(self, claim: Claim) -> Iterable[ObjectKey]:
        yield key_of(claim)
        if claim.spec.volumeName:
            yield ObjectKey("", claim.spec.volumeName)

    def _around_volume(self, volume: Volume) -> Iterable[ObjectKey]:
        yield key_of(volume)
        ref = volume.spec.claimRef
        if ref is not None:
            yield ObjectKey(ref.namespace or "", ref.name or "")
        elif phase_of(volume) == "Available":
            for claim in self._claims.lister.by_index(BY_CLASS, rules.class_of(volume)):
                yield key_of(claim)

    def _class_changed(self, changed: StorageClass) -> None:
        for name in {changed.metadata.name or "", ""}:
            for claim in self._claims.lister.by_index(BY_CLASS, name):
                self.controller.enqueue(key_of(claim))

    async def reconcile(self, key: ObjectKey) -> Result:
        if not key.namespace:
            volume = self._volumes.lister.get(key)
            if volume is not None:
                await self._volume_sync.sync(volume)
            return DONE
        claim = self._claims.lister.get(key)
        if claim is None:
            return DONE
        await self._claim_sync.sync(claim)
        return Result(requeue_after=RESYNC) if phase_of(claim) in ("", PENDING) else DONE


def build(env: Environment) -> list[Controller]:
    return [PersistentVolumeController(env).controller]
