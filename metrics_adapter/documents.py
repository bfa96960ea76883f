"""What the adapter tells of itself: discovery of the metrics there are at the moment, and OpenAPI. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from aggregated import documents
from aggregated.documents import META, QUANTITY, Described
from metrics_adapter.objects import CUSTOM, CUSTOM_VERSIONS, EXTERNAL, EXTERNAL_VERSION
from metrics_adapter.registry import Listed

Document = dict[str, Any]
API_VERSIONS = (*(f"{CUSTOM}/{version}" for version in CUSTOM_VERSIONS), f"{EXTERNAL}/{EXTERNAL_VERSION}")
_TITLE = "metrics-adapter"
_REFERENCE = "io.k8s.api.core.v1.ObjectReference"


def groups() -> list[Document]:
    """The APIGroup of each."""
    return [documents.api_group(CUSTOM, CUSTOM_VERSIONS), documents.api_group(EXTERNAL, [EXTERNAL_VERSION])]


def group_list(told: list[Document]) -> Document:
    """/apis."""
    return documents.group_list(told)


def resource_list(api_version: str, listed: Listed) -> Document:
    """/apis/GROUP/VERSION: a resource for each metric of each kind of object, or for each external metric."""
    if api_version.startswith(EXTERNAL):
        told = [(name, True, "ExternalMetricValueList") for name in sorted(listed.external)]
    else:
        known = sorted((f"{each.resource}/{each.name}", each.namespaced) for each in listed.custom)
        told = [(name, namespaced, "MetricValueList") for name, namespaced in known]
    resources = [
        {"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get"]}
        for name, namespaced, kind in told
    ]
    return documents.resource_list(api_version, resources)


def aggregated_discovery(listed: Listed) -> Document:
    """/apis as apidiscovery.k8s.io/v2."""
    return documents.aggregated_discovery(resource_list(each, listed) for each in API_VERSIONS)


def openapi_path(api_version: str) -> str:
    return f"/openapi/v3/apis/{api_version}"


def openapi_index() -> Document:
    """/openapi/v3."""
    return documents.openapi_index({openapi_path(each): openapi_v3(each) for each in API_VERSIONS})


@cache
def openapi_v3(api_version: str) -> bytes:
    """The document of a group version."""
    form = Described(_TITLE, v3=True)
    return form.document(_paths(form, api_version), {**form.shared(), **_schemas(form, api_version)})


@cache
def openapi_v2() -> bytes:
    """/openapi/v2: all group versions."""
    form = Described(_TITLE, v3=False)
    paths: dict[str, Document] = {}
    schemas = form.shared()
    for each in API_VERSIONS:
        paths |= _paths(form, each)
        schemas |= _schemas(form, each)
    return form.document(paths, schemas)


def _kind(api_version: str) -> Document:
    group, version = documents.split(api_version)
    kind = "ExternalMetricValue" if group == EXTERNAL else "MetricValue"
    return {"group": group, "version": version, "kind": kind}


def _definition(api_version: str) -> str:
    kind = _kind(api_version)
    package = "external_metrics" if kind["group"] == EXTERNAL else "custom_metrics"
    return f"io.k8s.metrics.pkg.apis.{package}.{kind['version']}.{kind['kind']}"


def _paths(form: Described, api_version: str) -> dict[str, Document]:
    root, kind = f"/apis/{api_version}", _kind(api_version)
    if kind["group"] == EXTERNAL:
        found = {f"{root}/namespaces/{{namespace}}/{{resource}}": "NamespacedMetric"}
    else:
        found = {
            f"{root}/{{resource}}/{{name}}/{{subresource}}": "Metric",
            f"{root}/namespaces/{{namespace}}/metrics/{{name}}": "MetricOfNamespace",
            f"{root}/namespaces/{{namespace}}/{{resource}}/{{name}}/{{subresource}}": "NamespacedMetric",
        }
    prefix = f"list{kind['group'].partition('.')[0].title()}MetricsV{kind['version'][1:]}"
    answer = f"{_definition(api_version)}List"
    return {
        path: form.operation(path, f"{prefix}{name}", "list custom metrics", answer, kind, "list")
        for path, name in found.items()
    }


def _schemas(form: Described, api_version: str) -> Document:
    kind, definition = _kind(api_version), _definition(api_version)
    properties: dict[str, Mapping[str, Any]] = {
        "timestamp": {"$ref": f"{form.prefix}{META}.Time", "description": "When the value was measured."},
        "value": {"$ref": form.prefix + QUANTITY, "description": "The value of the metric."},
    }
    seconds = {"type": "integer", "format": "int64", "description": "Over which a rate was taken."}
    properties["windowSeconds" if kind["version"] == "v1beta2" else "window"] = seconds
    name = {"type": "string", "description": "The metric's name."}
    selector = {"$ref": f"{form.prefix}{META}.LabelSelector", "description": "What selected the series."}
    extra: Document = {}
    if kind["group"] == EXTERNAL:
        labels = {"type": "object", "description": "Of the series.", "additionalProperties": {"type": "string"}}
        properties |= {"metricName": name, "metricLabels": labels}
        required = ["metricName", "metricLabels", "timestamp", "value"]
    else:
        properties["describedObject"] = {"$ref": form.prefix + _REFERENCE, "description": "What the metric is of."}
        extra[_REFERENCE] = {"type": "object"}
        required = ["describedObject", "timestamp", "value"]
        if kind["version"] == "v1beta1":
            properties |= {"metricName": name, "selector": selector}
            required.append("metricName")
        else:
            identifier = definition.replace("MetricValue", "MetricIdentifier")
            extra[identifier] = {
                "type": "object",
                "description": "A name and, perhaps, a selector.",
                "required": ["name"],
                "properties": {"name": name, "selector": selector},
            }
            properties["metric"] = {"$ref": form.prefix + identifier}
            required.append("metric")
    return {
        **extra,
        definition: form.kind(dict(properties), required, "The value of a metric.", kind),
        f"{definition}List": form.listed(definition, kind),
    }
