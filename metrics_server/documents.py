"""What the server tells of itself: discovery and OpenAPI of metrics.k8s.io/v1beta1.

Owns: these documents, made when first asked for. Pure. Called by `metrics_server.handlers`.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import msgspec

from api import schema
from metrics_server.objects import API_VERSION, GROUP, VERSION

Document = dict[str, Any]
DISCOVERY_TYPE = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
OPENAPI_V3 = f"/openapi/v3/apis/{API_VERSION}"
_KINDS = {"nodes": "NodeMetrics", "pods": "PodMetrics"}
_PACKAGE = f"io.k8s.metrics.pkg.apis.metrics.{VERSION}"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_VERBS = ["get", "list"]
_VERSION_ENTRY = {"groupVersion": API_VERSION, "version": VERSION}


def api_group() -> Document:
    """/apis/metrics.k8s.io."""
    body = {"name": GROUP, "versions": [_VERSION_ENTRY], "preferredVersion": _VERSION_ENTRY}
    return {"kind": "APIGroup", "apiVersion": "v1", **body}


def group_list() -> Document:
    """/apis."""
    group = {key: value for key, value in api_group().items() if key not in ("kind", "apiVersion")}
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]}


def resource_list() -> Document:
    """/apis/metrics.k8s.io/v1beta1."""
    resources = [
        {"name": name, "singularName": "", "namespaced": name == "pods", "kind": kind, "verbs": _VERBS}
        for name, kind in _KINDS.items()
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API_VERSION, "resources": resources}


def aggregated_discovery() -> Document:
    """/apis as apidiscovery.k8s.io/v2."""
    resources = [
        {
            "resource": name,
            "responseKind": {"group": GROUP, "version": VERSION, "kind": kind},
            "scope": "Namespaced" if name == "pods" else "Cluster",
            "singularResource": "",
            "verbs": _VERBS,
        }
        for name, kind in _KINDS.items()
    ]
    version = {"version": VERSION, "resources": resources, "freshness": "Current"}
    item = {"metadata": {"name": GROUP, "creationTimestamp": None}, "versions": [version]}
    head = {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}}
    return {**head, "items": [item]}


def openapi_index() -> Document:
    """/openapi/v3."""
    digest = hashlib.sha512(openapi_v3()).hexdigest().upper()
    return {"paths": {OPENAPI_V3.removeprefix("/openapi/v3/"): {"serverRelativeURL": f"{OPENAPI_V3}?hash={digest}"}}}


@cache
def openapi_v3() -> bytes:
    """The document of the group version."""
    paths = {path: {"get": _operation(path, plural, v3=True)} for path, plural in _paths().items()}
    body = {"paths": paths, "components": {"schemas": _schemas("#/components/schemas/")}}
    return msgspec.json.encode({"openapi": "3.0.0", "info": _info(), **body})


@cache
def openapi_v2() -> bytes:
    """/openapi/v2."""
    paths = {path: {"get": _operation(path, plural, v3=False)} for path, plural in _paths().items()}
    body = {"paths": paths, "definitions": _schemas("#/definitions/")}
    return msgspec.json.encode({"swagger": "2.0", "info": _info(), **body})


def _info() -> Document:
    return {"title": "Kubernetes metrics-server", "version": f"v{schema.KUBERNETES_VERSION}"}


def _paths() -> dict[str, str]:
    root = f"/apis/{API_VERSION}"
    return {
        f"{root}/nodes": "nodes",
        f"{root}/nodes/{{name}}": "nodes",
        f"{root}/pods": "pods",
        f"{root}/namespaces/{{namespace}}/pods": "pods",
        f"{root}/namespaces/{{namespace}}/pods/{{name}}": "pods",
    }


def _operation(path: str, plural: str, *, v3: bool) -> Document:
    kind, single = _KINDS[plural], path.endswith("{name}")
    prefix = "#/components/schemas/" if v3 else "#/definitions/"
    answer = {"schema": {"$ref": f"{prefix}{_PACKAGE}.{kind}{'' if single else 'List'}"}}
    told: Document = {"description": "OK", **({"content": {"application/json": answer}} if v3 else answer)}
    string: Document = {"schema": {"type": "string"}} if v3 else {"type": "string"}
    parameters = [
        {"name": name, "in": "path", "required": True, **string}
        for name in ("namespace", "name")
        if f"{{{name}}}" in path
    ]
    scope = "Namespaced" if "{namespace}" in path else ""
    across = "ForAllNamespaces" if plural == "pods" and not scope else ""
    verb = "read" if single else "list"
    return {
        "description": f"{verb} {kind}",
        "operationId": f"{verb}MetricsV1beta1{scope}{kind}{across}",
        "parameters": parameters,
        "responses": {"200": told},
        "x-kubernetes-action": "get" if single else "list",
        "x-kubernetes-group-version-kind": {"group": GROUP, "version": VERSION, "kind": kind},
    }


def _schemas(prefix: str) -> Document:
    described = msgspec.json.decode(schema.raw_definition("io.k8s.api.core.v1.Pod"))["properties"]
    text = {name: {"type": "string", "description": described[name]["description"]} for name in ("apiVersion", "kind")}
    usage = {
        "type": "object",
        "description": "The memory usage is the memory working set.",
        "additionalProperties": {"$ref": prefix + _QUANTITY},
    }
    time = {
        "timestamp": {"$ref": f"{prefix}{_META}.Time", "description": "The end of the window."},
        "window": {"$ref": f"{prefix}{_META}.Duration", "description": "Over which usage was measured."},
    }
    meta = {"$ref": f"{prefix}{_META}.ObjectMeta"}
    container = {
        "type": "object",
        "required": ["name", "usage"],
        "properties": {"name": {"type": "string", "description": "The container in the pod's spec."}, "usage": usage},
    }
    listed = {"type": "array", "items": {"$ref": f"{prefix}{_PACKAGE}.ContainerMetrics"}}
    schemas: Document = {
        f"{_PACKAGE}.ContainerMetrics": {"description": "What a container uses.", **container},
        f"{_PACKAGE}.NodeMetrics": {
            "type": "object",
            "description": "What a node uses.",
            "required": ["timestamp", "window", "usage"],
            "properties": {**text, "metadata": meta, **time, "usage": usage},
        },
        f"{_PACKAGE}.PodMetrics": {
            "type": "object",
            "description": "What a pod uses.",
            "required": ["timestamp", "window", "containers"],
            "properties": {**text, "metadata": meta, **time, "containers": listed},
        },
        _QUANTITY: {"type": "string"},
        f"{_META}.Time": {"type": "string", "format": "date-time"},
        f"{_META}.Duration": {"type": "string"},
        f"{_META}.ObjectMeta": {"type": "object"},
        f"{_META}.ListMeta": {"type": "object"},
    }
    for kind in _KINDS.values():
        own = {"group": GROUP, "version": VERSION, "kind": kind}
        schemas[f"{_PACKAGE}.{kind}"]["x-kubernetes-group-version-kind"] = [own]
        items = {"type": "array", "items": {"$ref": f"{prefix}{_PACKAGE}.{kind}"}}
        schemas[f"{_PACKAGE}.{kind}List"] = {
            "type": "object",
            "description": f"{kind}List is a list of {kind}.",
            "required": ["items"],
            "properties": {**text, "metadata": {"$ref": f"{prefix}{_META}.ListMeta"}, "items": items},
            "x-kubernetes-group-version-kind": [{**own, "kind": f"{kind}List"}],
        }
    return schemas
