"""DefaultTolerationSeconds: pods stay five minutes on a node that is not ready or not reachable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiserver.registry.context import RequestContext
from apiserver.registry.hooks import DELETE, Obj

if TYPE_CHECKING:
    from api.resources import Resource

SECONDS = 300
KEYS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def missing_tolerations(tolerations: list[Obj]) -> list[Obj]:
    """The default tolerations for taints that none of the given ones covers."""
    covered = {
        toleration.get("key") or "" for toleration in tolerations if toleration.get("effect") in (None, "", "NoExecute")
    }
    if "" in covered:
        return []
    return [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}
        for key in KEYS
        if key not in covered
    ]


class DefaultTolerationSeconds:
    """Pods only; subresources never change tolerations."""

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
        if resource.plural != "pods" or resource.group or subresource or op == DELETE or new is None:
            return
        spec = new.get("spec")
        if not isinstance(spec, dict):
            return
        given = spec.get("tolerations") or []
        added = missing_tolerations(given)
        if added:
            spec["tolerations"] = [*given, *added]
