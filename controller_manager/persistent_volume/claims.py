"""What becomes of a claim: which volume it gets, what it waits for, when it is lost.

Owns upstream's decisions and their texts. Never makes a volume: it asks for one by an annotation, and whoever is the
provisioner of the class answers by creating a PersistentVolume that names the claim.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from api import volumes as rules
from api.models import core_v1
from api.volumes import Claim, StorageClass, Volume, annotations_of
from client.events import NORMAL, WARNING, EventRecorder
from controller_manager.persistent_volume.writes import LOST, PENDING, Writes, phase_of
from machinery.errors import Conflict

IN_TREE: Final = "kubernetes.io/"


class ClaimSync:
    """One pass over one claim; reads what it is given, writes through `Writes`."""

    def __init__(
        self,
        writes: Writes,
        events: EventRecorder,
        volume: Callable[[str], Volume | None],
        volumes: Callable[[str], Iterable[Volume]],
        classes: Callable[[], Mapping[str, StorageClass]],
        consumers: Callable[[Claim], Iterable[core_v1.Pod]],
    ) -> None:
        self._writes = writes
        self._events = events
        self._volume = volume
        self._volumes = volumes
        self._classes = classes
        self._consumers = consumers

    async def sync(self, claim: Claim) -> None:
        """Raises StatusError."""
        if rules.BIND_COMPLETED in annotations_of(claim):
            await self._bound(claim)
        elif claim.spec.volumeName:
            await self._chosen(claim)
        else:
            await self._unbound(claim)

    async def _unbound(self, claim: Claim) -> None:
        classes = self._classes()
        delayed = rules.waits_for_consumer(claim, classes)
        found = rules.best_for_claim(claim, self._volumes(rules.class_of(claim)), delayed=delayed)
        if found is not None:
            await self._writes.bind(found, claim)
            return
        if not rules.names_class(claim):
            default = rules.default_class(classes.values())
            if default is not None:
                await self._writes.claim(claim, {"spec": {"storageClassName": default.metadata.name}})
                return
        if delayed and rules.SELECTED_NODE not in annotations_of(claim):
            self._tell_waiting(claim)
        elif rules.class_of(claim):
            claim = await self._provision(claim, classes)
        else:
            text = "no persistent volumes available for this claim and no storage class is set"
            self._events.event(claim, NORMAL, "FailedBinding", text)
        await self._writes.claim_phase(claim, PENDING)

    def _tell_waiting(self, claim: Claim) -> None:
        waiting = sorted(pod.metadata.name or "" for pod in self._consumers(claim) if not pod.spec.nodeName)
        if waiting:
            noun = "pod" if len(waiting) == 1 else "pods"
            text = f"waiting for {noun} {','.join(waiting)} to be scheduled"
            self._events.event(claim, NORMAL, "WaitForPodScheduled", text)
        else:
            text = "waiting for first consumer to be created before binding"
            self._events.event(claim, NORMAL, "WaitForFirstConsumer", text)

    async def _provision(self, claim: Claim, classes: Mapping[str, StorageClass]) -> Claim:
        name = rules.class_of(claim)
        found = classes.get(name)
        if found is None:
            text = f'storageclass.storage.k8s.io "{name}" not found'
            self._events.event(claim, WARNING, "ProvisioningFailed", text)
            return claim
        provisioner = found.provisioner
        if provisioner.startswith(IN_TREE):
            text = f"no volume plugin matched name: {provisioner}"
            self._events.event(claim, WARNING, "ProvisioningFailed", text)
            return claim
        noted = annotations_of(claim)
        wanted = {rules.BETA_PROVISIONER: provisioner, rules.PROVISIONER: provisioner}
        if wanted.items() - noted.items():
            claim = await self._writes.claim(claim, {"metadata": {"annotations": wanted}})
        text = (
            f"Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the "
            "system administrator. If volume creation is delayed, please verify that the provisioner is running and "
            "correctly registered."
        )
        self._events.event(claim, NORMAL, "ExternalProvisioning", text)
        return claim

    async def _chosen(self, claim: Claim) -> None:
        """Somebody wrote into the claim which volume it shall have."""
        name = claim.spec.volumeName or ""
        volume = self._volume(name)
        if volume is not None and volume.spec.claimRef is None:
            why_not = rules.mismatch(volume, claim)
            if not why_not:
                await self._writes.bind(volume, claim)
                return
            text = f'Cannot bind to requested volume "{name}": {why_not}'
            self._events.event(claim, WARNING, "VolumeMismatch", text)
        elif volume is not None and rules.is_bound_to(volume, claim):
            await self._writes.bind(volume, claim)
            return
        elif volume is not None:
            if rules.BOUND_BY_CONTROLLER in annotations_of(claim):
                ref = volume.spec.claimRef
                raise Conflict(
                    f'invalid binding of claim "{claim.metadata.namespace}/{claim.metadata.name}" to volume "{name}": '
                    f'volume already claimed by "{ref.namespace}/{ref.name}"'
                )
            text = f'volume "{name}" already bound to a different claim.'
            self._events.event(claim, WARNING, "FailedBinding", text)
        await self._writes.claim_phase(claim, PENDING)

    async def _bound(self, claim: Claim) -> None:
        name = claim.spec.volumeName or ""
        volume = self._volume(name) if name else None
        if not name:
            text = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"
            await self._lost(claim, "ClaimLost", text)
        elif volume is None:
            await self._lost(
                claim, "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
            )
        elif volume.spec.claimRef is None or volume.spec.claimRef.uid == claim.metadata.uid:
            await self._writes.bind(volume, claim)
        else:
            text = "Two claims are bound to the same volume, this one is bound incorrectly"
            await self._lost(claim, "ClaimMisbound", text)

    async def _lost(self, claim: Claim, reason: str, text: str) -> None:
        if phase_of(claim) != LOST:
            await self._writes.claim_phase(claim, LOST)
            self._events.event(claim, WARNING, reason, text)
