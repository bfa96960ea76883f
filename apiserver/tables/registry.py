"""From a resource to the renderer of its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from apiserver.tables import apps, batch, cluster, core, events, network, pods
from apiserver.tables.columns import Column, Object, Printer
from apiserver.tables.custom import custom_printer
from apiserver.tables.texts import name, text


class ResourceName(Protocol):
    """What is asked of a resource: `api.resources.Resource` is one."""

    @property
    def group(self) -> str: ...
    @property
    def plural(self) -> str: ...


def _default_cells(obj: Object, now: datetime) -> list[Any]:
    return [name(obj), text(obj, "metadata", "creationTimestamp")]


_DEFAULT = Printer((Column("Name", format="name"), Column("Created At", "date")), _default_cells)
_PRINTERS: dict[tuple[str, str], Printer] = {
    **core.PRINTERS,
    **pods.PRINTERS,
    **events.PRINTERS,
    **apps.PRINTERS,
    **batch.PRINTERS,
    **network.PRINTERS,
    **cluster.PRINTERS,
}


WRITTEN_BY_CONVERSION: Mapping[tuple[str, str], frozenset[str]] = {
    ("apps", "daemonsets"): frozenset({"deprecated.daemonset.template.generation"}),
    ("autoscaling", "horizontalpodautoscalers"): frozenset(
        f"autoscaling.alpha.kubernetes.io/{name}" for name in ("behavior", "conditions", "current-metrics", "metrics")
    ),
}
"""Annotations that stand for what a version cannot say; Tables and PartialObjectMetadata are made before them."""


class TableRenderer:
    """Renders objects of one resource. Stateless: may be kept and shared."""

    __slots__ = ("_columns", "_printer")

    def __init__(self, printer: Printer) -> None:
        self._printer = printer
        self._columns = [column.as_dict() for column in printer.columns]

    def render(
        self,
        resource: object,
        objects: Sequence[dict[str, Any]],
        include_object: str,
        now: datetime,
        with_columns: bool = True,
        version: str = "v1",
    ) -> dict[str, Any]:
        """A Table's columns and rows. `include_object` is Metadata, Object or None; watches send columns once.

        `version` is that of meta.k8s.io in which the client asked for the table.
        """
        cells, conditions = self._printer.cells, self._printer.conditions
        rows: list[dict[str, Any]] = []
        for obj in objects:
            row: dict[str, Any] = {"cells": cells(obj, now)}
            marks = conditions(obj) if conditions is not None else None
            if marks:
                row["conditions"] = marks
            row["object"] = _row_object(resource, obj, include_object, version)
            rows.append(row)
        columns = self._columns if with_columns else None
        return {"columnDefinitions": columns, "rows": rows}


def own_metadata(resource: object, metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata without the annotations that upstream writes only while it encodes whole objects."""
    key = getattr(resource, "group", ""), getattr(resource, "plural", "")
    written = WRITTEN_BY_CONVERSION.get(key)
    annotations = metadata.get("annotations") if written and isinstance(metadata, dict) else None
    if not written or not isinstance(annotations, dict) or written.isdisjoint(annotations):
        return metadata
    rest = {name: value for name, value in annotations.items() if name not in written}
    metadata = {name: value for name, value in metadata.items() if name != "annotations"}
    return {**metadata, "annotations": rest} if rest else metadata


def _row_object(resource: object, obj: dict[str, Any], include_object: str, version: str) -> dict[str, Any] | None:
    if include_object == "None":
        return None
    if include_object == "Object":
        return obj
    metadata = own_metadata(resource, obj.get("metadata") or {})
    return {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{version}", "metadata": metadata}


def table_for(resource: ResourceName) -> TableRenderer:
    """The renderer of a built-in resource; unknown ones get name and creation time."""
    return TableRenderer(_PRINTERS.get((resource.group, resource.plural), _DEFAULT))


def custom_table(columns: Sequence[Mapping[str, Any]]) -> TableRenderer:
    """The renderer of a custom resource from its version's `additionalPrinterColumns` (empty: name and age)."""
    return TableRenderer(custom_printer(columns))
