"""Security contexts of pods and containers, and what does not fit a pod's operating system.

Called by the rules of containers and pods.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from apiserver.registry.validation.fields import MAX_INT32, check_descending_path, check_enum, check_range
from apiserver.registry.validation.pod_dump import security_value
from machinery.field_errors import FieldError

Obj = dict[str, Any]

_SYSCTL = r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_sysctl = re.compile(_SYSCTL).fullmatch
_PROFILES = ("Localhost", "RuntimeDefault", "Unconfined")
_NOT_ON_WINDOWS = "cannot be set for a windows pod"
_POD_LINUX = (
    "appArmorProfile", "seLinuxOptions", "seccompProfile", "fsGroup", "fsGroupChangePolicy", "sysctls", "runAsUser",
    "runAsGroup", "supplementalGroups", "supplementalGroupsPolicy",
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


def _profile(profile: Obj | None, path: str, field: str, name: str) -> list[FieldError]:
    """A seccomp or AppArmor profile: Localhost needs a file, the others forbid it."""
    if profile is None:
        return []
    kind, local, at = profile.get("type"), profile.get("localhostProfile"), f"{path}.{field}"
    if kind == "Localhost":
        if not local:
            return [FieldError.required(f"{at}.localhostProfile", f"must be set when {name} type is Localhost")]
        return check_descending_path(f"{at}.localhostProfile", local) if field == "seccompProfile" else []
    errors: list[FieldError] = []
    if local is not None:
        detail = f"can only be set when {name} type is Localhost"
        errors.append(FieldError.invalid(f"{at}.localhostProfile", local, detail))
        if field == "seccompProfile":
            return errors
    if not kind:
        return [*errors, FieldError.required(f"{at}.type", f"type is required when {field} is set")]
    return errors + check_enum(f"{at}.type", kind, _PROFILES)


def validate_container_security(security: Obj, path: str) -> list[FieldError]:
    """SecurityContext of a container."""
    errors = _ids(security, path, ("runAsUser", "runAsGroup"))
    errors += check_enum(f"{path}.procMount", security.get("procMount"), ("Default", "Unmasked"))
    errors += _profile(security.get("seccompProfile"), path, "seccompProfile", "seccomp")
    if security.get("allowPrivilegeEscalation") is False:
        if security.get("privileged"):
            detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            errors.append(FieldError.invalid(path, security_value(security), detail))
        if "CAP_SYS_ADMIN" in ((security.get("capabilities") or {}).get("add") or ()):
            detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            errors.append(FieldError.invalid(path, security_value(security), detail))
    return errors + _profile(security.get("appArmorProfile"), path, "appArmorProfile", "AppArmor")


def validate_pod_security(security: Obj, path: str) -> list[FieldError]:
    """PodSecurityContext."""
    errors = _ids(security, path, ("fsGroup", "runAsUser", "runAsGroup"))
    for index, group in enumerate(security.get("supplementalGroups") or ()):
        errors += check_range(f"{path}.supplementalGroups[{index}]", group, 0, MAX_INT32)
    errors += _profile(security.get("seccompProfile"), path, "seccompProfile", "seccomp")
    for field, values in (
        ("fsGroupChangePolicy", ("Always", "OnRootMismatch")),
        ("supplementalGroupsPolicy", ("Merge", "Strict")),
        ("seLinuxChangePolicy", ("MountOption", "Recursive")),
    ):
        errors += check_enum(f"{path}.{field}", security.get(field), values)
    errors += _sysctls(security.get("sysctls") or [], f"{path}.sysctls")
    return errors + _profile(security.get("appArmorProfile"), path, "appArmorProfile", "AppArmor")


def _sysctls(settings: list[Obj], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, setting in enumerate(settings):
        name = setting.get("name")
        if not name:
            errors.append(FieldError.required(f"{path}[{index}].name"))
        elif name in seen:
            errors.append(FieldError.duplicate(f"{path}[{index}].name", name))
        elif len(name) > 253 or not _sysctl(name):
            detail = f"must have at most 253 characters and match regex ^{_SYSCTL}$"
            errors.append(FieldError.invalid(f"{path}[{index}].name", name, detail))
        seen.add(name or "")
    return errors


def validate_os(spec: Obj, path: str) -> list[FieldError]:
    """`spec.os` promises that nothing of the other system is asked for."""
    name = spec["os"].get("name")
    if name == "windows":
        return _windows(spec, path)
    return _linux(spec, path) if name == "linux" else []


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
