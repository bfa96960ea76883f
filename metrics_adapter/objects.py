"""MetricValue and ExternalMetricValue as JSON, in upstream's spelling of each version. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from machinery import quantity
from machinery.meta import rfc3339
from machinery.selectors import LabelSelector
from metrics_adapter.prometheus import Sample
from metrics_adapter.resources import Resource

CUSTOM, EXTERNAL = "custom.metrics.k8s.io", "external.metrics.k8s.io"
CUSTOM_VERSIONS = ("v1beta2", "v1beta1")
EXTERNAL_VERSION = "v1beta1"
Document = dict[str, Any]
_LIMIT = 2**63 - 1


def milli(value: float) -> str:
    """A Quantity of so many thousandths, cut off as upstream does."""
    return quantity.format_milli(max(-_LIMIT, min(_LIMIT, int(value * 1000))))


def timestamp(seconds: float) -> str:
    return rfc3339(datetime.fromtimestamp(int(seconds), UTC))


def selector_object(selector: LabelSelector) -> Document | None:
    """metav1.LabelSelector of a query's terms; None for no terms."""
    if selector.empty:
        return None
    labels: dict[str, str] = {}
    expressions: list[Document] = []
    for each in selector.requirements:
        if each.operator == "In" and len(each.values) == 1:
            labels[each.key] = next(iter(each.values))
        else:
            values = {"values": sorted(each.values)} if each.values else {}
            expressions.append({"key": each.key, "operator": each.operator, **values})
    return {
        **({"matchLabels": labels} if labels else {}),
        **({"matchExpressions": expressions} if expressions else {}),
    }


def metric_value(
    version: str,
    resource: Resource,
    namespace: str,
    name: str,
    metric: str,
    selector: LabelSelector,
    sample: Sample,
    window: int | None,
) -> Document:
    """custom.metrics.k8s.io MetricValue. `window`: seconds over which a rate was taken."""
    described: Document = {"kind": resource.kind, "name": name, "apiVersion": resource.api_version}
    if namespace:
        described["namespace"] = namespace
    made: Document = {"describedObject": described, "timestamp": timestamp(sample.at), "value": milli(sample.value)}
    if version == "v1beta1":
        made["metricName"], made["selector"] = metric, selector_object(selector)
    else:
        made["metric"] = {"name": metric, "selector": selector_object(selector)}
    if window is not None:
        made["window" if version == "v1beta1" else "windowSeconds"] = window
    return made


def metric_list(version: str, items: Iterable[Document]) -> Document:
    """MetricValueList."""
    return {
        "kind": "MetricValueList",
        "apiVersion": f"{CUSTOM}/{version}",
        "metadata": {},
        "items": list(items),
    }


def external_value(metric: str, sample: Sample, window: int | None) -> Document:
    """external.metrics.k8s.io ExternalMetricValue."""
    labels: Mapping[str, str] = sample.labels
    made: Document = {
        "metricName": metric,
        "metricLabels": dict(labels),
        "timestamp": timestamp(sample.at),
        "value": milli(sample.value),
    }
    if window is not None:
        made["window"] = window
    return made


def external_list(items: Iterable[Document]) -> Document:
    """ExternalMetricValueList."""
    api_version = f"{EXTERNAL}/{EXTERNAL_VERSION}"
    return {"kind": "ExternalMetricValueList", "apiVersion": api_version, "metadata": {}, "items": list(items)}
