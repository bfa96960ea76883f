"""`…/scale` of deployments, replica sets, stateful sets and replication controllers: an autoscaling/v1 Scale.

Owns the translation between a workload and its Scale. Called by the registry through `Strategy.for_subresource`.
"""

from typing import TYPE_CHECKING, Any

from apiserver.registry.strategy import PartStrategy
from apiserver.registry.validation.metadata import inherit_metadata
from machinery.field_errors import FieldError, invalid
from machinery.selectors import LabelSelector

if TYPE_CHECKING:
    from apiserver.registry.store import RequestContext

Obj = dict[str, Any]


class ScaleStrategy(PartStrategy):
    """Shows `spec.replicas` and `status.replicas` of the parent; writes `spec.replicas` only."""

    def view(self, parent: Obj) -> Obj:
        meta = parent["metadata"]
        kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        spec, status = parent.get("spec") or {}, parent.get("status") or {}
        replicas = spec.get("replicas") or 0
        shown: Obj = {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {key: meta[key] for key in kept if meta.get(key)},
            "spec": {"replicas": replicas} if replicas else {},
            "status": {"replicas": status.get("replicas") or 0},
        }
        if selector := self._selector(spec.get("selector")):
            shown["status"]["selector"] = selector
        return shown

    def _selector(self, selector: Obj | None) -> str:
        if not selector:
            return ""
        if self.resource.group == "":  # replication controllers carry a plain map
            selector = {"matchLabels": selector}
        return str(LabelSelector.from_object(selector))

    def merge(self, ctx: "RequestContext", parent: Obj, body: Obj) -> Obj:
        replicas = (body.get("spec") or {}).get("replicas") or 0
        if replicas < 0:
            finding = FieldError.invalid("spec.replicas", replicas, "must be greater than or equal to 0")
            raise invalid("Scale", parent["metadata"].get("name", ""), "autoscaling", [finding])
        merged = dict(parent)
        merged["metadata"] = dict(parent["metadata"])
        if version := (body.get("metadata") or {}).get("resourceVersion"):
            merged["metadata"]["resourceVersion"] = version
        merged["spec"] = {**(parent.get("spec") or {}), "replicas": replicas}
        return merged

    def prepare_update(self, ctx: "RequestContext", new: Obj, old: Obj) -> None:
        inherit_metadata(new["metadata"], old["metadata"])
        self._count_generation(new, old)

    def validate_update(self, ctx: "RequestContext", new: Obj, old: Obj) -> list[FieldError]:
        return self.parent.validate_update(ctx, new, old)
