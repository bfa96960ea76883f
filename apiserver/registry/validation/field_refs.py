"""References to a pod's own fields and resources, in variables and in downward API files.

Called by the rules of containers and of volumes.
"""

from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.fields import invalid_each, unsupported
from machinery.field_errors import FieldError

Obj = dict[str, Any]
ENV_FIELDS = frozenset(
    {
        "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
        "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
    }
)  # fmt: skip
VOLUME_FIELDS = frozenset(
    {"metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations", "metadata.uid"}
)
_KNOWN_FIELDS = ENV_FIELDS | VOLUME_FIELDS | {"spec.restartPolicy", "spec.schedulerName", "status.phase"}
_MAPS = ("metadata.annotations", "metadata.labels")
_RESOURCE_FIELDS = frozenset(
    f"{kind}.{name}" for kind in ("limits", "requests") for name in ("cpu", "memory", "ephemeral-storage")
)
_HUGE_PAGES = ("limits.hugepages-", "requests.hugepages-")
_UNITS: tuple[str, ...] = ("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")
_CPU_UNITS: tuple[str, ...] = ("1m", "1")


def validate_field_ref(reference: Obj, path: str, allowed: frozenset[str]) -> list[FieldError]:
    """A downward API field, optionally one key of labels or annotations."""
    if not (version := reference.get("apiVersion")):
        return [FieldError.required(f"{path}.apiVersion")]
    if not (field := reference.get("fieldPath")):
        return [FieldError.required(f"{path}.fieldPath")]
    if field in allowed and version == "v1":
        return []
    at = f"{path}.fieldPath"
    base, key = _subscripted(field)
    problem = ""
    if version != "v1":
        problem = f"unsupported pod version: {version}"
    elif key is not None and base not in _MAPS:
        problem = f"field label does not support subscript: {field}"
    elif key is None and field == "spec.host":  # the name that spec.nodeName once had
        return [] if "spec.nodeName" in allowed else [unsupported(at, "spec.nodeName", sorted(allowed))]
    elif key is None and field not in _KNOWN_FIELDS:
        problem = f"field label not supported: {field}"
    if problem:
        return [FieldError.invalid(at, field, f"error converting fieldPath: {problem}")]
    if key is None:
        return [unsupported(at, field, sorted(allowed))]
    key = key.lower() if base == "metadata.annotations" else key
    return invalid_each(path, key, names.qualified_name(key))


def _subscripted(field: str) -> tuple[str, str | None]:
    base, bracket, rest = field.partition("['")
    return (base, rest[:-2]) if base and bracket and rest.endswith("']") else (field, None)


def validate_resource_field(reference: Obj, path: str, *, in_volume: bool) -> list[FieldError]:
    """A container's resource as a value."""
    errors: list[FieldError] = []
    resource = reference.get("resource") or ""
    if in_volume and not reference.get("containerName"):
        errors.append(FieldError.required(f"{path}.containerName"))
    elif not resource:
        errors.append(FieldError.required(f"{path}.resource"))
    elif resource not in _RESOURCE_FIELDS and not resource.startswith(_HUGE_PAGES):
        errors.append(unsupported(f"{path}.resource", resource, sorted(_RESOURCE_FIELDS)))
    return errors + _divisor(resource, reference.get("divisor"), f"{path}.divisor")


def _divisor(resource: str, divisor: Any, path: str) -> list[FieldError]:
    if divisor in (None, "0"):
        return []
    kind = resource.partition(".")[2]
    if resource in ("limits.cpu", "requests.cpu"):
        units, what = _CPU_UNITS, "1m and 1 are supported with the cpu resource"
    elif resource in _RESOURCE_FIELDS or resource.startswith(_HUGE_PAGES):
        shown = {"memory": "memory", "ephemeral-storage": "local ephemeral storage"}.get(kind, "hugepages")
        units, what = _UNITS, f"{', '.join(_UNITS)} are supported with the {shown} resource"
    else:
        return []
    if str(divisor) in units:
        return []
    return [FieldError.invalid(path, resource, f"only divisor's values {what}")]
