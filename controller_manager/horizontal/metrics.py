"""Metrics of pods, objects and the outside world, read from the aggregated metrics APIs.

Owns the paths of the three APIs and the reading of their answers. Error texts are those that users find in an HPA's
conditions.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol
from urllib.parse import quote

from controller_manager.horizontal.errors import MetricError
from controller_manager.horizontal.replicas import Sample
from machinery import quantity
from machinery.errors import StatusError
from machinery.meta import parse_time

RESOURCE, CUSTOM, EXTERNAL = (
    f"/apis/{group}"
    for group in ("metrics.k8s.io/v1beta1", "custom.metrics.k8s.io/v1beta2", "external.metrics.k8s.io/v1beta1")
)
FRESH = 3.0
"""Seconds for which an answer about a namespace serves all its autoscalers; samples are made every 15."""
UNSERVED = {
    404: "the server could not find the requested resource",
    503: "the server is currently unable to handle the request",
}
"""What Kubernetes' client says where nobody answers for an API."""
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
WINDOW = timedelta(minutes=1)
"""Of a custom metric that does not say."""


class Reader(Protocol):
    """What answers GETs of the API server."""

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]: ...


class MetricsSource:
    """All three APIs. Every method raises MetricError."""

    def __init__(self, reader: Reader, seconds: Callable[[], float]) -> None:
        """`seconds`: of any steady clock, by which the usage of a namespace is asked for once for all that want it."""
        self._reader = reader
        self._seconds = seconds
        self._usages: dict[str, tuple[float, asyncio.Future[dict[str, dict[str, Any]]]]] = {}

    async def resource(
        self, resource: str, namespace: str, pods: Collection[str], container: str = ""
    ) -> dict[str, Sample]:
        """Usage of each of the pods, or of one container; a pod of which a container has no sample is left out."""
        known = await self._namespace(namespace)
        items = [known[name] for name in pods if name in known]
        if not items:
            raise MetricError("no metrics returned from resource metrics API")
        found: dict[str, Sample] = {}
        for item in items:
            total = _usage(item.get("containers") or (), resource, container)
            if total is not None:
                found[item["metadata"]["name"]] = Sample(total, _time(item), _window(item.get("window")))
        if not found and container and items:
            raise MetricError(f"container {container} not present in metrics for pod {_first_pod(items)}")
        return found

    async def _ask(self, namespace: str) -> dict[str, dict[str, Any]]:
        items = await self._items("resource", f"{RESOURCE}/namespaces/{namespace}/pods", {}, "pods.metrics.k8s.io")
        return {item["metadata"]["name"]: item for item in items}

    async def _namespace(self, namespace: str) -> dict[str, dict[str, Any]]:
        now = self._seconds()
        known = self._usages.get(namespace)
        if known is None or now - known[0] > FRESH:
            self._usages = {key: value for key, value in self._usages.items() if now - value[0] <= FRESH}
            known = self._usages[namespace] = (now, asyncio.ensure_future(self._ask(namespace)))
        try:
            return await asyncio.shield(known[1])
        except MetricError:
            self._usages.pop(namespace, None)
            raise

    async def pods(self, metric: str, namespace: str, selector: str, metric_selector: str) -> dict[str, Sample]:
        """A custom metric of each pod."""
        params = {"labelSelector": selector, "metricLabelSelector": metric_selector}
        items = await self._items(
            "custom",
            f"{CUSTOM}/namespaces/{namespace}/pods/{quote('*')}/{quote(metric)}",
            {key: value for key, value in params.items() if value},
            "pods.custom.metrics.k8s.io *",
        )
        found: dict[str, Sample] = {}
        for item in items:
            seconds = item.get("windowSeconds")
            window = WINDOW if seconds is None else timedelta(seconds=seconds)
            found[item["describedObject"]["name"]] = Sample(_milli(item.get("value")), _time(item), window)
        return found

    async def of_object(self, metric: str, namespace: str, plural: str, name: str, metric_selector: str) -> int:
        """A custom metric of one object (milli). `plural`: resource.group; a namespace describes itself."""
        where = (
            f"{CUSTOM}/namespaces/{quote(name)}/metrics"
            if plural == "namespaces"
            else (f"{CUSTOM}/namespaces/{namespace}/{plural}/{quote(name)}")
        )
        params = {"metricLabelSelector": metric_selector} if metric_selector else {}
        items = await self._items(
            "custom", f"{where}/{quote(metric)}", params, f"{plural}.custom.metrics.k8s.io {name}"
        )
        return _milli(items[0].get("value"))

    async def external(self, metric: str, namespace: str, selector: str) -> int:
        """The sum of all series of an external metric (milli)."""
        params = {"labelSelector": selector} if selector else {}
        path = f"{EXTERNAL}/namespaces/{namespace}/{quote(metric)}"
        items = await self._items("external", path, params, f"{metric}.external.metrics.k8s.io")
        return sum(_milli(item.get("value")) for item in items)

    async def _items(self, api: str, path: str, params: Mapping[str, str], what: str) -> list[dict[str, Any]]:
        """`what`: how an error names the question, as Kubernetes' client does."""
        try:
            answer = await self._reader.get(path, params)
        except StatusError as error:
            generic = UNSERVED.get(error.code)
            told = error.reason not in ("", "InternalError") and error.message != generic  # by a backend, in its words
            text = f"{generic} (get {what})" if generic and not told else error.message
            raise MetricError(f"unable to fetch metrics from {api} metrics API: {text}") from error
        items = answer.get("items")
        if not items:
            raise MetricError(f"no metrics returned from {api} metrics API")
        return list(items)


def _usage(containers: Any, resource: str, wanted: str) -> int | None:
    total, seen = 0, False
    for each in containers:
        if wanted and each.get("name") != wanted:
            continue
        used = (each.get("usage") or {}).get(resource)
        if used is None:
            return None
        total, seen = total + _milli(used), True
    return total if seen else None


def _milli(text: Any) -> int:
    try:
        return quantity.milli(str(text))
    except ValueError as error:
        raise MetricError(f"unreadable value {text!r}") from error


def _time(item: Mapping[str, Any]) -> datetime:
    try:
        return parse_time(str(item.get("timestamp")))
    except ValueError as error:
        raise MetricError(f"unreadable timestamp {item.get('timestamp')!r}") from error


def _window(text: Any) -> timedelta:
    """metav1.Duration: `30s`, `1m0s`, `15.2s`, `750.5ms`."""
    return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(str(text or ""))))


def _first_pod(items: list[dict[str, Any]]) -> str:
    meta = items[0].get("metadata") or {}
    return f"{meta.get('namespace')}/{meta.get('name')}"
