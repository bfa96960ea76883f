"""Makes the claims of generic ephemeral volumes: one per pod and volume, owned by the pod.

Owns that creation (upstream's ephemeral-volume-controller). The garbage collector deletes them with their pod.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from api import volumes as rules
from api.models import core_v1, meta_v1
from api.volumes import Claim
from client.client import key_of
from client.controller import DONE, Controller, Result
from client.events import WARNING
from client.informer import EventHandler, Informer
from controller_manager.environment import Environment
from controller_manager.objects import controller_reference, is_finished
from controller_manager.persistent_volume.controller import BY_CLAIM, claims_index
from machinery.errors import AlreadyExists, StatusError
from machinery.meta import ObjectKey

COMPONENT: Final = "ephemeral-volume-controller"


def claims_for(pod: core_v1.Pod) -> Iterable[Claim]:
    """The claims that the pod's ephemeral volumes stand for."""
    for volume in pod.spec.volumes or ():
        if volume.ephemeral is None or volume.ephemeral.volumeClaimTemplate is None:
            continue
        template = volume.ephemeral.volumeClaimTemplate
        given = template.metadata or meta_v1.ObjectMeta()
        yield Claim(
            metadata=meta_v1.ObjectMeta(
                name=rules.claim_name(pod.metadata.name or "", volume),
                namespace=pod.metadata.namespace,
                labels=given.labels,
                annotations=given.annotations,
                ownerReferences=[controller_reference(pod)],
            ),
            spec=template.spec,
        )


class EphemeralController:
    """Reads listers, writes through the client."""

    def __init__(self, env: Environment) -> None:
        self._client = env.client
        self._events = env.recorder(COMPONENT)
        self._pods: Informer[core_v1.Pod] = env.informers.informer(core_v1.Pod, indexers={BY_CLAIM: claims_index})
        self._claims: Informer[Claim] = env.informers.informer(Claim)
        self.controller = Controller(
            "ephemeral-volume",
            self.reconcile,
            clock=env.clock,
            informers=[self._pods, self._claims],
            workers=env.options.concurrent_syncs,
        )
        self._pods.add_handler(EventHandler(self._pod_added))
        self._claims.add_handler(EventHandler(lambda obj: None, lambda old, new: None, self._claim_deleted))

    def _pod_added(self, pod: core_v1.Pod) -> None:
        if any(volume.ephemeral is not None for volume in pod.spec.volumes or ()):
            self.controller.enqueue(key_of(pod))

    def _claim_deleted(self, claim: Claim) -> None:
        for pod in self._pods.lister.by_index(BY_CLAIM, str(key_of(claim))):
            self._pod_added(pod)

    async def reconcile(self, key: ObjectKey) -> Result:
        pod = self._pods.lister.get(key)
        if pod is None or pod.metadata.deletionTimestamp is not None or is_finished(pod):
            return DONE
        for claim in claims_for(pod):
            there = self._claims.lister.get(key_of(claim))
            if there is not None:
                if not rules.is_for_pod(pod, there):
                    self._complain(pod, rules.not_for_pod(pod, there))
                continue
            try:
                await self._client.create(claim)
            except AlreadyExists:
                continue
            except StatusError as error:
                self._complain(pod, f"ephemeral volume {claim.metadata.name}: {error.message}")
                raise
        return DONE

    def _complain(self, pod: core_v1.Pod, text: str) -> None:
        self._events.event(pod, WARNING, "FailedBinding", text)


def build(env: Environment) -> list[Controller]:
    return [EphemeralController(env).controller]
