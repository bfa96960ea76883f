"""How OpenAPI documents name custom resources.

Pure. Called by everything that makes these documents.
"""

from __future__ import annotations

from api.resources import Resource


def component_name(resource: Resource, kind: str) -> str:
    """`com.example.v1.Widget`: the group's words backwards, as upstream names schemas."""
    return ".".join((*reversed(resource.group.split(".")), resource.version, kind))


def group_version_kind(resource: Resource, kind: str) -> dict[str, str]:
    """The value of `x-kubernetes-group-version-kind`."""
    return {"group": resource.group, "version": resource.version, "kind": kind}
