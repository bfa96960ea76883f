"""Rows of the apps group."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from apiserver.tables.columns import Object, Printer, printer
from apiserver.tables.durations import age
from apiserver.tables.texts import NONE, containers, controller_of, label_selector, labels, mapping, name, number, text


def _template(obj: Object) -> list[Any]:
    return [*containers(mapping(obj, "spec", "template", "spec")), label_selector(mapping(obj, "spec", "selector"))]


def deployment(obj: Object, now: datetime) -> list[Any]:
    status = mapping(obj, "status")
    return [
        name(obj),
        f"{number(status, 'readyReplicas')}/{number(obj, 'spec', 'replicas')}",
        number(status, "updatedReplicas"),
        number(status, "availableReplicas"),
        age(obj, now),
        *_template(obj),
    ]


def replica_set(obj: Object, now: datetime) -> list[Any]:
    status = mapping(obj, "status")
    counts = [number(obj, "spec", "replicas"), number(status, "replicas"), number(status, "readyReplicas")]
    return [name(obj), *counts, age(obj, now), *_template(obj)]


def stateful_set(obj: Object, now: datetime) -> list[Any]:
    ready = f"{number(obj, 'status', 'readyReplicas')}/{number(obj, 'spec', 'replicas')}"
    return [name(obj), ready, age(obj, now), *containers(mapping(obj, "spec", "template", "spec"))]


def daemon_set(obj: Object, now: datetime) -> list[Any]:
    status = mapping(obj, "status")
    fields = (
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    )
    node_selector = labels(mapping(obj, "spec", "template", "spec", "nodeSelector"))
    return [name(obj), *(number(status, field) for field in fields), node_selector, age(obj, now), *_template(obj)]


def controller_revision(obj: Object, now: datetime) -> list[Any]:
    owner = controller_of(obj)
    group = text(owner, "apiVersion").rpartition("/")[0]
    kind = text(owner, "kind").lower() + (f".{group}" if group else "")
    controller = f"{kind}/{text(owner, 'name')}" if owner else NONE
    return [name(obj), controller, number(obj, "revision"), age(obj, now)]


_WIDE = "Containers+, Images+, Selector+"
PRINTERS: dict[tuple[str, str], Printer] = {
    ("apps", "deployments"): printer(f"Ready, Up-to-date, Available, Age, {_WIDE}", deployment),
    ("apps", "replicasets"): printer(f"Desired:integer, Current:integer, Ready:integer, Age, {_WIDE}", replica_set),
    ("apps", "statefulsets"): printer("Ready, Age, Containers+, Images+", stateful_set),
    ("apps", "daemonsets"): printer(
        "Desired:integer, Current:integer, Ready:integer, Up-to-date:integer, Available:integer, Node Selector, Age, "
        + _WIDE,
        daemon_set,
    ),
    ("apps", "controllerrevisions"): printer("Controller, Revision, Age", controller_revision),
}
