"""Volumes of pods: names, exactly one source, and the rules of each source.

Called by the pod spec validation. Sources without rules of their own only count.
"""

from collections.abc import Callable
from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.containers import validate_field_ref, validate_resource_field
from apiserver.registry.validation.fields import (
    check_absolute_path,
    check_descending_path,
    check_enum,
    check_no_backsteps,
    invalid_each,
)
from apiserver.registry.validation.resources import check_quantity
from machinery.field_errors import FieldError

Obj = dict[str, Any]
Check = Callable[[Obj, str], list[FieldError]]

_MODE_ERROR = "must be a number between 0 and 0777 (octal), both inclusive"
_HOST_PATH_TYPES = (
    "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket",
)  # fmt: skip


def validate_volumes(volumes: list[Obj], path: str) -> tuple[dict[str, Obj], list[FieldError]]:
    """The volumes by name, and the findings."""
    by_name: dict[str, Obj] = {}
    errors: list[FieldError] = []
    for index, volume in enumerate(volumes):
        at = f"{path}[{index}]"
        found = validate_source(volume, at)
        name = volume.get("name")
        if not name:
            found.append(FieldError.required(f"{at}.name"))
        elif texts := names.dns_label(name):
            found += invalid_each(f"{at}.name", name, texts)
        elif name in by_name:
            found.append(FieldError.duplicate(f"{at}.name", name))
        errors += found
        if name and not found:
            by_name[name] = volume
    return by_name, errors


def validate_source(volume: Obj, path: str) -> list[FieldError]:
    """Exactly one source, and that one complete."""
    given = [kind for kind in volume if kind in _SOURCES]
    if not given:
        return [FieldError.required(path, "must specify a volume type")]
    if len(given) > 1:
        given = [kind for kind in _SOURCES if kind in volume]
    first, *others = given
    check = _SOURCES[first]
    errors = check(volume[first], f"{path}.{first}") if check else []
    detail = "may not specify more than 1 volume type"
    return errors + [FieldError.forbidden(f"{path}.{kind}", detail) for kind in others]


def _require(*fields: str) -> Check:
    def check(source: Obj, path: str) -> list[FieldError]:
        return [FieldError.required(f"{path}.{field}") for field in fields if not source.get(field)]

    return check


def _empty_dir(source: Obj, path: str) -> list[FieldError]:
    limit = source.get("sizeLimit")
    if limit is not None and check_quantity(path, "memory", limit):
        return [FieldError.forbidden(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity")]
    return []


def _host_path(source: Obj, path: str) -> list[FieldError]:
    where = source.get("path")
    if not where:
        return [FieldError.required(f"{path}.path")]
    errors = check_no_backsteps(f"{path}.path", where)
    return errors + check_enum(f"{path}.type", source.get("type"), _HOST_PATH_TYPES)


def _mode(path: str, value: Any) -> list[FieldError]:
    return [] if value is None or 0 <= value <= 0o777 else [FieldError.invalid(path, value, _MODE_ERROR)]


def _key_paths(source: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, item in enumerate(source.get("items") or ()):
        at = f"{path}.items[{index}]"
        if not item.get("key"):
            errors.append(FieldError.required(f"{at}.key"))
        where = item.get("path")
        if not where:
            errors.append(FieldError.required(f"{at}.path"))
        else:
            errors += _local_path(f"{at}.path", where)
        errors += _mode(f"{at}.mode", item.get("mode"))
    return errors


def _local_path(path: str, value: str) -> list[FieldError]:
    errors = check_descending_path(path, value)
    if value.startswith("..") and not value.startswith("../"):
        errors.append(FieldError.invalid(path, value, "must not start with '..'"))
    return errors


def _keyed(name_field: str) -> Check:
    def check(source: Obj, path: str) -> list[FieldError]:
        errors = [] if source.get(name_field) else [FieldError.required(f"{path}.{name_field}")]
        errors += _mode(f"{path}.defaultMode", source.get("defaultMode"))
        return errors + _key_paths(source, path)

    return check


def _downward_items(source: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, item in enumerate(source.get("items") or ()):
        at = f"{path}[{index}]" if path.endswith("]") else f"{path}.items[{index}]"
        where = item.get("path")
        if not where:
            errors.append(FieldError.required(f"{at}.path"))
        else:
            errors += _local_path(f"{at}.path", where)
        field, resource = item.get("fieldRef"), item.get("resourceFieldRef")
        if field is not None:
            errors += validate_field_ref(field, f"{at}.fieldRef")
            if resource is not None:
                detail = "fieldRef and resourceFieldRef can not be specified simultaneously"
                errors.append(FieldError.invalid(at, "resource", detail))
        elif resource is not None:
            errors += validate_resource_field(resource, f"{at}.resourceFieldRef", in_volume=True)
        else:
            errors.append(FieldError.required(at, "one of fieldRef and resourceFieldRef is required"))
        errors += _mode(f"{at}.mode", item.get("mode"))
    return errors


def _downward(source: Obj, path: str) -> list[FieldError]:
    return _mode(f"{path}.defaultMode", source.get("defaultMode")) + _downward_items(source, path)


def _projected(source: Obj, path: str) -> list[FieldError]:
    errors = _mode(f"{path}.defaultMode", source.get("defaultMode"))
    seen: set[str] = set()
    for index, part in enumerate(source.get("sources") or ()):
        at = f"{path}.sources[{index}]"
        count = 0
        for kind in ("secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle"):
            given = part.get(kind)
            if given is None:
                continue
            count += 1
            if count > 1:
                errors.append(FieldError.forbidden(at, "may not specify more than 1 volume type"))
            elif kind in ("secret", "configMap"):
                errors += _require("name")(given, f"{at}.{kind}") + _key_paths(given, f"{at}.{kind}")
            elif kind == "downwardAPI":
                errors += _downward_items(given, f"{at}.{kind}")
            elif kind == "serviceAccountToken":
                errors += _token(given, f"{at}.{kind}")
            for where in _paths_of(given):
                if where in seen:
                    errors.append(FieldError.invalid(path, where, "conflicting duplicate paths"))
                seen.add(where)
    return errors


def _paths_of(part: Obj) -> list[str]:
    if where := part.get("path"):
        return [where]
    return [item["path"] for item in part.get("items") or () if item.get("path")]


def _token(source: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    seconds = source.get("expirationSeconds", 3600)
    if seconds < 600:
        detail = "may not specify a duration less than 10 minutes"
        errors.append(FieldError.invalid(f"{path}.expirationSeconds", seconds, detail))
    elif seconds > 1 << 32:
        detail = "may not specify a duration larger than 2^32 seconds"
        errors.append(FieldError.invalid(f"{path}.expirationSeconds", seconds, detail))
    where = source.get("path")
    if not where:
        errors.append(FieldError.required(f"{path}.path"))
    else:
        errors += _local_path(f"{path}.path", where)
    return errors


def _nfs(source: Obj, path: str) -> list[FieldError]:
    errors = _require("server", "path")(source, path)
    if where := source.get("path"):
        errors += check_absolute_path(f"{path}.path", where)
    return errors


def _ephemeral(source: Obj, path: str) -> list[FieldError]:
    # Imported here: claims embed nothing of pods, but share the volume rules' neighbourhood.
    from apiserver.registry.validation.storage import validate_claim_spec

    template = source.get("volumeClaimTemplate")
    if template is None:
        return [FieldError.required(f"{path}.volumeClaimTemplate")]
    return validate_claim_spec(template.get("spec") or {}, f"{path}.volumeClaimTemplate.spec")


def _image(source: Obj, path: str) -> list[FieldError]:
    errors = _require("reference")(source, path)
    return errors + check_enum(f"{path}.pullPolicy", source.get("pullPolicy"), ("Always", "IfNotPresent", "Never"))


_SOURCES: dict[str, Check | None] = {
    "emptyDir": _empty_dir,
    "hostPath": _host_path,
    "gitRepo": _require("repository"),
    "gcePersistentDisk": _require("pdName"),
    "awsElasticBlockStore": _require("volumeID"),
    "secret": _keyed("secretName"),
    "nfs": _nfs,
    "iscsi": _require("targetPortal", "iqn"),
    "glusterfs": _require("endpoints", "path"),
    "flocker": None,
    "persistentVolumeClaim": _require("claimName"),
    "rbd": _require("monitors", "image"),
    "cinder": _require("volumeID"),
    "cephfs": _require("monitors"),
    "quobyte": _require("registry", "volume"),
    "downwardAPI": _downward,
    "fc": None,
    "flexVolume": _require("driver"),
    "configMap": _keyed("name"),
    "azureFile": _require("secretName", "shareName"),
    "vsphereVolume": _require("volumePath"),
    "photonPersistentDisk": _require("pdID"),
    "portworxVolume": _require("volumeID"),
    "azureDisk": _require("diskName", "diskURI"),
    "storageos": None,
    "scaleIO": _require("gateway", "system", "volumeName"),
    "projected": _projected,
    "csi": _require("driver"),
    "ephemeral": _ephemeral,
    "image": _image,
}
