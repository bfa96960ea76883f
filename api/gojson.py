"""Objects as Go's encoder writes them: members of structs in their declared order, keys of maps sorted, HTML escaped.

Owns the order of members, which messages show and nothing else depends on. It follows upstream's protobuf numbers,
which are given in the order of declaration, but for fields that were added in the midst of a struct later. Called when
a message is worded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from api.schema import SchemaNode
from machinery import protobuf_fields
from machinery.golang import go_text

# field -> the one it was put behind, by message
_CONTAINER = {
    "envFrom": "ports",
    "resizePolicy": "resources",
    "restartPolicy": "resizePolicy",
    "restartPolicyRules": "restartPolicy",
    "volumeDevices": "volumeMounts",
    "startupProbe": "readinessProbe",
    "terminationMessagePolicy": "terminationMessagePath",
}
_PUT_BEHIND: Mapping[str, Mapping[str, str]] = {
    "Container": _CONTAINER,
    "EphemeralContainer": _CONTAINER,
    "EphemeralContainerCommon": _CONTAINER,
    "PodSpec": {
        "initContainers": "volumes",
        "ephemeralContainers": "containers",
        "automountServiceAccountToken": "serviceAccount",
        "shareProcessNamespace": "hostIPC",
    },
    "ServiceSpec": {"clusterIPs": "clusterIP"},
    "ServicePort": {"appProtocol": "protocol"},
    "JobSpec": {
        "podFailurePolicy": "activeDeadlineSeconds",
        "successPolicy": "podFailurePolicy",
        "backoffLimitPerIndex": "backoffLimit",
        "maxFailedIndexes": "backoffLimitPerIndex",
        "ttlSecondsAfterFinished": "template",
    },
    "CronJobSpec": {"timeZone": "schedule"},
    "PersistentVolumeClaimSpec": {"selector": "accessModes", "volumeName": "resources"},
}


AS_SENT = "as sent"


def paths_tree(operations: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What the operations of a JSON patch decode, for `go_json`."""
    tree: dict[str, Any] = {}
    for operation in operations:
        for member in ("from", "path"):
            steps = [step.replace("~1", "/").replace("~0", "~") for step in str(operation.get(member) or "").split("/")]
            place = tree
            for step in steps[1:-1]:
                below = place.get(step)
                place = place.setdefault(step, {}) if isinstance(below, dict | None) else {}
            if member == "path" and operation.get("op") in ("add", "replace") and len(steps) > 1:
                place.setdefault(steps[-1], AS_SENT)
    return tree


def go_json(value: Any, node: SchemaNode | None, merged: Any = None) -> str:
    """A document of the schema as Go writes it.

    `merged` tells what was decoded again to be changed, as a tree of keys and indexes: those objects were maps when
    they were written, so their keys are sorted. AS_SENT in it keeps a value as it is.
    """
    return go_text(_ordered(value, node, merged))


def _ordered(value: Any, node: SchemaNode | None, merged: Any) -> Any:
    if merged is AS_SENT:
        return value
    if isinstance(value, list):
        items = node.items if node is not None else None
        changed = merged if isinstance(merged, dict) else {}
        return [_ordered(item, items, changed.get(str(index))) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    keys = sorted(value)
    properties: Mapping[str, SchemaNode] = {}
    values: SchemaNode | None = None
    if node is not None:
        node.resolve()
        properties, values = node.properties, node.additional_properties
        if properties and not isinstance(merged, dict):
            place = places(node.ref or node.name)
            keys.sort(key=lambda key: place.get(key, len(place)))
    inner = merged if isinstance(merged, dict) else {}
    return {key: _ordered(value[key], properties.get(key, values), inner.get(key)) for key in keys}


@cache
def places(definition: str) -> Mapping[str, int]:
    """The place of every member in the struct of a definition; empty for what is no message."""
    message = definition.replace("io.k8s.", "k8s.io.", 1).replace("-", "_")
    try:
        names = _names(message)
    except KeyError:
        return {}
    for name, before in _PUT_BEHIND.get(message.rpartition(".")[2], {}).items():
        if name in names and before in names:
            names.remove(name)
            names.insert(names.index(before) + 1, name)
    whole = ["kind", "apiVersion", *names] if "metadata" in names else names
    return {name: place for place, name in enumerate(whole)}


def _names(message: str) -> list[str]:
    found: list[str] = []
    for _, field in sorted(protobuf_fields.message(message).items()):
        if field.name:
            found.append(field.name)
        elif field.message:
            found.extend(_names(field.message))
    return found
