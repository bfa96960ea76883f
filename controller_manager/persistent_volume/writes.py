"""The patches by which claims and volumes are bound, unbound and told of, each on the version it was decided on.

Owns no decision. A binding is four writes, each of which leaves a state from which the next pass goes on: the volume
names the claim, is Bound, the claim names the volume, is Bound.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

from typing import Any, Final

from api.models import core_v1
from api.volumes import BIND_COMPLETED, BOUND_BY_CONTROLLER, Claim, Volume, annotations_of
from client.client import Client
from machinery.quantity import canonical

AVAILABLE: Final = "Available"
BOUND: Final = "Bound"
RELEASED: Final = "Released"
FAILED: Final = "Failed"
PENDING: Final = "Pending"
LOST: Final = "Lost"


def phase_of(obj: Volume | Claim) -> str:
    return (obj.status.phase if obj.status is not None else None) or ""


def reference_to(claim: Claim) -> dict[str, Any]:
    """The claimRef of a volume that is the claim's."""
    meta = claim.metadata
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": meta.namespace,
        "name": meta.name,
        "uid": meta.uid,
        "resourceVersion": meta.resourceVersion,
    }


def volume_patch(volume: Volume, claim: Claim) -> dict[str, Any] | None:
    """Merge patch that makes the volume name the claim; None when it does already."""
    ref = volume.spec.claimRef
    patch: dict[str, Any] = {}
    if ref is None or ref.uid != claim.metadata.uid:
        patch["spec"] = {"claimRef": reference_to(claim)}
    if ref is None and BOUND_BY_CONTROLLER not in annotations_of(volume):
        patch["metadata"] = {"annotations": {BOUND_BY_CONTROLLER: "yes"}}
    return patch or None


def unbind_patch(volume: Volume) -> dict[str, Any]:
    """Merge patch that frees the volume: wholly if a controller bound it, else only of the claim's uid."""
    if BOUND_BY_CONTROLLER in annotations_of(volume):
        return {"metadata": {"annotations": {BOUND_BY_CONTROLLER: None}}, "spec": {"claimRef": None}}
    return {"spec": {"claimRef": {"uid": None, "resourceVersion": None}}}


def claim_patch(claim: Claim, volume: Volume) -> dict[str, Any] | None:
    """Merge patch that makes the claim name the volume and say that its binding is complete."""
    noted = annotations_of(claim)
    marks: dict[str, str] = {}
    patch: dict[str, Any] = {}
    if claim.spec.volumeName != volume.metadata.name:
        patch["spec"] = {"volumeName": volume.metadata.name}
        if BOUND_BY_CONTROLLER not in noted:
            marks[BOUND_BY_CONTROLLER] = "yes"
    if BIND_COMPLETED not in noted:
        marks[BIND_COMPLETED] = "yes"
    if marks:
        patch["metadata"] = {"annotations": marks}
    return patch or None


def status_patch(claim: Claim, phase: str, volume: Volume | None) -> dict[str, Any] | None:
    """Merge patch of a claim's status: with its volume, modes and (until it is resized) size are the volume's."""
    status = claim.status or core_v1.PersistentVolumeClaimStatus()
    patch: dict[str, Any] = {}
    if status.phase != phase:
        patch["phase"] = phase
    if volume is None:
        if status.accessModes:
            patch["accessModes"] = None
        if status.capacity:
            patch["capacity"] = None
    else:
        if list(status.accessModes or ()) != list(volume.spec.accessModes or ()):
            patch["accessModes"] = volume.spec.accessModes
        size = (volume.spec.capacity or {}).get("storage")
        if status.phase != BOUND and size is not None and (status.capacity or {}).get("storage") != size:
            patch["capacity"] = {"storage": canonical(size)}
        wanted = volume.spec.volumeAttributesClassName
        if status.currentVolumeAttributesClassName != wanted:
            patch["currentVolumeAttributesClassName"] = wanted
    return {"status": patch} if patch else None


class Writes:
    """Carries the patches out. Every method returns the object as it is then and raises StatusError."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def bind(self, volume: Volume, claim: Claim) -> None:
        """Bind both to each other, or finish what is half done."""
        volume = await self.volume(volume, volume_patch(volume, claim))
        volume = await self.volume_phase(volume, BOUND)
        claim = await self.claim(claim, claim_patch(claim, volume))
        await self.claim_phase(claim, BOUND, volume)

    async def unbind(self, volume: Volume) -> None:
        """Free the volume for others."""
        volume = await self.volume(volume, unbind_patch(volume))
        await self.volume_phase(volume, AVAILABLE)

    async def volume(self, volume: Volume, patch: dict[str, Any] | None) -> Volume:
        if patch is None:
            return volume
        meta = volume.metadata
        return await self._client.patch(Volume, meta.name or "", patch, resource_version=meta.resourceVersion)

    async def volume_phase(self, volume: Volume, phase: str, reason: str = "", message: str = "") -> Volume:
        if phase_of(volume) == phase:
            return volume  # what else its status says is not ours
        patch = {"status": {"phase": phase, "reason": reason or None, "message": message or None}}
        meta = volume.metadata
        return await self._client.patch(
            Volume, meta.name or "", patch, subresource="status", resource_version=meta.resourceVersion
        )

    async def claim(self, claim: Claim, patch: dict[str, Any] | None, subresource: str = "") -> Claim:
        if patch is None:
            return claim
        meta = claim.metadata
        return await self._client.patch(
            Claim,
            meta.name or "",
            patch,
            meta.namespace,
            subresource=subresource,
            resource_version=meta.resourceVersion,
        )

    async def claim_phase(self, claim: Claim, phase: str, volume: Volume | None = None) -> Claim:
        return await self.claim(claim, status_patch(claim, phase, volume), "status")
