"""RuntimeClass: a pod takes overhead and scheduling constraints from the runtime class it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiserver.admission.refusal import forbidden
from apiserver.registry.context import RequestContext
from apiserver.registry.hooks import CREATE, Obj
from apiserver.registry.store import Registry

if TYPE_CHECKING:
    from api.resources import Resource


def apply_class(spec: Obj, found: Obj) -> str:
    """Write the class's demands into a pod's spec; returns why they do not fit, or ""."""
    overhead = (found.get("overhead") or {}).get("podFixed")
    given = spec.get("overhead")
    if given and given != overhead:
        return "Pod's Overhead doesn't match RuntimeClass's defined Overhead"
    if overhead:
        spec["overhead"] = overhead
    scheduling = found.get("scheduling") or {}
    wanted = scheduling.get("nodeSelector") or {}
    selector = spec.get("nodeSelector") or {}
    for key, value in wanted.items():
        if selector.get(key, value) != value:
            return (
                f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; "
                f"pod.spec.nodeSelector[{key}] = {selector[key]}"
            )
    if wanted:
        spec["nodeSelector"] = {**selector, **wanted}
    tolerations = spec.get("tolerations") or []
    added = [each for each in scheduling.get("tolerations") or () if each not in tolerations]
    if added:
        spec["tolerations"] = [*tolerations, *added]
    return ""


class RuntimeClass:
    """Pods at creation."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def handles(self, resource: Resource) -> bool:
        return resource.plural == "pods" and not resource.group

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
        if op != CREATE or new is None or resource.plural != "pods" or resource.group:
            return
        spec = new.get("spec") or {}
        wanted = spec.get("runtimeClassName")
        if not wanted:
            if spec.get("overhead"):
                raise forbidden(
                    resource, name, new, "pod rejected: Pod Overhead set without corresponding RuntimeClass"
                )
            return
        classes = self._registry.resource("node.k8s.io", "v1", "runtimeclasses")
        entry = classes.peek("", wanted)
        if entry is None:
            await classes.sync()
            entry = classes.peek("", wanted)
            if entry is None:
                raise forbidden(resource, name, new, f'pod rejected: RuntimeClass "{wanted}" not found')
        why = apply_class(spec, entry.decoded())
        if why:
            raise forbidden(resource, name, new, f"pod rejected: {why}")
