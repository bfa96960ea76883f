"""The kinds of storage.k8s.io: classes, drivers, attachments, capacities.

Called by the rules of those kinds in the strategy table.
"""

from __future__ import annotations

from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.deprecations import DEPRECATED_NODE_LABELS, node_term_warnings
from apiserver.registry.validation.fields import (
    check_enum,
    check_immutable,
    check_label_selector,
    check_not_negative,
    invalid_each,
)
from apiserver.registry.validation.metadata import IMMUTABLE
from apiserver.registry.validation.resources import check_quantity
from apiserver.registry.validation.volume_sources import check_driver_name
from machinery.field_errors import FieldError

Obj = dict[str, Any]

_PARAMETERS = 512
_PARAMETER_BYTES = 256 * 1024
_METADATA_BYTES = 256 * 1024
_MESSAGE_BYTES = 1024
_NODE_ID = 256
_TOKEN_SECONDS = (600, 1 << 32)
_UPDATE_SECONDS = 10
_ONE_SOURCE = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"


def _parameters(parameters: Obj, *, required: bool = False) -> list[FieldError]:
    if len(parameters) > _PARAMETERS:
        return [FieldError.too_long("parameters", _PARAMETERS)]
    errors = [FieldError.invalid("parameters", key, "field can not be empty.") for key in parameters if not key]
    if sum(len(key.encode()) + len(value.encode()) for key, value in parameters.items()) > _PARAMETER_BYTES:
        errors.append(FieldError.too_long("parameters", _PARAMETER_BYTES))
    if required and not parameters:
        errors.append(FieldError.required("parameters", "must contain at least one key/value pair"))
    return errors


def _provisioner(path: str, name: str) -> list[FieldError]:
    return invalid_each(path, name, names.qualified_name(name.lower())) if name else [FieldError.required(path)]


def validate_storage_class(obj: Obj) -> list[FieldError]:
    """StorageClass."""
    errors = _provisioner("provisioner", obj.get("provisioner") or "")
    errors += _parameters(obj.get("parameters") or {})
    errors += check_enum("reclaimPolicy", obj.get("reclaimPolicy"), ("Delete", "Retain"))
    modes = ("Immediate", "WaitForFirstConsumer")
    errors += check_enum("volumeBindingMode", obj.get("volumeBindingMode"), modes, required=True)
    return errors + _topologies(obj.get("allowedTopologies") or [])


def _topologies(terms: list[Obj]) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: list[dict[str, set[str]]] = []
    for index, term in enumerate(terms):
        found: dict[str, set[str]] = {}
        for position, expression in enumerate(term.get("matchLabelExpressions") or ()):
            path = f"allowedTopologies[{index}].matchLabelExpressions[{position}]"
            key, values = expression.get("key") or "", expression.get("values") or []
            if not values:
                errors.append(FieldError.required(f"{path}.values"))
            twice = {value for place, value in enumerate(values) if value in values[:place]}
            for place, value in enumerate(values):
                if value in twice and value in values[:place]:
                    errors.append(FieldError.duplicate(f"{path}.values[{place}]", value))
            errors += invalid_each(f"{path}.key", key, names.qualified_name(key))
            if key in found:
                errors.append(FieldError.duplicate(f"{path}.key", key))
            found[key] = set(values)
        if found in seen:
            errors.append(FieldError.duplicate(f"allowedTopologies[{index}].matchLabelExpressions", ""))
        seen.append(found)
    return errors


def validate_storage_class_update(new: Obj, old: Obj) -> list[FieldError]:
    """All that says how volumes are made stays."""
    errors = validate_storage_class(new)
    if (new.get("parameters") or {}) != (old.get("parameters") or {}):
        errors.append(FieldError.forbidden("parameters", "updates to parameters are forbidden."))
    for field in ("provisioner", "reclaimPolicy", "volumeBindingMode"):
        errors += check_immutable(field, new.get(field), old.get(field))
    return errors


def storage_class_warnings(obj: Obj, old: Obj | None) -> list[str]:
    """Deprecated topology keys."""
    found: list[str] = []
    for index, term in enumerate(obj.get("allowedTopologies") or ()):
        for position, expression in enumerate(term.get("matchLabelExpressions") or ()):
            if text := DEPRECATED_NODE_LABELS.get(expression.get("key") or ""):
                found.append(f"allowedTopologies[{index}].matchLabelExpressions[{position}].key: {text}")
    return found


def capacity_warnings(obj: Obj, old: Obj | None) -> list[str]:
    """Deprecated labels in the topology of a CSIStorageCapacity."""
    topology = obj.get("nodeTopology") or {}
    found: list[str] = node_term_warnings(topology, "nodeTopology")
    for key in sorted(topology.get("matchLabels") or {}):
        if text := DEPRECATED_NODE_LABELS.get(key):
            found.append(f"nodeTopology.matchLabels.{key}: {text}")
    return found


def runtime_class_warnings(obj: Obj, old: Obj | None) -> list[str]:
    """Deprecated labels where a RuntimeClass chooses nodes."""
    chosen = sorted((obj.get("scheduling") or {}).get("nodeSelector") or {})
    return [
        f"scheduling.nodeSelector: {DEPRECATED_NODE_LABELS[key]}" for key in chosen if key in DEPRECATED_NODE_LABELS
    ]


def validate_csi_node(obj: Obj) -> list[FieldError]:
    """CSINode: drivers by unique name."""
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, driver in enumerate((obj.get("spec") or {}).get("drivers") or ()):
        path = f"spec.drivers[{index}]"
        name, node = driver.get("name") or "", driver.get("nodeID") or ""
        errors += check_driver_name(name, f"{path}.name")
        if not node:
            errors.append(FieldError.required(f"{path}.nodeID"))
        if len(node) > _NODE_ID:
            errors.append(FieldError.invalid(f"{path}.nodeID", node, f"must be {_NODE_ID} characters or less"))
        errors += check_not_negative(f"{path}.allocatable.count", (driver.get("allocatable") or {}).get("count"))
        if name in seen:
            errors.append(FieldError.duplicate(f"{path}.name", name))
        seen.add(name)
        keys = driver.get("topologyKeys") or []
        for place, key in enumerate(keys):
            if not key:
                errors.append(FieldError.required(path))
            if key in keys[:place]:
                errors.append(FieldError.duplicate(path, key))
            errors += invalid_each(path, key, names.qualified_name(key))
    return errors


def validate_csi_node_update(new: Obj, old: Obj) -> list[FieldError]:
    """A driver that stays is what it was, but for how many volumes it bears."""
    errors = validate_csi_node(new)
    after = {driver.get("name"): driver for driver in (new.get("spec") or {}).get("drivers") or ()}
    for driver in (old.get("spec") or {}).get("drivers") or ():
        now = after.get(driver.get("name"))
        if now is not None and _lasting(now) != _lasting(driver):
            errors.append(FieldError.invalid("spec.drivers", _lasting(now), IMMUTABLE))
    return errors


def _lasting(driver: Obj) -> Obj:
    """A driver as findings show it, without what may change."""
    shown = {"Name": driver.get("name") or "", "NodeID": driver.get("nodeID") or ""}
    return {**shown, "TopologyKeys": driver.get("topologyKeys") or None, "Allocatable": None}


def validate_csi_driver(obj: Obj) -> list[FieldError]:
    """CSIDriver."""
    spec = obj.get("spec") or {}
    policies = ("File", "None", "ReadWriteOnceWithFSType")
    errors = check_enum("spec.fsGroupPolicy", spec.get("fsGroupPolicy"), policies)
    errors += _token_requests(spec.get("tokenRequests") or [])
    for mode in spec.get("volumeLifecycleModes") or ():
        if mode not in ("Persistent", "Ephemeral"):
            known = ("Persistent", "Ephemeral")
            errors.append(FieldError.not_supported("spec.volumeLifecycleModes", mode, known, sort=False))
    period = spec.get("nodeAllocatableUpdatePeriodSeconds")
    if period is not None and period < _UPDATE_SECONDS:
        detail = f"must be greater than or equal to {_UPDATE_SECONDS} seconds"
        errors.append(FieldError.invalid("spec.nodeAllocatableUpdatePeriodSeconds", period, detail))
    return errors


def _token_requests(requests: list[Obj]) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, request in enumerate(requests):
        path = f"spec.tokenRequests[{index}]"
        audience, seconds = request.get("audience") or "", request.get("expirationSeconds")
        if audience in seen:
            errors.append(FieldError.duplicate(f"{path}.audience", audience))
            continue
        seen.add(audience)
        if seconds is not None and seconds < _TOKEN_SECONDS[0]:
            detail = "may not specify a duration less than 10 minutes"
            errors.append(FieldError.invalid(f"{path}.expirationSeconds", seconds, detail))
        if seconds is not None and seconds > _TOKEN_SECONDS[1]:
            detail = "may not specify a duration larger than 2^32 seconds"
            errors.append(FieldError.invalid(f"{path}.expirationSeconds", seconds, detail))
    return errors


def validate_csi_driver_update(new: Obj, old: Obj) -> list[FieldError]:
    """How volumes attach stays."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    errors = validate_csi_driver(new)
    # Upstream spells the first field so.
    errors += check_immutable("spec.attachedRequired", after.get("attachRequired"), before.get("attachRequired"))
    modes = "volumeLifecycleModes"
    return errors + check_immutable(f"spec.{modes}", after.get(modes), before.get(modes))


def csi_driver_warnings(obj: Obj, old: Obj | None) -> list[str]:
    """Tokens belong into secrets."""
    spec = obj.get("spec") or {}
    if spec.get("tokenRequests") and spec.get("serviceAccountTokenInSecrets") is None:
        text = "if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes"
        return [f"spec.serviceAccountTokenInSecrets is unset; {text}"]
    return []


def validate_attachment(obj: Obj) -> list[FieldError]:
    """VolumeAttachment."""
    return _attachment(obj, new=True)


def _attachment(obj: Obj, *, new: bool) -> list[FieldError]:
    spec = obj.get("spec") or {}
    attacher, source = spec.get("attacher") or "", spec.get("source") or {}
    errors = [] if attacher else [FieldError.required("spec.attacher")]
    inline, name = source.get("inlineVolumeSpec"), source.get("persistentVolumeName")
    if inline is None and name is None:
        errors.append(FieldError.required("spec.source", _ONE_SOURCE))
    elif inline is not None and name is not None:
        errors.append(FieldError.forbidden("spec.source", _ONE_SOURCE))
    elif name == "":
        detail = "must specify non empty persistentVolumeName"
        errors.append(FieldError.required("spec.source.persistentVolumeName", detail))
    node = spec.get("nodeName") or ""
    errors += invalid_each("spec.nodeName", node, names.dns_subdomain(node))
    errors += validate_attachment_status(obj, obj)
    if new:
        errors += check_driver_name(attacher, "spec.attacher")
        if name is not None:
            errors += invalid_each("spec.source.persistentVolumeName", name, names.dns_subdomain(name))
    return errors


def validate_attachment_status(new: Obj, old: Obj) -> list[FieldError]:
    """What attaching has left behind is bounded."""
    status = new.get("status") or {}
    errors: list[FieldError] = []
    metadata = status.get("attachmentMetadata") or {}
    if sum(len(key.encode()) + len(value.encode()) for key, value in metadata.items()) > _METADATA_BYTES:
        errors.append(FieldError.too_long("status.attachmentMetadata", _METADATA_BYTES))
    for field in ("attachError", "detachError"):
        error = status.get(field) or {}
        if len((error.get("message") or "").encode()) > _MESSAGE_BYTES:
            errors.append(FieldError.too_long(f"status.{field}.message", _METADATA_BYTES))
        if (code := error.get("errorCode")) is not None and code < 0:
            detail = "must be between 0 and 2147483647, inclusive"
            errors.append(FieldError.invalid(f"status.{field}.errorCode", code, detail))
    return errors


def validate_attachment_update(new: Obj, old: Obj) -> list[FieldError]:
    """The spec stays."""
    errors = _attachment(new, new=False)
    spec = new.get("spec") or {}
    if spec != old.get("spec"):
        source = spec.get("source") or {}
        shown = {
            "Attacher": spec.get("attacher") or "",
            "Source": {
                "PersistentVolumeName": source.get("persistentVolumeName"),
                "InlineVolumeSpec": source.get("inlineVolumeSpec"),
            },
            "NodeName": spec.get("nodeName") or "",
        }
        errors.append(FieldError.invalid("spec", shown, IMMUTABLE))
    return errors


def validate_capacity(obj: Obj) -> list[FieldError]:
    """CSIStorageCapacity."""
    name = obj.get("storageClassName") or ""
    errors: list[FieldError] = []
    if (topology := obj.get("nodeTopology")) is not None:
        errors += check_label_selector("nodeTopology", topology)
    errors += invalid_each("storageClassName", name, names.dns_subdomain(name))
    if obj.get("capacity") is not None:
        errors += check_quantity("capacity", "storage", obj["capacity"])
    return errors


def validate_capacity_update(new: Obj, old: Obj) -> list[FieldError]:
    """Class and topology stay."""
    errors = validate_capacity(new)
    for field in ("nodeTopology", "storageClassName"):
        errors += check_immutable(field, new.get(field), old.get(field))
    return errors


def validate_attributes_class(obj: Obj) -> list[FieldError]:
    """VolumeAttributesClass."""
    errors = _provisioner("driverName", obj.get("driverName") or "")
    return errors + _parameters(obj.get("parameters") or {}, required=True)


def validate_attributes_class_update(new: Obj, old: Obj) -> list[FieldError]:
    """Driver and parameters stay."""
    errors: list[FieldError] = []
    for field in ("driverName", "parameters"):
        if new.get(field) != old.get(field):
            errors.append(FieldError.forbidden(field, f"updates to {field} are forbidden."))
    return errors + validate_attributes_class(new)
