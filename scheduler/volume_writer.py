"""How the decisions of VolumeBinding reach the API server. Owns no decision; called by the plugin's PreBind."""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

import msgspec

from api.volumes import SELECTED_NODE, Claim, Volume, annotations_of
from client.client import Client
from machinery.clock import Clock


class ApiVolumeWriter:
    """A `VolumeWriter`; every write is on the version that the decision was made on."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self.clock = clock

    async def set_aside(self, volume: Volume) -> Volume:
        meta = volume.metadata
        patch = {
            "metadata": {"annotations": dict(annotations_of(volume))},
            "spec": {"claimRef": msgspec.to_builtins(volume.spec.claimRef)},
        }
        return await self._client.patch(Volume, meta.name or "", patch, resource_version=meta.resourceVersion)

    async def select_node(self, claim: Claim) -> Claim:
        meta = claim.metadata
        patch = {"metadata": {"annotations": {SELECTED_NODE: annotations_of(claim)[SELECTED_NODE]}}}
        return await self._client.patch(
            Claim, meta.name or "", patch, meta.namespace, resource_version=meta.resourceVersion
        )
