"""What a kubelet may write into a pod's status. Called by the status strategy of pods."""

from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.fields import check_label_name, invalid_each
from machinery.field_errors import FieldError

Obj = dict[str, Any]


def validate_pod_status(status: Obj, old: Obj) -> list[FieldError]:
    """Valid addresses, named conditions; a terminated container of a pod that never restarts stays terminated."""
    errors: list[FieldError] = []
    nominated = status.get("nominatedNodeName")
    if nominated and nominated != (old.get("status") or {}).get("nominatedNodeName"):
        path = "status.nominatedNodeName"
        errors += invalid_each(path, nominated, names.dns_subdomain(nominated))
    for field in ("podIPs", "hostIPs"):
        seen: set[str] = set()
        addresses = [address.get("ip") or "" for address in status.get(field) or ()]
        if len({":" in address for address in addresses}) < len(addresses):
            detail = "may specify no more than one IP for each IP family"
            shown = [{"IP": address} for address in addresses]
            errors.append(FieldError.invalid(f"status.{field}", shown, detail))
        for index, address in enumerate(status.get(field) or ()):
            value = address.get("ip") or ""
            errors += invalid_each(f"status.{field}[{index}]", value, names.ip(value))
            if value in seen:
                errors.append(FieldError.duplicate(f"status.{field}[{index}]", address))
            seen.add(value)
    for index, condition in enumerate(status.get("conditions") or ()):
        kind = condition.get("type") or ""
        if texts := names.qualified_name(kind):
            errors += check_label_name(f"status.conditions[{index}].type", kind) if texts else []
    if old.get("spec", {}).get("restartPolicy") == "Never":
        errors += _validate_never_restarted(status, old.get("status") or {})
    return errors


def _validate_never_restarted(new: Obj, old: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    before = {item.get("name"): item for item in old.get("containerStatuses") or ()}
    for index, item in enumerate(new.get("containerStatuses") or ()):
        was = (before.get(item.get("name")) or {}).get("state") or {}
        if was.get("terminated") and not (item.get("state") or {}).get("terminated"):
            path = f"status.containerStatuses[{index}].state"
            errors.append(FieldError.forbidden(path, "may not be transitioned to non-terminated state"))
    return errors
