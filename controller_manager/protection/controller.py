"""The three protection controllers: they take the finalizer from deleted objects that nothing uses any more.

Owns the watching and the write; what is used is decided by `plan`. One class serves all three kinds. Called by app.py
through the `build_*` functions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from api.models import core_v1, storage_v1
from client.client import key_of
from client.controller import DONE, Controller, Result
from client.informer import Informer
from controller_manager.environment import Environment
from controller_manager.protection import plan
from machinery import log
from machinery.errors import NotFound
from machinery.log import kv
from machinery.meta import ObjectKey

BY_CLAIM: Final = "claim"
BY_ATTRIBUTES_CLASS: Final = "volume-attributes-class"
_log = log.get(__name__)

UsedNow = Callable[[Any], Awaitable[bool]]


class ProtectionController:
    """Protects the objects of one kind; keeps no state."""

    def __init__(
        self,
        env: Environment,
        name: str,
        kind: type[Any],
        finalizer: str,
        used_now: UsedNow,
        users: Sequence[Informer[Any]] = (),
    ) -> None:
        self._client = env.client
        self._kind = kind
        self._finalizer = finalizer
        self._used_now = used_now
        self.objects: Informer[Any] = env.informers.informer(kind)
        self.controller = Controller(
            name,
            self.reconcile,
            clock=env.clock,
            informers=[self.objects, *users],
            workers=env.options.concurrent_syncs,
        )
        self.controller.watches(self.objects)

    async def reconcile(self, key: ObjectKey) -> Result:
        obj = self.objects.lister.get(key)
        if obj is None:
            return DONE
        leaving = obj.metadata.deletionTimestamp is not None and self._finalizer in (obj.metadata.finalizers or ())
        used = await self._used_now(obj) if leaving else False
        wanted = plan.plan_finalizers(obj, self._finalizer, lambda: used)
        if wanted is None:
            return DONE
        try:
            # Finalizers of others may have changed meanwhile: only the very version that was looked at is changed.
            await self._client.patch(
                self._kind,
                key.name,
                {"metadata": {"finalizers": wanted, "uid": obj.metadata.uid}},
                key.namespace or None,
                resource_version=obj.metadata.resourceVersion,
            )
        except NotFound:
            return DONE
        _log.info("Changed protection", extra=kv(kind=self._kind.__name__, object=key, finalizers=wanted))
        return DONE


def build_claims(env: Environment) -> list[Controller]:
    """Claims stay while a pod with a node uses them."""
    pods: Informer[core_v1.Pod] = env.informers.informer(core_v1.Pod, indexers={BY_CLAIM: _claims_of_pod})

    async def used_now(claim: core_v1.PersistentVolumeClaim) -> bool:
        key = key_of(claim)
        if plan.claim_is_used(claim, pods.lister.by_index(BY_CLAIM, str(key))):
            return True
        # The cache may not know the newest pods yet, and losing data is worse than one more list.
        return plan.claim_is_used(claim, (await env.client.list(core_v1.Pod, key.namespace)).items)

    found = ProtectionController(
        env,
        "persistentvolumeclaim-protection-controller",
        core_v1.PersistentVolumeClaim,
        plan.CLAIM_FINALIZER,
        used_now,
        [pods],
    )
    found.controller.watches(pods, _keys_of_claims)
    return [found.controller]


def _keys_of_claims(pod: core_v1.Pod) -> Iterable[ObjectKey]:
    namespace = key_of(pod).namespace
    return [ObjectKey(namespace, name) for name in plan.claim_names(pod)]


def _claims_of_pod(pod: core_v1.Pod) -> Iterable[str]:
    return [str(key) for key in _keys_of_claims(pod)]


def build_volumes(env: Environment) -> list[Controller]:
    """Volumes stay while they are bound."""

    async def used_now(volume: core_v1.PersistentVolume) -> bool:
        return plan.volume_is_used(volume)

    name = "persistentvolume-protection-controller"
    return [ProtectionController(env, name, core_v1.PersistentVolume, plan.VOLUME_FINALIZER, used_now).controller]


def build_classes(env: Environment) -> list[Controller]:
    """Attribute classes stay while a volume or claim names them."""
    indexers = {BY_ATTRIBUTES_CLASS: plan.classes_of_claim}
    claims: Informer[core_v1.PersistentVolumeClaim] = env.informers.informer(
        core_v1.PersistentVolumeClaim, indexers=indexers
    )
    volumes: Informer[core_v1.PersistentVolume] = env.informers.informer(
        core_v1.PersistentVolume, indexers={BY_ATTRIBUTES_CLASS: plan.classes_of_volume}
    )

    async def used_now(found: storage_v1.VolumeAttributesClass) -> bool:
        name = key_of(found).name
        return bool(
            claims.lister.by_index(BY_ATTRIBUTES_CLASS, name) or volumes.lister.by_index(BY_ATTRIBUTES_CLASS, name)
        )

    name = "volumeattributesclass-protection-controller"
    found = ProtectionController(
        env, name, storage_v1.VolumeAttributesClass, plan.CLASS_FINALIZER, used_now, [claims, volumes]
    )
    found.controller.watches(claims, lambda claim: [ObjectKey("", name) for name in plan.classes_of_claim(claim)])
    found.controller.watches(volumes, lambda volume: [ObjectKey("", name) for name in plan.classes_of_volume(volume)])
    return [found.controller]
