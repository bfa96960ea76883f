"""Security contexts of pods and containers, and what does not fit a pod's operating system.

Called by the rules of containers and pods.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from apiserver.registry.validation.fields import MAX_INT32, check_descending_path, check_range, unsupported
from apiserver.registry.validation.pod_dump import security_value
from apiserver.registry.validation.windows import validate_windows_options
from machinery.field_errors import FieldError

Obj = dict[str, Any]

_SYSCTL = r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_sysctl = re.compile(_SYSCTL).fullmatch
_PROFILES = ("Localhost", "RuntimeDefault", "Unconfined")
_LONGEST_PATH = 4095
_NOT_ON_WINDOWS = "cannot be set for a windows pod"
_POD_LINUX = (
    "appArmorProfile", "seLinuxOptions", "seccompProfile", "fsGroup", "fsGroupChangePolicy", "sysctls", "runAsUser",
    "runAsGroup", "supplementalGroups", "supplementalGroupsPolicy", "seLinuxChangePolicy",
)  # fmt: skip
_HOST_LINUX = ("hostUsers", "hostPID", "hostIPC", "shareProcessNamespace")
_CONTAINER_LINUX = (
    "appArmorProfile", "seLinuxOptions", "seccompProfile", "capabilities", "readOnlyRootFilesystem", "privileged",
    "allowPrivilegeEscalation", "procMount", "runAsUser", "runAsGroup",
)  # fmt: skip


def _ids(security: Obj, path: str, fields: tuple[str, ...]) -> list[FieldError]:
    errors: list[FieldError] = []
    for field in fields:
        value = security.get(field)
        if value is not None:
            errors += check_range(f"{path}.{field}", value, 0, MAX_INT32)
    return errors


def _seccomp(profile: Obj, path: str) -> list[FieldError]:
    """Localhost needs a file, the others forbid it."""
    kind, local = profile.get("type") or "", profile.get("localhostProfile")
    errors: list[FieldError] = []
    if not kind:
        errors.append(FieldError.required(f"{path}.type", "type is required when seccompProfile is set"))
    elif kind not in _PROFILES:
        errors.append(unsupported(f"{path}.type", kind, _PROFILES))
    at = f"{path}.localhostProfile"
    if kind != "Localhost":
        if local is not None:
            shown = {"Type": kind, "LocalhostProfile": local}
            errors.append(FieldError.invalid(at, shown, "can only be set when seccomp type is Localhost"))
    elif local is None:
        errors.append(FieldError.required(at, "must be set when seccomp type is Localhost"))
    else:
        errors += check_descending_path(at, local)
    return errors


def check_app_armor(profile: Obj, path: str) -> list[FieldError]:
    """An AppArmorProfile; `path` is its own."""
    kind, local, at = profile.get("type") or "", profile.get("localhostProfile"), f"{path}.localhostProfile"
    if not kind:
        return [FieldError.required(f"{path}.type", "type is required when appArmorProfile is set")]
    if kind not in _PROFILES:
        return [unsupported(f"{path}.type", kind, _PROFILES)]
    if kind != "Localhost":
        if local is None:
            return []
        return [FieldError.invalid(at, local, "can only be set when AppArmor type is Localhost")]
    errors: list[FieldError] = []
    if local is not None and local.strip() != local:
        errors.append(FieldError.invalid(at, local, "must not be padded with whitespace"))
    elif not local:
        errors.append(FieldError.required(at, "must be set when AppArmor type is Localhost"))
    if len(local or "") > _LONGEST_PATH:
        errors.append(FieldError.too_long(at, _LONGEST_PATH))
    return errors


def _profiles(security: Obj, path: str) -> list[FieldError]:
    """What pods and containers have alike, in upstream's order."""
    errors: list[FieldError] = []
    if (options := security.get("windowsOptions")) is not None:
        errors += validate_windows_options(options, f"{path}.windowsOptions")
    if (profile := security.get("appArmorProfile")) is not None:
        errors += check_app_armor(profile, f"{path}.appArmorProfile")
    return errors


def validate_container_security(security: Obj, path: str, host_users: bool = True) -> list[FieldError]:
    """SecurityContext of a container; `host_users`: the pod shares the host's users."""
    errors = _ids(security, path, ("runAsUser", "runAsGroup"))
    if (mount := security.get("procMount")) is not None:
        if mount not in ("Default", "Unmasked"):
            errors.append(unsupported(f"{path}.procMount", mount, ("Default", "Unmasked")))
        if host_users and mount == "Unmasked":
            detail = "`hostUsers` must be false to use `Unmasked`"
            errors.append(FieldError.invalid(f"{path}.procMount", mount, detail))
    if (profile := security.get("seccompProfile")) is not None:
        errors += _seccomp(profile, f"{path}.seccompProfile")
    if security.get("allowPrivilegeEscalation") is False:
        if security.get("privileged"):
            detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            errors.append(FieldError.invalid(path, security_value(security), detail))
        if "CAP_SYS_ADMIN" in ((security.get("capabilities") or {}).get("add") or ()):
            detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            errors.append(FieldError.invalid(path, security_value(security), detail))
    return errors + _profiles(security, path)


def validate_pod_security(security: Obj, path: str, spec: Obj) -> list[FieldError]:
    """PodSecurityContext, and what of the pod upstream keeps in it."""
    errors = _ids(security, path, ("fsGroup", "runAsUser", "runAsGroup"))
    for index, group in enumerate(security.get("supplementalGroups") or ()):
        errors += check_range(f"{path}.supplementalGroups[{index}]", group, 0, MAX_INT32)
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        detail = "ShareProcessNamespace and HostPID cannot both be enabled"
        errors.append(FieldError.invalid(f"{path}.shareProcessNamespace", True, detail))
    errors += _sysctls(security.get("sysctls") or [], f"{path}.sysctls", spec)
    errors += _enum(security, path, "fsGroupChangePolicy", ("Always", "OnRootMismatch"))
    if (profile := security.get("seccompProfile")) is not None:
        errors += _seccomp(profile, f"{path}.seccompProfile")
    errors += _profiles(security, path)
    errors += _enum(security, path, "supplementalGroupsPolicy", ("Merge", "Strict"))
    return errors + _enum(security, path, "seLinuxChangePolicy", ("MountOption", "Recursive"))


def _enum(security: Obj, path: str, field: str, valid: tuple[str, ...]) -> list[FieldError]:
    value = security.get(field)
    return [] if value is None or value in valid else [unsupported(f"{path}.{field}", value, valid)]


def _shared_namespace(name: str, spec: Obj) -> str:
    """The field by which the pod shares with the host what the setting is about."""
    plain = name.replace("/", ".")
    if spec.get("hostNetwork") and plain.startswith("net."):
        return "hostNetwork"
    of_ipc = plain.startswith(("kernel.shm", "kernel.msg", "fs.mqueue.")) or plain == "kernel.sem"
    return "hostIPC" if spec.get("hostIPC") and of_ipc else ""


def _sysctls(settings: list[Obj], path: str, spec: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, setting in enumerate(settings):
        name, at = setting.get("name") or "", f"{path}[{index}].name"
        if not name:
            errors.append(FieldError.required(at))
        elif len(name) > 253 or not _sysctl(name):
            detail = f"must have at most 253 characters and match regex ^{_SYSCTL}$"
            errors.append(FieldError.invalid(at, name, detail))
        elif name in seen:
            errors.append(FieldError.duplicate(at, name))
        if field := _shared_namespace(name, spec):
            errors.append(FieldError.invalid(at, name, f"may not be specified when '{field}' is true"))
        seen.add(name)
    return errors


def validate_os(spec: Obj, path: str) -> list[FieldError]:
    """`spec.os` promises that nothing of the other system is asked for."""
    name = spec["os"].get("name") or ""
    if not name:
        return [FieldError.required(f"{path}.os.name", "cannot be empty")]
    if name not in ("linux", "windows"):
        return [unsupported(f"{path}.os", name, ("linux", "windows"))]
    if name == "windows":
        return _windows(spec, path)
    return _linux(spec, path)


def _containers(spec: Obj, path: str) -> Iterator[tuple[str, Obj]]:
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for index, container in enumerate(spec.get(field) or ()):
            if security := container.get("securityContext"):
                yield f"{path}.{field}[{index}].securityContext", security


def _windows(spec: Obj, path: str) -> list[FieldError]:
    security = spec.get("securityContext") or {}
    given = [f"{path}.securityContext.{field}" for field in _POD_LINUX if security.get(field) is not None]
    # False is no wish for these two; the others are pointers.
    given += [
        f"{path}.{field}"
        for field in _HOST_LINUX
        if spec.get(field) or (spec.get(field) is not None and field in ("hostUsers", "shareProcessNamespace"))
    ]
    for at, own in _containers(spec, path):
        given += [f"{at}.{field}" for field in _CONTAINER_LINUX if own.get(field) is not None]
    return [FieldError.forbidden(at, _NOT_ON_WINDOWS) for at in given]


def _linux(spec: Obj, path: str) -> list[FieldError]:
    detail, errors = "windows options cannot be set for a linux pod", list[FieldError]()
    for at, security in ((f"{path}.securityContext", spec.get("securityContext") or {}), *_containers(spec, path)):
        if security.get("windowsOptions") is not None:
            errors.append(FieldError.forbidden(f"{at}.windowsOptions", detail))
    return errors
