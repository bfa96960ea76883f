"""What a volume is made of: the rules of every source that pods and persistent volumes share or have alone.

Owns one check per source; `POD` and `PERSISTENT` list them in the order in which upstream looks for them. Called by the
rules of pods' volumes and of persistent volumes.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.fields import (
    check_absolute_path,
    check_descending_path,
    check_no_backsteps,
    check_range,
    invalid_each,
    unsupported,
)
from apiserver.registry.validation.resources import check_quantity
from machinery.field_errors import FieldError

Obj = dict[str, Any]
Check = Callable[[Obj, str], list[FieldError]]

MODE_ERROR = "must be a number between 0 and 0777 (octal), both inclusive"
_HOST_PATH_TYPES = (
    "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket",
)  # fmt: skip
_HOST_PORTS = "must be a host:port pair or multiple pairs separated by commas"
_ISCSI_NAMES: Mapping[str, Callable[[str], Any]] = {
    "iqn": re.compile(r"iqn\.\d{4}-\d{2}\.([a-zA-Z0-9\-.]+)(:[^,;*&$|\s]+)$").search,
    "eui": re.compile(r"^eui.[a-zA-Z0-9]{16}$").search,
    "naa": re.compile(r"^naa.[a-zA-Z0-9]{32}$").search,
}
_ISCSI_LENGTH = (
    "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is "
    "specified."
)
_RESERVED = "kubernetes.io and k8s.io namespaces are reserved"


def check_mode(path: str, value: Any) -> list[FieldError]:
    """File permissions."""
    return [] if value is None or 0 <= value <= 0o777 else [FieldError.invalid(path, value, MODE_ERROR)]


def check_local_path(path: str, value: str) -> list[FieldError]:
    """A path inside a volume that is not reserved."""
    errors = check_descending_path(path, value)
    if value.startswith("..") and not value.startswith("../"):
        errors.append(FieldError.invalid(path, value, "must not start with '..'"))
    return errors


def check_key_path(item: Obj, path: str) -> list[FieldError]:
    """A key and the file that it becomes."""
    errors = _required(item, path, "key", "path")
    errors += check_local_path(f"{path}.path", item.get("path") or "")
    return errors + check_mode(f"{path}.mode", item.get("mode"))


def check_driver_name(name: str, path: str) -> list[FieldError]:
    """The name of a CSI driver."""
    errors = [] if name else [FieldError.required(path)]
    if len(name) > 63:
        errors.append(FieldError.too_long(path, 63))
    return errors + invalid_each(path, name, names.dns_subdomain(name.lower()))


def _required(source: Obj, path: str, *fields: str) -> list[FieldError]:
    return [FieldError.required(f"{path}.{field}") for field in fields if not source.get(field)]


def _needs(*fields: str) -> Check:
    return lambda source, path: _required(source, path, *fields)


def _secret_reference(source: Obj, path: str, *fields: str) -> list[FieldError]:
    """`secretRef`, where there is one."""
    reference = source.get("secretRef")
    return [] if reference is None else _required(reference, f"{path}.secretRef", *fields)


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
    kind = source.get("type")
    if kind is not None and kind not in _HOST_PATH_TYPES:
        errors.append(unsupported(f"{path}.type", kind, _HOST_PATH_TYPES))
    return errors


def _git_repo(source: Obj, path: str) -> list[FieldError]:
    errors = _required(source, path, "repository")
    return errors + check_descending_path(f"{path}.directory", source.get("directory") or "")


def _disk(field: str) -> Check:
    """Disks of old clouds; upstream names what is wrong with them under `persistentDisk`."""

    def check(source: Obj, path: str) -> list[FieldError]:
        at = f"{path.rpartition('.')[0]}.persistentDisk"
        errors = _required(source, at, field)
        if not 0 <= source.get("partition", 0) <= 255:
            detail = "must be between 1 and 255, inclusive"
            errors.append(FieldError.invalid(f"{at}.partition", source["partition"], detail))
        return errors

    return check


def _keyed(name_field: str) -> Check:
    def check(source: Obj, path: str) -> list[FieldError]:
        errors = _required(source, path, name_field)
        errors += check_mode(f"{path}.defaultMode", source.get("defaultMode"))
        for index, item in enumerate(source.get("items") or ()):
            errors += check_key_path(item, f"{path}.items[{index}]")
        return errors

    return check


def _nfs(source: Obj, path: str) -> list[FieldError]:
    errors = _required(source, path, "server", "path")
    return errors + check_absolute_path(f"{path}.path", source.get("path") or "")


def _iscsi_name(name: str, path: str, unknown: str) -> list[FieldError]:
    kind = name[:3]
    if kind not in _ISCSI_NAMES:
        return [FieldError.invalid(path, name, unknown)]
    return [] if _ISCSI_NAMES[kind](name) else [FieldError.invalid(path, name, "must be valid format")]


def iscsi(source: Obj, path: str, *, volume: str = "", persistent: bool = False) -> list[FieldError]:
    """`volume` is the name that makes, together with the portal, the name of a session."""
    unknown = "must be valid format" if persistent else "must be valid format starting with iqn, eui, or naa"
    initiator, portal = source.get("initiatorName"), source.get("targetPortal") or ""
    errors = _required(source, path, "targetPortal")
    too_long = initiator is not None and len(f"{volume}:{portal}") > 64
    if too_long and persistent:
        errors.append(FieldError.invalid(f"{path}.targetportal", portal, _ISCSI_LENGTH))
    if not source.get("iqn"):
        errors.append(FieldError.required(f"{path}.iqn"))
    else:
        errors += _iscsi_name(source["iqn"], f"{path}.iqn", unknown)
    errors += check_range(f"{path}.lun", source.get("lun") or 0, 0, 255)
    if (source.get("chapAuthDiscovery") or source.get("chapAuthSession")) and source.get("secretRef") is None:
        errors.append(FieldError.required(f"{path}.secretRef"))
    if persistent:
        errors += _secret_reference(source, path, "name")
    if initiator is not None:
        errors += _iscsi_name(initiator, f"{path}.initiatorname", unknown)
    if too_long and not persistent:
        errors.append(FieldError.invalid(f"{path.rpartition('.')[0]}.name", volume, _ISCSI_LENGTH))
    return errors


def _glusterfs_persistent(source: Obj, path: str) -> list[FieldError]:
    errors = _required(source, path, "endpoints", "path")
    namespace, at = source.get("endpointsNamespace"), f"{path}.endpointsNamespace"
    if namespace == "":
        detail = "if the endpointnamespace is set, it must be a valid namespace name"
        errors.append(FieldError.invalid(at, namespace, detail))
    elif namespace is not None:
        errors += invalid_each(at, namespace, names.dns_label(namespace))
    return errors


def _flocker(source: Obj, path: str) -> list[FieldError]:
    name, uuid = source.get("datasetName") or "", source.get("datasetUUID") or ""
    errors: list[FieldError] = []
    if not name and not uuid:
        errors.append(FieldError.required(path, "one of datasetName and datasetUUID is required"))
    if name and uuid:
        detail = "datasetName and datasetUUID can not be specified simultaneously"
        errors.append(FieldError.invalid(path, "resource", detail))
    if "/" in name:
        errors.append(FieldError.invalid(f"{path}.datasetName", name, "must not contain '/'"))
    return errors


def _quobyte(source: Obj, path: str) -> list[FieldError]:
    registry = source.get("registry") or ""
    errors: list[FieldError] = []
    if not registry:
        errors.append(FieldError.required(f"{path}.registry", _HOST_PORTS))
    elif len(source.get("tenant") or "") >= 65:
        detail = "must be a UUID and may not exceed a length of 64 characters"
        errors.append(FieldError.required(f"{path}.tenant", detail))
    else:
        errors += [
            FieldError.invalid(f"{path}.registry", registry, _HOST_PORTS)
            for pair in registry.split(",")
            if pair.count(":") != 1 and not re.fullmatch(r"\[[^\]]*\]:[^:]*", pair)
        ]
    return errors + _required(source, path, "volume")


def _cinder(*fields: str) -> Check:
    return lambda source, path: _required(source, path, "volumeID") + _secret_reference(source, path, *fields)


def _fc(source: Obj, path: str) -> list[FieldError]:
    names_, ids, lun = source.get("targetWWNs") or [], source.get("wwids") or [], source.get("lun")
    errors: list[FieldError] = []
    if not names_ and not ids:
        detail = "must specify either targetWWNs or wwids, but not both"
        errors.append(FieldError.required(f"{path}.targetWWNs", detail))
    if names_ and ids:
        detail = "targetWWNs and wwids can not be specified simultaneously"
        errors.append(FieldError.invalid(f"{path}.targetWWNs", names_, detail))
    if names_:
        if lun is None:
            errors.append(FieldError.required(f"{path}.lun", "lun is required if targetWWNs is specified"))
        else:
            errors += check_range(f"{path}.lun", lun, 0, 255)
    return errors


def _flex(source: Obj, path: str) -> list[FieldError]:
    errors = _required(source, path, "driver")
    for key in sorted(source.get("options") or ()):
        domain = f".{key.partition('/')[0].lower()}"
        if domain.endswith((".kubernetes.io", ".k8s.io")):
            errors.append(FieldError.invalid(f"{path}.options[{key}]", key, _RESERVED))
    return errors


def _azure_file_persistent(source: Obj, path: str) -> list[FieldError]:
    errors = _required(source, path, "secretName", "shareName")
    if source.get("secretNamespace") == "":
        errors.append(FieldError.required(f"{path}.secretNamespace"))
    return errors


def _azure_disk(source: Obj, path: str) -> list[FieldError]:
    errors = _required(source, path, "diskName", "diskURI")
    uri, kind = source.get("diskURI") or "", source.get("kind")
    for field, valid in (
        ("cachingMode", ("None", "ReadOnly", "ReadWrite")),
        ("kind", ("Dedicated", "Managed", "Shared")),
    ):
        if source.get(field) is not None and source[field] not in valid:
            errors.append(unsupported(f"{path}.{field}", source[field], valid))
    if kind == "Managed" and not uri.startswith("/subscriptions/"):
        form = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
        errors.append(unsupported(f"{path}.diskURI", uri, (form,)))
    if kind not in (None, "Managed") and not uri.startswith("https://"):
        form = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
        errors.append(unsupported(f"{path}.diskURI", uri, (form,)))
    return errors


def _storage_os(*fields: str) -> Check:
    def check(source: Obj, path: str) -> list[FieldError]:
        errors: list[FieldError] = []
        if not (name := source.get("volumeName")):
            errors.append(FieldError.required(f"{path}.volumeName"))
        else:
            errors += invalid_each(f"{path}.volumeName", name, names.dns_label(name))
        if namespace := source.get("volumeNamespace"):
            errors += invalid_each(f"{path}.volumeNamespace", namespace, names.dns_label(namespace))
        return errors + _secret_reference(source, path, *fields)

    return check


def _csi(source: Obj, path: str) -> list[FieldError]:
    errors = check_driver_name(source.get("driver") or "", f"{path}.driver")
    if (reference := source.get("nodePublishSecretRef")) is not None:
        if not (name := reference.get("name")):
            errors.append(FieldError.required(f"{path}.nodePublishSecretRef.name"))
        else:
            errors += invalid_each(f"{path}.name", name, names.dns_subdomain(name))
    return errors


def _csi_persistent(source: Obj, path: str) -> list[FieldError]:
    errors = check_driver_name(source.get("driver") or "", f"{path}.driver")
    errors += _required(source, path, "volumeHandle")
    for field in (
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ):
        if (reference := source.get(field)) is None:
            continue
        for part, check in (("name", names.dns_subdomain), ("namespace", names.dns_label)):
            at, value = f"{path}.{field}.{part}", reference.get(part)
            errors += invalid_each(at, value, check(value)) if value else [FieldError.required(at)]
    return errors


def _local(source: Obj, path: str) -> list[FieldError]:
    where = source.get("path")
    return check_no_backsteps(f"{path}.path", where) if where else [FieldError.required(f"{path}.path")]


_SHARED: Mapping[str, Check] = {
    "hostPath": _host_path,
    "gcePersistentDisk": _disk("pdName"),
    "awsElasticBlockStore": _disk("volumeID"),
    "nfs": _nfs,
    "flocker": _flocker,
    "rbd": _needs("monitors", "image"),
    "quobyte": _quobyte,
    "cephfs": _needs("monitors"),
    "fc": _fc,
    "flexVolume": _flex,
    "vsphereVolume": _needs("volumePath"),
    "photonPersistentDisk": _needs("pdID"),
    "portworxVolume": _needs("volumeID"),
    "azureDisk": _azure_disk,
    "scaleIO": _needs("gateway", "system", "volumeName"),
}
_POD_ORDER = (
    "emptyDir hostPath gitRepo gcePersistentDisk awsElasticBlockStore secret nfs iscsi glusterfs flocker "
    "persistentVolumeClaim rbd cinder cephfs quobyte downwardAPI fc flexVolume configMap azureFile vsphereVolume "
    "photonPersistentDisk portworxVolume azureDisk storageos projected scaleIO csi ephemeral image"
)
_PERSISTENT_ORDER = (
    "hostPath gcePersistentDisk awsElasticBlockStore glusterfs flocker nfs rbd quobyte cephfs iscsi cinder fc "
    "flexVolume azureFile vsphereVolume photonPersistentDisk portworxVolume azureDisk scaleIO local storageos csi"
)
_POD: Mapping[str, Check] = {
    **_SHARED,
    "emptyDir": _empty_dir,
    "gitRepo": _git_repo,
    "secret": _keyed("secretName"),
    "configMap": _keyed("name"),
    "glusterfs": _needs("endpoints", "path"),
    "persistentVolumeClaim": _needs("claimName"),
    "cinder": _cinder("name"),
    "azureFile": _needs("secretName", "shareName"),
    "storageos": _storage_os("name"),
    "csi": _csi,
}
_PERSISTENT: Mapping[str, Check] = {
    **_SHARED,
    "glusterfs": _glusterfs_persistent,
    "cinder": _cinder("name", "namespace"),
    "azureFile": _azure_file_persistent,
    "storageos": _storage_os("name", "namespace"),
    "csi": _csi_persistent,
    "local": _local,
}
POD: Mapping[str, Check | None] = {kind: _POD.get(kind) for kind in _POD_ORDER.split()}
"""None: the caller knows what the check needs besides the source."""
PERSISTENT: Mapping[str, Check | None] = {kind: _PERSISTENT.get(kind) for kind in _PERSISTENT_ORDER.split()}
