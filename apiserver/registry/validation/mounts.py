"""What a container has of the pod's volumes: mounts and block devices. Called by the rules of containers."""

from collections.abc import Mapping
from typing import Any

from apiserver.registry.validation.fields import check_descending_path, unsupported
from machinery.field_errors import FieldError

Obj = dict[str, Any]
_PROPAGATION = ("Bidirectional", "HostToContainer", "None")
_RECURSIVE = ("Disabled", "Enabled", "IfPossible")


def validate_mounts(container: Obj, mounts: list[Obj], path: str, volumes: Mapping[str, Obj]) -> list[FieldError]:
    """Of volumes that exist, at paths of their own."""
    errors: list[FieldError] = []
    seen: set[str] = set()
    devices = {
        device.get("name") or "": device.get("devicePath") or "" for device in container.get("volumeDevices") or ()
    }
    for index, mount in enumerate(mounts):
        at = f"{path}[{index}]"
        name, where = mount.get("name") or "", mount.get("mountPath") or ""
        if not name:
            errors.append(FieldError.required(f"{at}.name"))
        if name not in volumes:
            errors.append(FieldError.not_found(f"{at}.name", name))
        if not where:
            errors.append(FieldError.required(f"{at}.mountPath"))
        if where in seen:
            errors.append(FieldError.invalid(f"{at}.mountPath", where, "must be unique"))
        seen.add(where)
        if devices:
            if name in devices:
                errors.append(FieldError.invalid(f"{at}.name", name, "must not already exist in volumeDevices"))
            if where in devices.values():
                detail = "must not already exist as a path in volumeDevices"
                errors.append(FieldError.invalid(f"{at}.mountPath", where, detail))
        if len(mount) > 2:
            errors += _validate_options(container, mount, at, path, "image" in volumes.get(name, ()))
    return errors


def _validate_options(container: Obj, mount: Obj, at: str, path: str, of_image: bool) -> list[FieldError]:
    """Upstream tells the place of most of these without the mount's index (`path`)."""
    errors: list[FieldError] = []
    part, expression = mount.get("subPath") or "", mount.get("subPathExpr") or ""
    if of_image:
        for field, value in (("subPath", part), ("subPathExpr", expression)):
            if value:
                errors.append(FieldError.invalid(f"{at}.{field}", value, "not allowed in image volume sources"))
    if part:
        errors += check_descending_path(f"{path}.subPath", part)
    if expression:
        if part:
            detail = "subPathExpr and subPath are mutually exclusive"
            errors.append(FieldError.invalid(f"{at}.subPathExpr", expression, detail))
        errors += check_descending_path(f"{path}.subPathExpr", expression)
    if (propagation := mount.get("mountPropagation")) is not None:
        if propagation not in _PROPAGATION:
            errors.append(unsupported(f"{path}.mountPropagation", propagation, _PROPAGATION))
        privileged = (container.get("securityContext") or {}).get("privileged")
        if propagation == "Bidirectional" and not privileged:
            detail = "Bidirectional mount propagation is available only to privileged containers"
            errors.append(FieldError.forbidden(f"{path}.mountPropagation", detail))
    recursive, where = mount.get("recursiveReadOnly"), f"{path}.recursiveReadOnly"
    if recursive in ("Enabled", "IfPossible"):
        if not mount.get("readOnly"):
            errors.append(FieldError.forbidden(where, "may only be specified when readOnly is true"))
        if propagation not in (None, "None"):
            detail = "may only be specified when mountPropagation is None or not specified"
            errors.append(FieldError.forbidden(where, detail))
    elif recursive not in (None, "Disabled"):
        errors.append(unsupported(where, recursive, _RECURSIVE))
    return errors


def validate_devices(container: Obj, devices: list[Obj], path: str, volumes: Mapping[str, Obj]) -> list[FieldError]:
    """Claims as block devices."""
    errors: list[FieldError] = []
    mounts = {mount.get("name") or "": mount.get("mountPath") or "" for mount in container.get("volumeMounts") or ()}
    paths: set[str] = set()
    known: set[str] = set()
    for index, device in enumerate(devices):
        at = f"{path}[{index}]"
        name, where = device.get("name") or "", device.get("devicePath") or ""
        if not name:
            errors.append(FieldError.required(f"{at}.name"))
        if name in known:
            errors.append(FieldError.invalid(f"{at}.name", name, "must be unique"))
        if name not in volumes:
            errors.append(FieldError.not_found(f"{at}.name", name))
        elif not volumes[name].keys() & {"persistentVolumeClaim", "ephemeral"}:
            detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
            errors.append(FieldError.invalid(f"{at}.name", name, detail))
        if not where:
            errors.append(FieldError.required(f"{at}.devicePath"))
        if where in paths:
            errors.append(FieldError.invalid(f"{at}.devicePath", where, "must be unique"))
        if ".." in where.split("/"):
            errors.append(FieldError.invalid(f"{at}.devicePath", where, "can not contain backsteps ('..')"))
        else:
            paths.add(where)
        if name in mounts:
            errors.append(FieldError.invalid(f"{at}.name", name, "must not already exist in volumeMounts"))
        if where in mounts.values():
            detail = "must not already exist as a path in volumeMounts"
            errors.append(FieldError.invalid(f"{at}.devicePath", where, detail))
        if name:
            known.add(name)
    return errors
