"""StorageObjectInUseProtection: new volumes, claims and attribute classes carry a finalizer that guards their use.

The finalizer is taken away by the controllers of `controller_manager.protection`, once nothing uses the object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiserver.registry.context import RequestContext
from apiserver.registry.hooks import CREATE, Obj

if TYPE_CHECKING:
    from api.resources import Resource

FINALIZERS = {
    ("", "persistentvolumes"): "kubernetes.io/pv-protection",
    ("", "persistentvolumeclaims"): "kubernetes.io/pvc-protection",
    ("storage.k8s.io", "volumeattributesclasses"): "kubernetes.io/vac-protection",
}


class StorageObjectInUseProtection:
    """Adds the finalizer to what is created; an object that brings it along is left as it is."""

    def handles(self, resource: Resource) -> bool:
        return (resource.group, resource.plural) in FINALIZERS

    async def admit(
        self,
        ctx: RequestContext,
        op: str,
        resource: Resource,
        namespace: str,
        name: str,
        new: Obj | None,
        old: Obj | None,
        subresource: str,
    ) -> None:
        if op != CREATE or new is None or subresource:
            return
        finalizer = FINALIZERS[resource.group, resource.plural]
        finalizers = new["metadata"].get("finalizers") or []
        if finalizer not in finalizers:
            new["metadata"]["finalizers"] = [*finalizers, finalizer]
