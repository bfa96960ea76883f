"""What the server tells of itself: discovery and OpenAPI of metrics.k8s.io/v1beta1.

Owns: these documents, made when first asked for. Pure. Called by `metrics_server.handlers`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from aggregated import documents
from aggregated.documents import META, QUANTITY, Described
from metrics_server.objects import API_VERSION, GROUP, VERSION

Document = dict[str, Any]
OPENAPI_V3 = f"/openapi/v3/apis/{API_VERSION}"
_KINDS = {"nodes": "NodeMetrics", "pods": "PodMetrics"}
_PACKAGE = f"io.k8s.metrics.pkg.apis.metrics.{VERSION}"
_TITLE = "Kubernetes metrics-server"


def api_group() -> Document:
    """/apis/metrics.k8s.io."""
    return documents.api_group(GROUP, [VERSION])


def group_list() -> Document:
    """/apis."""
    return documents.group_list([api_group()])


def resource_list() -> Document:
    """/apis/metrics.k8s.io/v1beta1."""
    resources = [
        {"name": name, "singularName": "", "namespaced": name == "pods", "kind": kind, "verbs": ["get", "list"]}
        for name, kind in _KINDS.items()
    ]
    return documents.resource_list(API_VERSION, resources)


def aggregated_discovery() -> Document:
    """/apis as apidiscovery.k8s.io/v2."""
    return documents.aggregated_discovery([resource_list()])


def openapi_index() -> Document:
    """/openapi/v3."""
    return documents.openapi_index({OPENAPI_V3: openapi_v3()})


@cache
def openapi_v3() -> bytes:
    """The document of the group version."""
    return _document(Described(_TITLE, v3=True))


@cache
def openapi_v2() -> bytes:
    """/openapi/v2."""
    return _document(Described(_TITLE, v3=False))


def _document(form: Described) -> bytes:
    return form.document({path: _operation(form, path, plural) for path, plural in _paths().items()}, _schemas(form))


def _paths() -> dict[str, str]:
    root = f"/apis/{API_VERSION}"
    return {
        f"{root}/nodes": "nodes",
        f"{root}/nodes/{{name}}": "nodes",
        f"{root}/pods": "pods",
        f"{root}/namespaces/{{namespace}}/pods": "pods",
        f"{root}/namespaces/{{namespace}}/pods/{{name}}": "pods",
    }


def _operation(form: Described, path: str, plural: str) -> Document:
    kind, single = _KINDS[plural], path.endswith("{name}")
    scope = "Namespaced" if "{namespace}" in path else ""
    across = "ForAllNamespaces" if plural == "pods" and not scope else ""
    verb = "read" if single else "list"
    return form.operation(
        path,
        f"{verb}MetricsV1beta1{scope}{kind}{across}",
        f"{verb} {kind}",
        f"{_PACKAGE}.{kind}{'' if single else 'List'}",
        {"group": GROUP, "version": VERSION, "kind": kind},
        "get" if single else "list",
    )


def _schemas(form: Described) -> Document:
    usage = {
        "type": "object",
        "description": "The memory usage is the memory working set.",
        "additionalProperties": {"$ref": form.prefix + QUANTITY},
    }
    time = {
        "timestamp": {"$ref": f"{form.prefix}{META}.Time", "description": "The end of the window."},
        "window": {"$ref": f"{form.prefix}{META}.Duration", "description": "Over which usage was measured."},
    }
    head = {"metadata": {"$ref": f"{form.prefix}{META}.ObjectMeta"}, **time}
    container = {
        "type": "object",
        "required": ["name", "usage"],
        "properties": {"name": {"type": "string", "description": "The container in the pod's spec."}, "usage": usage},
    }
    listed = {"type": "array", "items": {"$ref": f"{form.prefix}{_PACKAGE}.ContainerMetrics"}}
    node, pod = ({"group": GROUP, "version": VERSION, "kind": kind} for kind in _KINDS.values())
    times = ["timestamp", "window"]
    return {
        **form.shared(),
        f"{_PACKAGE}.ContainerMetrics": {"description": "What a container uses.", **container},
        f"{_PACKAGE}.NodeMetrics": form.kind({**head, "usage": usage}, [*times, "usage"], "What a node uses.", node),
        f"{_PACKAGE}.PodMetrics": form.kind(
            {**head, "containers": listed}, [*times, "containers"], "What a pod uses.", pod
        ),
        f"{_PACKAGE}.NodeMetricsList": form.listed(f"{_PACKAGE}.NodeMetrics", node),
        f"{_PACKAGE}.PodMetricsList": form.listed(f"{_PACKAGE}.PodMetrics", pod),
    }
