"""Persistent volumes and claims.

Called by the rules of those kinds in the strategy table; `validate_claim_spec` by pods and stateful sets too.
"""

import posixpath
from fractions import Fraction
from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.deprecations import claim_spec_warnings, node_term_warnings
from apiserver.registry.validation.fields import (
    check_enum,
    check_immutable,
    check_label_selector,
    invalid_each,
    unsupported,
)
from apiserver.registry.validation.metadata import IMMUTABLE
from apiserver.registry.validation.pod_dump import claim_diff, volume_affinity_value, volume_source_diff
from apiserver.registry.validation.resources import is_native
from apiserver.registry.validation.scheduling import validate_node_selector
from apiserver.registry.validation.volume_sources import PERSISTENT, iscsi
from machinery import quantity
from machinery.field_errors import FieldError

Obj = dict[str, Any]

_BETA_CLASS = "volume.beta.kubernetes.io/storage-class"
_NOT_UNSET = "update from non-nil value to nil is forbidden"
_NEWER_LABELS = {
    "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
    "beta.kubernetes.io/os": "kubernetes.io/os",
    "beta.kubernetes.io/arch": "kubernetes.io/arch",
    "beta.kubernetes.io/instance-type": "node.kubernetes.io/instance-type",
}
_OLD_SOURCES = {
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}
_MOUNT_OPTIONS = "volume.beta.kubernetes.io/mount-options"
_MOUNTED_WITH_OPTIONS = frozenset(
    (
        "gcePersistentDisk", "awsElasticBlockStore", "glusterfs", "nfs", "rbd", "quobyte", "iscsi", "cinder", "cephfs",
        "azureFile", "vsphereVolume", "azureDisk", "photonPersistentDisk",
    )
)  # fmt: skip
_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_VOLUME_MODES = ("Block", "Filesystem")


def _validate_modes(modes: list[str], path: str) -> list[FieldError]:
    errors = [unsupported(path, mode, _MODES) for mode in modes if mode not in _MODES]
    if "ReadWriteOncePod" in modes and any(mode in _MODES and mode != "ReadWriteOncePod" for mode in modes):
        errors.append(FieldError.forbidden(path, "may not use ReadWriteOncePod with other access modes"))
    return errors


def validate_volume(obj: Obj) -> list[FieldError]:
    """v1 PersistentVolume."""
    spec, name = obj.get("spec") or {}, obj["metadata"].get("name") or ""
    errors: list[FieldError] = []
    modes = spec.get("accessModes") or []
    if not modes:
        errors.append(FieldError.required("spec.accessModes"))
    errors += _validate_modes(modes, "spec.accessModes")
    capacity = spec.get("capacity") or {}
    if not capacity:
        errors.append(FieldError.required("spec.capacity"))
    if set(capacity) != {"storage"}:
        errors.append(unsupported("spec.capacity", capacity or None, ("storage",)))
    for resource, amount in capacity.items():
        errors += _basic(f"spec.capacity[{resource}]", amount) + _positive(f"spec.capacity[{resource}]", amount)
    reclaim = spec.get("persistentVolumeReclaimPolicy")
    errors += check_enum("spec.persistentVolumeReclaimPolicy", reclaim, ("Delete", "Recycle", "Retain"))
    if (affinity := spec.get("nodeAffinity")) is not None:
        if (required := affinity.get("required")) is None:
            errors.append(FieldError.required("spec.nodeAffinity.required", "must specify required node constraints"))
        else:
            errors += validate_node_selector(required, "spec.nodeAffinity.required")
    errors += _validate_volume_source(spec, name)
    if kind := spec.get("storageClassName"):
        errors += invalid_each("spec.storageClassName", kind, names.dns_subdomain(kind))
    mode = spec.get("volumeMode")
    if mode is not None and mode not in _VOLUME_MODES:
        errors.append(unsupported("spec.volumeMode", mode, _VOLUME_MODES))
    errors += _validate_attributes(spec)
    if _MOUNT_OPTIONS in (obj["metadata"].get("annotations") or {}) and not _MOUNTED_WITH_OPTIONS & spec.keys():
        detail = "may not specify mount options for this volume type"
        errors.append(FieldError.forbidden(f"metadata.annotations.{_MOUNT_OPTIONS}", detail))
    return errors


def _validate_attributes(spec: Obj) -> list[FieldError]:
    """volumeAttributesClassName: a class of what a CSI driver made."""
    if (name := spec.get("volumeAttributesClassName")) is None:
        return []
    path = "spec.volumeAttributesClassName"
    errors = invalid_each(path, name, names.dns_subdomain(name))
    if not name:
        errors = [FieldError.required(path, "an empty string is disallowed")]
    if spec.get("csi") is None:
        errors.append(FieldError.required("spec.csi", "has to be specified when using volumeAttributesClassName"))
    return errors


def _basic(path: str, amount: Any) -> list[FieldError]:
    """No negative amount, told in whole numbers."""
    try:
        value = quantity.value(amount)
    except ValueError as error:
        return [FieldError.invalid(path, str(amount), str(error))]
    return [FieldError.invalid(path, value, "must be a valid resource quantity")] if value < 0 else []


def _positive(path: str, amount: Any) -> list[FieldError]:
    try:
        positive = quantity.parse(amount) > 0
    except ValueError as error:
        return [FieldError.invalid(path, str(amount), str(error))]
    return [] if positive else [FieldError.invalid(path, str(amount), "must be greater than zero")]


def _validate_volume_source(spec: Obj, name: str) -> list[FieldError]:
    errors: list[FieldError] = []
    given = [kind for kind in PERSISTENT if spec.get(kind) is not None]
    if not given:
        errors.append(FieldError.required("spec", "must specify a volume type"))
    for place, kind in enumerate(given):
        source, check = spec[kind], PERSISTENT[kind]
        if place:
            errors.append(FieldError.forbidden(f"spec.{kind}", "may not specify more than 1 volume type"))
        elif check is not None:
            errors += check(source, f"spec.{kind}")
        elif kind == "iscsi":
            errors += iscsi(source, "spec.iscsi", volume=name, persistent=True)
        if kind == "local" and not place and spec.get("nodeAffinity") is None:
            errors.append(FieldError.required("spec.nodeAffinity", "Local volume requires node affinity"))
    root = posixpath.normpath((spec.get("hostPath") or {}).get("path") or ".") == "/"
    if root and spec.get("persistentVolumeReclaimPolicy") == "Recycle":
        detail = "may not be 'recycle' for a hostPath mount of '/'"
        errors.append(FieldError.forbidden("spec.persistentVolumeReclaimPolicy", detail))
    return errors


def validate_volume_update(new: Obj, old: Obj) -> list[FieldError]:
    """The source stays, and node affinity once it is set."""
    errors = validate_volume(new)
    after, before = new.get("spec") or {}, old.get("spec") or {}
    source, was = ({kind: spec[kind] for kind in PERSISTENT if kind in spec} for spec in (after, before))
    secret = "controllerExpandSecretRef"
    if secret in source.get("csi", {}) and "csi" in was and secret not in was["csi"]:  # may be added later
        source["csi"] = {key: value for key, value in source["csi"].items() if key != secret}
    if source != was:
        detail = f"spec.persistentvolumesource is immutable after creation\n{volume_source_diff(was, source)}"
        errors.append(FieldError.forbidden("spec.persistentvolumesource", detail))
    errors += check_immutable("volumeMode", after.get("volumeMode"), before.get("volumeMode"))
    affinity, was_affinity = after.get("nodeAffinity"), before.get("nodeAffinity")
    if was_affinity is not None and affinity != was_affinity and not _only_newer_labels(affinity, was_affinity):
        detail = f"{IMMUTABLE}, except for updating from beta label to GA"
        shown = None if affinity is None else volume_affinity_value(affinity)
        errors.append(FieldError.invalid("nodeAffinity", shown, detail))
    if before.get("volumeAttributesClassName") is not None and after.get("volumeAttributesClassName") is None:
        errors.append(FieldError.forbidden("spec.volumeAttributesClassName", _NOT_UNSET))
    return errors


def _only_newer_labels(new: Obj | None, old: Obj) -> bool:
    """Is the change of a volume's node affinity just from deprecated node labels to those that follow them?"""

    def renamed(affinity: Obj) -> Any:
        terms = (affinity.get("required") or {}).get("nodeSelectorTerms") or ()
        return [
            {
                **term,
                "matchExpressions": [
                    {**each, "key": _NEWER_LABELS.get(each.get("key") or "", each.get("key"))}
                    for each in term.get("matchExpressions") or ()
                ],
            }
            for term in terms
        ]

    return new is not None and renamed(old) == renamed(new)


def volume_warnings(obj: Obj, old: Obj | None) -> list[str]:
    """Deprecated ways."""
    spec, annotations = obj.get("spec") or {}, obj["metadata"].get("annotations") or {}
    found: list[str] = []
    if "volume.beta.kubernetes.io/storage-class" in annotations:
        path = "metadata.annotations[volume.beta.kubernetes.io/storage-class]"
        found.append(f'{path}: deprecated since v1.8; use "storageClassName" attribute instead')
    if _MOUNT_OPTIONS in annotations:
        path = f"metadata.annotations[{_MOUNT_OPTIONS}]"
        found.append(f'{path}: deprecated since v1.31; use "spec.mountOptions" instead')
    if spec.get("persistentVolumeReclaimPolicy") == "Recycle":
        found.append(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. "
            "Instead, the recommended approach is to use dynamic provisioning."
        )
    terms = ((spec.get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms") or ()
    for index, term in enumerate(terms):
        found += node_term_warnings(term, f"spec.nodeAffinity.required.nodeSelectorTerms[{index}]")
    return found + [
        f"spec.{'storageOS' if source == 'storageos' else source}: {text}"
        for source, text in _OLD_SOURCES.items()
        if source in spec
    ]


def validate_claim(obj: Obj) -> list[FieldError]:
    """v1 PersistentVolumeClaim."""
    return validate_claim_spec(obj.get("spec") or {}, "spec")


def validate_claim_spec(spec: Obj, path: str) -> list[FieldError]:
    """PersistentVolumeClaimSpec."""
    modes = spec.get("accessModes") or []
    errors: list[FieldError] = []
    if not modes:
        errors.append(FieldError.required(f"{path}.accessModes", "at least 1 access mode is required"))
    if (selector := spec.get("selector")) is not None:
        errors += check_label_selector(f"{path}.selector", selector)
    errors += _validate_modes(modes, f"{path}.accessModes")
    amount = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if amount is None:
        errors.append(FieldError.required(f"{path}.resources[storage]"))
    else:
        errors += _positive(f"{path}.resources[storage]", amount)
    if name := spec.get("storageClassName"):
        errors += invalid_each(f"{path}.storageClassName", name, names.dns_subdomain(name))
    mode = spec.get("volumeMode")
    if mode is not None and mode not in _VOLUME_MODES:
        errors.append(unsupported(f"{path}.volumeMode", mode, _VOLUME_MODES))
    for field in ("dataSource", "dataSourceRef"):
        if (source := spec.get(field)) is not None:
            errors += _validate_data_source(source, f"{path}.{field}")
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    if source is not None and reference is not None:
        parts = ("apiGroup", "kind", "name")
        detail = ""
        if reference.get("namespace"):
            detail = "may not be specified when dataSourceRef.namespace is specified"
        elif any(source.get(part) != reference.get(part) for part in parts):
            detail = "must match dataSourceRef"
        if detail:  # upstream shows the path for a value, which has no members to show
            errors.append(FieldError.invalid(path, {}, detail))
    if name := spec.get("volumeAttributesClassName"):
        errors += invalid_each(f"{path}.volumeAttributesClassName", name, names.dns_subdomain(name))
    return errors


def _validate_data_source(source: Obj, path: str) -> list[FieldError]:
    errors = [FieldError.required(f"{path}.{part}") for part in ("name", "kind") if not source.get(part)]
    group, kind = source.get("apiGroup") or "", source.get("kind") or ""
    if not group and kind != "PersistentVolumeClaim":
        detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
        errors.append(FieldError.invalid(path, kind, detail))
    if group:
        errors += invalid_each(f"{path}.apiGroup", group, names.dns_subdomain(group))
    if namespace := source.get("namespace"):
        errors += invalid_each(f"{path}.namespace", namespace, names.dns_label(namespace))
    return errors


_CLAIM_IMMUTABLE = (
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
)


def validate_claim_update(new: Obj, old: Obj) -> list[FieldError]:
    """Bound claims may grow and change their class; a claim is bound to its volume once."""
    errors = validate_claim(new)
    after, before = dict(new.get("spec") or {}), dict(old.get("spec") or {})
    annotations, had = (each["metadata"].get("annotations") or {} for each in (new, old))
    size, was_size = ((spec.get("resources") or {}).get("requests", {}).get("storage") for spec in (after, before))
    if not before.get("volumeName") and "volumeName" in after:
        before["volumeName"] = after["volumeName"]
    given, was = after.get("storageClassName"), before.get("storageClassName")
    if was is None and given is not None and given == had.get(_BETA_CLASS) == annotations.get(_BETA_CLASS, given):
        del after["storageClassName"]  # from the annotation to the field
    else:
        if annotations.get(_BETA_CLASS, "") != had.get(_BETA_CLASS, ""):
            path = f"metadata.annotations.{_BETA_CLASS}"
            errors.append(FieldError.invalid(path, annotations.get(_BETA_CLASS, ""), IMMUTABLE))
        if was is None and given is not None and had.get(_BETA_CLASS, given) == given:
            del after["storageClassName"]  # a class that was made the default one later
    if (new.get("status") or {}).get("phase") == "Bound":
        if requests := (after.get("resources") or {}).get("requests"):
            after["resources"] = {**after["resources"], "requests": {**requests, "storage": was_size}}
        if after.get("volumeAttributesClassName") is not None:
            after["volumeAttributesClassName"] = before.get("volumeAttributesClassName")
    if _present(after) != _present(before):
        difference = claim_diff(_present(before), _present(after))
        errors.append(FieldError.forbidden("spec", f"{_CLAIM_IMMUTABLE}\n{difference}"))
    errors += _validate_shrinking(size, was_size, ((old.get("status") or {}).get("capacity") or {}).get("storage"))
    errors += check_immutable("volumeMode", after.get("volumeMode"), before.get("volumeMode"))
    kind, was_kind = ((each.get("spec") or {}).get("volumeAttributesClassName") for each in (new, old))
    if was_kind is not None and kind != was_kind and not kind:
        detail = _NOT_UNSET if kind is None else "update from non-nil value to an empty string is forbidden"
        errors.append(FieldError.forbidden("spec.volumeAttributesClassName", detail))
    return errors


def _validate_shrinking(size: Any, before: Any, capacity: Any) -> list[FieldError]:
    """A claim whose expansion failed may ask for less again, but not for what it has."""
    try:
        numbers = [
            quantity.parse(str(amount)) if amount is not None else Fraction(0) for amount in (size, before, capacity)
        ]
    except ValueError:
        return []  # told by the rules for new claims
    if numbers[0] < numbers[1] and numbers[0] <= numbers[2]:
        detail = "field can not be less than status.capacity"
        return [FieldError.forbidden("spec.resources.requests.storage", detail)]
    return []


def _present(spec: Obj) -> Obj:
    return {key: value for key, value in spec.items() if value is not None}


_RESIZE_STATES = (
    "ControllerResizeInProgress", "ControllerResizeInfeasible", "NodeResizeInProgress", "NodeResizeInfeasible",
    "NodeResizePending",
)  # fmt: skip


def validate_claim_status(new: Obj, old: Obj) -> list[FieldError]:
    """What the volume has to offer, and how its growing goes."""
    status = new.get("status") or {}
    errors: list[FieldError] = []
    for name, amount in (status.get("capacity") or {}).items():
        errors += _basic(f"status.capacity[{name}]", amount)
    for name, state in (status.get("allocatedResourceStatuses") or {}).items():
        errors += _claim_resource(name, "status.allocatedResourceStatus")
        if state not in _RESIZE_STATES:
            errors.append(unsupported("status.allocatedResourceStatus", name, sorted(_RESIZE_STATES)))
    for name, amount in (status.get("allocatedResources") or {}).items():
        path = f"status.allocatedResources[{name}]"
        errors += _claim_resource(name, "status.allocatedResources") or _basic(path, amount)
    return errors


def _claim_resource(name: str, path: str) -> list[FieldError]:
    if texts := names.qualified_name(name):
        return invalid_each(path, name, texts)
    return [unsupported(path, name, ("storage",))] if is_native(name) and name != "storage" else []


def claim_warnings(obj: Obj, old: Obj | None) -> list[str]:
    """Fractional bytes and the old annotation."""
    found: list[str] = []
    if "volume.beta.kubernetes.io/storage-class" in (obj["metadata"].get("annotations") or {}):
        path = "metadata.annotations[volume.beta.kubernetes.io/storage-class]"
        found.append(f'{path}: deprecated since v1.8; use "storageClassName" attribute instead')
    return found + claim_spec_warnings(obj.get("spec") or {}, "spec")
