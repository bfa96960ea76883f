"""Annotations that mean something for a pod: mirror pods, deletion cost, and what once were fields' forerunners.

Called by the rules of pods and of pod templates.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from apiserver.registry.validation.fields import check_descending_path
from machinery.field_errors import FieldError

Obj = dict[str, Any]
MIRROR = "kubernetes.io/config.mirror"
_COST = "controller.kubernetes.io/pod-deletion-cost"
_SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP = "container.seccomp.security.alpha.kubernetes.io/"
_APP_ARMOR = "container.apparmor.security.beta.kubernetes.io/"
_LOCALHOST = "localhost/"
_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")


def validate_pod_annotations(annotations: Mapping[str, str], spec: Obj, path: str) -> list[FieldError]:
    """Values of the known ones."""
    errors: list[FieldError] = []
    if MIRROR in annotations and not spec.get("nodeName"):
        detail = "must set spec.nodeName if mirror pod annotation is set"
        errors.append(FieldError.invalid(f"{path}[{MIRROR}]", annotations[MIRROR], detail))
    if _COST in annotations and not _is_cost(annotations[_COST]):
        errors.append(FieldError.invalid(f"{path}[{_COST}]", annotations[_COST], "must be a 32bit integer"))
    for key, value in annotations.items():
        if key == _SECCOMP_POD or key.startswith(_SECCOMP):
            errors += _seccomp(value, f"{path}.{key}")
    for key, value in annotations.items():
        if not key.startswith(_APP_ARMOR):
            continue
        name = key.removeprefix(_APP_ARMOR)
        if name not in {container.get("name") for _, container in _containers(spec, "")}:
            errors.append(FieldError.invalid(f"{path}[{key}]", name, "container not found"))
        if value not in ("", "runtime/default", "unconfined") and not value.startswith(_LOCALHOST):
            detail = f'invalid AppArmor profile name: "{value}"'
            errors.append(FieldError.invalid(f"{path}[{key}]", value, detail))
    return errors


def _is_cost(text: str) -> bool:
    digits = text[1:] if text[:1] in "+-" else text
    plain = digits.isascii() and digits.isdecimal() and (digits == "0" or not digits.startswith("0"))
    return plain and not text.startswith("+") and -(2**31) <= int(text) < 2**31


def _seccomp(profile: str, path: str) -> list[FieldError]:
    if profile in ("runtime/default", "docker/default", "unconfined"):
        return []
    if profile.startswith(_LOCALHOST):
        return check_descending_path(path, profile.removeprefix(_LOCALHOST))
    return [FieldError.invalid(path, profile, "must be a valid seccomp profile")]


def _containers(spec: Obj, path: str) -> Iterator[tuple[str, Obj]]:
    for field in _CONTAINERS:
        for index, container in enumerate(spec.get(field) or ()):
            yield f"{path}.{field}[{index}]", container


def validate_profile_annotations(annotations: Mapping[str, str], spec: Obj, path: str) -> list[FieldError]:
    """Annotations that tell of profiles tell the same as the fields."""
    errors: list[FieldError] = []
    of_pod = spec.get("securityContext") or {}
    if _SECCOMP_POD in annotations and (profile := of_pod.get("seccompProfile")) is not None:
        where = f"{path}.securityContext.seccompProfile"
        errors += _agree(annotations[_SECCOMP_POD], profile, where, "seccomp")
    for at, container in _containers(spec, path):
        profile = (container.get("securityContext") or {}).get("seccompProfile")
        if profile is not None and (value := annotations.get(f"{_SECCOMP}{container.get('name')}")) is not None:
            errors += _agree(value, profile, f"{at}.securityContext.seccompProfile", "seccomp")
    if (spec.get("os") or {}).get("name") == "windows":
        return errors
    for at, container in _containers(spec, path):
        own = (container.get("securityContext") or {}).get("appArmorProfile")
        profile = own if own is not None else of_pod.get("appArmorProfile")
        if profile is not None and (value := annotations.get(f"{_APP_ARMOR}{container.get('name')}")) is not None:
            errors += _agree(value, profile, f"{at}.securityContext.appArmorProfile", "apparmor")
    return errors


def _agree(value: str, profile: Obj, path: str, what: str) -> list[FieldError]:
    defaults = ("runtime/default", "docker/default") if what == "seccomp" else ("runtime/default",)
    expected = {"Unconfined": ("unconfined",), "RuntimeDefault": defaults}.get(profile.get("type") or "")
    wrong = False
    if expected is not None:
        wrong = value not in expected
    elif profile.get("type") == "Localhost":
        wrong = not value.startswith(_LOCALHOST)
        if not wrong and value.removeprefix(_LOCALHOST) != profile.get("localhostProfile"):
            detail = f"{what} profile in annotation and field must match"
            return [FieldError.forbidden(f"{path}.localhostProfile", detail)]
    if not wrong:
        return []
    return [FieldError.forbidden(f"{path}.type", f"{what} type in annotation and field must match")]


def validate_annotation_change(new: Mapping[str, str], old: Mapping[str, str], path: str) -> list[FieldError]:
    """A mirror pod stays one, and AppArmor profiles stay."""
    errors: list[FieldError] = []
    for key in old:
        if new.get(key) == old[key]:
            continue
        if key.startswith(_APP_ARMOR):
            errors.append(FieldError.forbidden(f"{path}[{key}]", "may not remove or update AppArmor annotations"))
        if key == MIRROR:
            errors.append(FieldError.forbidden(f"{path}[{key}]", "may not remove or update mirror pod annotation"))
    for key in new:
        if key in old:
            continue
        if key.startswith(_APP_ARMOR):
            errors.append(FieldError.forbidden(f"{path}[{key}]", "may not add AppArmor annotations"))
        if key == MIRROR:
            errors.append(FieldError.forbidden(f"{path}[{key}]", "may not add mirror pod annotation"))
    return errors
