"""Priority: a pod's priority and preemption policy come from its PriorityClass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiserver.admission.refusal import forbidden
from apiserver.registry.context import RequestContext
from apiserver.registry.hooks import CREATE, DELETE, Obj
from apiserver.registry.store import Registry

if TYPE_CHECKING:
    from api.resources import Resource

GROUP = "scheduling.k8s.io"
PREEMPT = "PreemptLowerPriority"


class Priority:
    """Pods, and that there is only one default class."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def handles(self, resource: Resource) -> bool:
        return resource.plural in ("pods", "priorityclasses")

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
        if subresource or op == DELETE or new is None:
            return
        if resource.plural == "pods" and not resource.group:
            spec = new.get("spec")
            if not isinstance(spec, dict):
                return
            if op == CREATE:
                await self._resolve(resource, name, new, spec)
            elif old is not None:
                for field in ("priority", "preemptionPolicy"):
                    if spec.get(field) is None and old["spec"].get(field) is not None:
                        spec[field] = old["spec"][field]
        elif resource.plural == "priorityclasses" and new.get("globalDefault"):
            other = self._default()
            if other is not None and other["metadata"]["name"] != new["metadata"].get("name"):
                default = other["metadata"]["name"]
                text = f"PriorityClass {default} is already marked as default. Only one default can exist"
                raise forbidden(resource, name, new, text)

    async def _resolve(self, resource: Resource, name: str, pod: Obj, spec: Obj) -> None:
        class_name = spec.get("priorityClassName")
        if class_name:
            found = await self._class(class_name)
            if found is None:
                raise forbidden(resource, name, pod, f"no PriorityClass with name {class_name} was found")
        else:
            found = self._default()
            if found is not None:
                spec["priorityClassName"] = found["metadata"]["name"]
        value = (found or {}).get("value") or 0
        policy = (found or {}).get("preemptionPolicy") or PREEMPT
        given = spec.get("priority")
        if given is not None and given != value:
            text = (
                f"the integer value of priority ({given}) must not be provided in pod spec; priority admission "
                f"controller computed {value} from the given PriorityClass name"
            )
            raise forbidden(resource, name, pod, text)
        wanted = spec.get("preemptionPolicy")
        if wanted and wanted != policy:
            text = (
                f"the string value of PreemptionPolicy ({wanted}) must not be provided in pod spec; priority admission "
                f"controller computed {policy} from the given PriorityClass name"
            )
            raise forbidden(resource, name, pod, text)
        spec["priority"], spec["preemptionPolicy"] = value, policy

    async def _class(self, name: str) -> Obj | None:
        classes = self._registry.resource(GROUP, "v1", "priorityclasses")
        entry = classes.peek("", name)
        if entry is None:
            await classes.sync()
            entry = classes.peek("", name)
        return None if entry is None else entry.decoded()

    def _default(self) -> Obj | None:
        """The global default class with the lowest value, should there be several."""
        classes = self._registry.resource(GROUP, "v1", "priorityclasses")
        found = [entry.decoded() for entry in classes.entries() if b'"globalDefault":true' in entry.raw]
        return min(found, key=lambda each: int(each.get("value") or 0), default=None)
