"""PersistentVolumeClaimResize: a claim may ask for more only if its class can give it more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiserver.admission.refusal import forbidden
from apiserver.registry.context import RequestContext
from apiserver.registry.hooks import UPDATE, Obj, Undo
from apiserver.registry.store import Registry
from machinery import quantity

if TYPE_CHECKING:
    from api.resources import Resource

OLD_CLASS = "volume.beta.kubernetes.io/storage-class"


class PersistentVolumeClaimResize:
    """Reads classes from the cache."""

    def __init__(self, registry: Registry) -> None:
        self._classes = registry.resource("storage.k8s.io", "v1", "storageclasses")

    def handles(self, resource: Resource) -> bool:
        return (resource.group, resource.plural) == ("", "persistentvolumeclaims")

    async def check(
        self,
        ctx: RequestContext,
        op: str,
        resource: Resource,
        namespace: str,
        name: str,
        new: Obj | None,
        old: Obj | None,
        subresource: str,
    ) -> Undo | None:
        if op != UPDATE or subresource or new is None or old is None or not _grows(new, old):
            return None
        if (old.get("status") or {}).get("phase") != "Bound":
            raise forbidden(resource, name, new, "Only bound persistent volume claims can be expanded")
        chosen = _class(new)
        entry = self._classes.peek("", chosen) if chosen and chosen == _class(old) else None
        if entry is None or entry.decoded().get("allowVolumeExpansion") is not True:
            why = (
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must "
                "support resize"
            )
            raise forbidden(resource, name, new, why)
        return None


def _class(claim: Obj) -> str:
    annotations = claim["metadata"].get("annotations") or {}
    return str(annotations.get(OLD_CLASS) or (claim.get("spec") or {}).get("storageClassName") or "")


def _grows(new: Obj, old: Obj) -> bool:
    wanted, had = (
        ((each.get("spec") or {}).get("resources") or {}).get("requests", {}).get("storage") for each in (new, old)
    )
    if wanted is None or had is None:
        return False
    return quantity.parse(wanted) > quantity.parse(had)
