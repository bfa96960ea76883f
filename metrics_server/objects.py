"""NodeMetrics and PodMetrics as JSON: objects, lists and tables, in upstream's spelling.

Owns: the forms. Pure. Called by `metrics_server.handlers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from machinery import quantity
from machinery.meta import rfc3339
from metrics_server.storage import Usage

GROUP, VERSION = "metrics.k8s.io", "v1beta1"
API_VERSION = f"{GROUP}/{VERSION}"
Document = dict[str, Any]
_DECIMALS = ((1_000_000_000, ""), (1_000_000, "m"), (1_000, "u"), (1, "n"))


def cpu(nanocores: int) -> str:
    """A Quantity with the coarsest suffix that loses nothing."""
    if nanocores == 0:
        return "0"
    unit, suffix = next(each for each in _DECIMALS if nanocores % each[0] == 0)
    if not suffix:
        return quantity.canonical(str(nanocores // unit))
    return f"{nanocores // unit}{suffix}"


def window(nanoseconds: int) -> str:
    """A duration as Go prints it: 15.02s, 1m0s, 900ms."""
    if nanoseconds < 1_000_000_000:
        return f"{_plain(nanoseconds / 1_000_000)}ms"
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    parts = [f"{hours}h"] * bool(hours) + [f"{minutes}m"] * bool(hours or minutes)
    return "".join(parts) + f"{seconds}{fraction}s"


def _plain(number: float) -> str:
    return f"{number:.6f}".rstrip("0").rstrip(".")


def _usage(found: Usage) -> Document:
    return {"cpu": cpu(found.cpu), "memory": quantity.format_bytes(found.memory)}


def _time(nanoseconds: int) -> str:
    return rfc3339(datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC))


def _meta(name: str, namespace: str, labels: Mapping[str, str] | None, now: datetime) -> Document:
    meta: Document = {"name": name, "creationTimestamp": rfc3339(now)}
    if namespace:
        meta["namespace"] = namespace
    if labels:
        meta["labels"] = dict(labels)
    return meta


def node_metrics(name: str, labels: Mapping[str, str] | None, found: Usage, now: datetime) -> Document:
    """metrics.k8s.io/v1beta1 NodeMetrics."""
    return {
        "kind": "NodeMetrics",
        "apiVersion": API_VERSION,
        "metadata": _meta(name, "", labels, now),
        "timestamp": _time(found.at),
        "window": window(found.window),
        "usage": _usage(found),
    }


def pod_metrics(
    namespace: str, name: str, labels: Mapping[str, str] | None, containers: Mapping[str, Usage], now: datetime
) -> Document:
    """metrics.k8s.io/v1beta1 PodMetrics; its time is that of the container that was measured first."""
    earliest = min(containers.values(), key=lambda each: each.at)
    return {
        "kind": "PodMetrics",
        "apiVersion": API_VERSION,
        "metadata": _meta(name, namespace, labels, now),
        "timestamp": _time(earliest.at),
        "window": window(earliest.window),
        "containers": [{"name": each, "usage": _usage(found)} for each, found in sorted(containers.items())],
    }


def as_list(kind: str, items: Iterable[Document]) -> Document:
    """NodeMetricsList or PodMetricsList; the list says what they are."""
    bare = [{key: value for key, value in item.items() if key not in ("kind", "apiVersion")} for item in items]
    return {"kind": f"{kind}List", "apiVersion": API_VERSION, "metadata": {}, "items": bare}


def total(item: Document) -> Mapping[str, str]:
    """What an item uses in all."""
    if "usage" in item:
        found: Mapping[str, str] = item["usage"]
        return found
    used = [each["usage"] for each in item["containers"]]
    nanocores = sum(int(quantity.parse(each["cpu"]) * 1_000_000_000) for each in used)
    return {"cpu": cpu(nanocores), "memory": quantity.format_bytes(sum(quantity.value(u["memory"]) for u in used))}


def as_table(items: Sequence[Document], version: str, include: str) -> Document:
    """meta.k8s.io Table of either kind; without items upstream tells no columns."""
    columns: list[Document] = []
    if items:
        columns.append(_column("Name", "name", "Name of the resource"))
        columns += [_column("cpu", "quantity"), _column("memory", "quantity"), _column("Window", "duration")]
    rows = []
    for item in items:
        used = total(item)
        cells = [item["metadata"]["name"], used["cpu"], used["memory"], item["window"]]
        rows.append({"cells": cells, "object": _row_object(item, version, include)})
    api_version = f"meta.k8s.io/{version}"
    return {
        "kind": "Table",
        "apiVersion": api_version,
        "metadata": {},
        "columnDefinitions": columns,
        "rows": rows,
    }


def _row_object(item: Document, version: str, include: str) -> Document | None:
    if include == "Object":
        return item
    if include == "None":
        return None
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": item["metadata"],
    }


def _column(name: str, form: str, description: str = "") -> Document:
    return {"name": name, "type": "string", "format": form, "description": description, "priority": 0}
