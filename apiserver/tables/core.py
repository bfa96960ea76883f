"""Rows of the core group but for pods: nodes, namespaces, configuration, storage claims, quotas, controllers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from apiserver.tables.columns import Object, Printer, printer
from apiserver.tables.durations import UNKNOWN, age
from apiserver.tables.texts import (
    NONE,
    UNSET,
    condition,
    containers,
    items,
    labels,
    mapping,
    name,
    number,
    part,
    text,
)

_ROLE_PREFIX = "node-role.kubernetes.io/"
_ACCESS_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}
_CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"


def node(obj: Object, now: datetime) -> list[Any]:
    ready = text(condition(items(obj, "status", "conditions"), "Ready"), "status")
    status = "Unknown" if not ready else "Ready" if ready == "True" else "NotReady"
    if part(obj, "spec", "unschedulable"):
        status += ",SchedulingDisabled"
    addresses = {text(a, "type"): text(a, "address") for a in reversed(items(obj, "status", "addresses"))}
    info = mapping(obj, "status", "nodeInfo")
    return [
        name(obj),
        status,
        node_roles(obj),
        age(obj, now),
        text(info, "kubeletVersion"),
        addresses.get("InternalIP") or NONE,
        addresses.get("ExternalIP") or NONE,
        text(info, "osImage") or UNKNOWN,
        text(info, "kernelVersion") or UNKNOWN,
        text(info, "containerRuntimeVersion") or UNKNOWN,
    ]


def node_roles(obj: Object) -> str:
    """Roles are labels: the rest of `node-role.kubernetes.io/<role>`, or the value of `kubernetes.io/role`."""
    found = set()
    for key, value in mapping(obj, "metadata", "labels").items():
        if key.startswith(_ROLE_PREFIX) and len(key) > len(_ROLE_PREFIX):
            found.add(key[len(_ROLE_PREFIX) :])
        elif key == "kubernetes.io/role" and value:
            found.add(value)
    return ",".join(sorted(found)) or NONE


def namespace(obj: Object, now: datetime) -> list[Any]:
    return [name(obj), text(obj, "status", "phase"), age(obj, now)]


def config_map(obj: Object, now: datetime) -> list[Any]:
    return [name(obj), len(mapping(obj, "data")) + len(mapping(obj, "binaryData")), age(obj, now)]


def secret(obj: Object, now: datetime) -> list[Any]:
    return [name(obj), text(obj, "type"), len(mapping(obj, "data")), age(obj, now)]


def service_account(obj: Object, now: datetime) -> list[Any]:
    return [name(obj), age(obj, now)]


def resource_quota(obj: Object, now: datetime) -> list[Any]:
    requests: list[str] = []
    limits: list[str] = []
    used = mapping(obj, "status", "used")
    for resource, hard in sorted(mapping(obj, "status", "hard").items()):
        line = f"{resource}: {used.get(resource, '0')}/{hard}"
        (limits if resource.startswith("limits.") else requests).append(line)
    return [name(obj), ", ".join(requests), ", ".join(limits), age(obj, now)]


def access_modes(modes: list[Any]) -> str:
    """Short names without repetition, in upstream's order."""
    present = set(map(str, modes))
    return ",".join(short for long, short in _ACCESS_MODES.items() if long in present)


def _storage_class(obj: Object) -> str:
    return mapping(obj, "metadata", "annotations").get(_CLASS_ANNOTATION) or text(obj, "spec", "storageClassName")


def _phase(obj: Object) -> str:
    return "Terminating" if part(obj, "metadata", "deletionTimestamp") else text(obj, "status", "phase")


def persistent_volume(obj: Object, now: datetime) -> list[Any]:
    claim = mapping(obj, "spec", "claimRef")
    return [
        name(obj),
        str(mapping(obj, "spec", "capacity").get("storage", "0")),
        access_modes(items(obj, "spec", "accessModes")),
        text(obj, "spec", "persistentVolumeReclaimPolicy"),
        _phase(obj),
        f"{text(claim, 'namespace')}/{text(claim, 'name')}" if claim else "",
        _storage_class(obj),
        text(obj, "spec", "volumeAttributesClassName") or UNSET,
        text(obj, "status", "reason"),
        age(obj, now),
        text(obj, "spec", "volumeMode") or UNSET,
    ]


def persistent_volume_claim(obj: Object, now: datetime) -> list[Any]:
    bound = text(obj, "spec", "volumeName")
    return [
        name(obj),
        _phase(obj),
        bound,
        str(mapping(obj, "status", "capacity").get("storage", "0")) if bound else "",
        access_modes(items(obj, "status", "accessModes")) if bound else "",
        _storage_class(obj),
        text(obj, "spec", "volumeAttributesClassName") or UNSET,
        age(obj, now),
        text(obj, "spec", "volumeMode") or UNSET,
    ]


def replication_controller(obj: Object, now: datetime) -> list[Any]:
    names, images = containers(mapping(obj, "spec", "template", "spec"))
    return [
        name(obj),
        number(obj, "spec", "replicas"),
        number(obj, "status", "replicas"),
        number(obj, "status", "readyReplicas"),
        age(obj, now),
        names,
        images,
        labels(mapping(obj, "spec", "selector")),
    ]


def pod_template(obj: Object, now: datetime) -> list[Any]:
    names, images = containers(mapping(obj, "template", "spec"))
    return [name(obj), names, images, labels(mapping(obj, "template", "metadata", "labels"))]


def component_status(obj: Object, now: datetime) -> list[Any]:
    healthy = condition(items(obj, "conditions"), "Healthy")
    status = {"True": "Healthy", "False": "Unhealthy"}.get(text(healthy, "status"), "Unknown")
    return [name(obj), status, text(healthy, "message"), text(healthy, "error")]


PRINTERS: dict[tuple[str, str], Printer] = {
    ("", "nodes"): printer(
        "Status, Roles, Age, Version, Internal-IP+, External-IP+, OS-Image+, Kernel-Version+, Container-Runtime+", node
    ),
    ("", "namespaces"): printer("Status, Age", namespace),
    ("", "configmaps"): printer("Data, Age", config_map),
    ("", "secrets"): printer("Type, Data, Age", secret),
    ("", "serviceaccounts"): printer("Age", service_account),
    ("", "resourcequotas"): printer("Request, Limit, Age", resource_quota),
    ("", "persistentvolumes"): printer(
        "Capacity, Access Modes, Reclaim Policy, Status, Claim, StorageClass, VolumeAttributesClass, Reason, Age, "
        "VolumeMode+",
        persistent_volume,
    ),
    ("", "persistentvolumeclaims"): printer(
        "Status, Volume, Capacity, Access Modes, StorageClass, VolumeAttributesClass, Age, VolumeMode+",
        persistent_volume_claim,
    ),
    ("", "replicationcontrollers"): printer(
        "Desired:integer, Current:integer, Ready:integer, Age, Containers+, Images+, Selector+", replication_controller
    ),
    ("", "podtemplates"): printer("Containers, Images, Pod Labels", pod_template),
    ("", "componentstatuses"): printer("Status, Message, Error", component_status),
}
