"""Objects and small shorthands for the tests of field ownership."""

from __future__ import annotations

from typing import Any

from apiserver.apply.ownership import Kind
from apiserver.apply.server_side import Applied, plan_apply
from apiserver.apply.shapes import root_shape

Obj = dict[str, Any]
NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"

STATUS: Obj = {"f:status": {}}
CONFIG_MAPS = Kind("v1", root_shape("", "v1", "ConfigMap"))
DEPLOYMENTS = Kind("apps/v1", root_shape("apps", "v1", "Deployment"), ignored=STATUS)
DEPLOYMENT_STATUS = Kind("apps/v1", root_shape("apps", "v1", "Deployment"), "status", {"f:spec": {}})
SERVICES = Kind("v1", root_shape("", "v1", "Service"), ignored=STATUS)
PODS = Kind("v1", root_shape("", "v1", "Pod"), ignored=STATUS)
WIDGETS = Kind("example.com/v1", root_shape("example.com", "v1", "Widget"))


def config_map(data: Obj | None = None, **meta: Any) -> Obj:
    found: Obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web", **meta}}
    return found if data is None else {**found, "data": data}


def deployment(*containers: Obj, **spec: Any) -> Obj:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": list(containers)}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {**spec, "template": template},
    }


def stored(applied: Applied) -> Obj:
    """The object as it would be stored."""
    return {**applied.obj, "metadata": {**applied.obj["metadata"], "managedFields": applied.managed}}


def applied(kind: Kind, live: Obj, config: Obj, manager: str, *, force: bool = False, now: str = NOW) -> Obj:
    return stored(plan_apply(kind, live, config, manager, force=force, now=now))


def owners(obj: Obj) -> dict[str, Any]:
    """Fields by manager."""
    return {entry["manager"]: entry["fieldsV1"] for entry in obj["metadata"].get("managedFields") or ()}
