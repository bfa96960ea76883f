"""What a kubelet may write into a pod's status. Called by the status strategy of pods."""

from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.fields import MAX_INT32, check_immutable, check_range, invalid_each, unsupported
from machinery.field_errors import FieldError

Obj = dict[str, Any]
_SYSTEM_CONDITIONS = ("Initialized", "PodScheduled", "Ready")
_HEALTH = ("Healthy", "Unhealthy", "Unknown")
_ONE_PER_FAMILY = "may specify no more than one IP for each IP family"
_STAYS_TERMINATED = "may not be transitioned to non-terminated state"
_NO_REQUEST = "must match one of the container's resource requests"
_NO_CLAIM = (
    "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or "
    "'claim:<claimName>' if request is empty"
)


def validate_pod_status(new: Obj, old: Obj) -> list[FieldError]:
    """Valid addresses, named conditions; terminated containers that never restart stay terminated."""
    status, before, spec = new.get("status") or {}, old.get("status") or {}, old.get("spec") or {}
    errors: list[FieldError] = []
    for index, condition in enumerate(status.get("conditions") or ()):
        kind = condition.get("type") or ""
        if kind not in _SYSTEM_CONDITIONS:  # upstream tells these as if they were metadata
            errors += invalid_each(f"metadata.conditions[{index}].Type", kind, names.qualified_name(kind))
    nominated = status.get("nominatedNodeName")
    if nominated and nominated != before.get("nominatedNodeName"):
        errors += invalid_each("status.nominatedNodeName", nominated, names.dns_subdomain(nominated))
    errors += check_immutable("status.qosClass", status.get("qosClass"), before.get("qosClass"))
    errors += _transitions(status, before, spec)
    errors += _claims(status.get("resourceClaimStatuses") or [], spec)
    errors += _pod_addresses(status.get("podIPs") or [])
    errors += _host_addresses(status)
    for field in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for index, item in enumerate(status.get(field) or ()):
            errors += _user(item.get("user") or {}, f"status.{field}[{index}].linux", spec)
    for field, containers in (("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")):
        by_name = {each.get("name"): each for each in spec.get(containers) or ()}
        for index, item in enumerate(status.get(field) or ()):
            if allocated := item.get("allocatedResourcesStatus"):
                path = f"status.{field}[{index}].allocatedResourcesStatus"
                errors += _allocated(allocated, by_name.get(item.get("name")), path)
    for index, item in enumerate(status.get("ephemeralContainerStatuses") or ()):
        if item.get("allocatedResourcesStatus"):
            path = f"status.ephemeralContainerStatuses[{index}].allocatedResourcesStatus"
            errors.append(FieldError.forbidden(path, "must not be specified in container status"))
    return errors


def _transitions(status: Obj, before: Obj, spec: Obj) -> list[FieldError]:
    """Upstream counts in the old list and looks by name in the new one."""
    errors: list[FieldError] = []
    sidecars = {each.get("name") for each in spec.get("initContainers") or () if each.get("restartPolicy") == "Always"}
    ruled = {
        each.get("name"): each["restartPolicy"]
        for field in ("containers", "initContainers")
        for each in spec.get(field) or ()
        if each.get("restartPolicy")
    }
    for field in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        after = {item.get("name"): item for item in status.get(field) or ()}
        for index, was in enumerate(before.get(field) or ()):
            name, ended = was.get("name"), (was.get("state") or {}).get("terminated")
            policy = "Never" if field.startswith("ephemeral") else ruled.get(name) or spec.get("restartPolicy")
            if ended is None or policy == "Always" or (policy == "OnFailure" and ended.get("exitCode")):
                continue
            if field == "initContainerStatuses" and name in sidecars:
                continue
            if name in after and (after[name].get("state") or {}).get("terminated") is None:
                errors.append(FieldError.forbidden(f"status.{field}[{index}].state", _STAYS_TERMINATED))
    return errors


def _claims(statuses: list[Obj], spec: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    known = {claim.get("name") for claim in spec.get("resourceClaims") or ()}
    seen: set[str] = set()
    for index, item in enumerate(statuses):
        at, name = f"status.resourceClaimStatuses[{index}].name", item.get("name") or ""
        if name not in known:
            detail = "must match the name of an entry in `spec.resourceClaims`"
            errors.append(FieldError.invalid(at, name, detail))
        if name in seen:
            errors.append(FieldError.duplicate(at, name))
        seen.add(name)
        if (claim := item.get("resourceClaimName")) is not None:
            errors += invalid_each(at, claim, names.dns_subdomain(claim))
    return errors


def _too_many_families(addresses: list[str]) -> bool:
    return len(addresses) > 2 or len({":" in address for address in addresses}) < len(addresses)


def _duplicates(addresses: list[str], path: str) -> list[FieldError]:
    return [
        FieldError.duplicate(f"{path}[{index}]", {"IP": address})
        for index, address in enumerate(addresses)
        if address in addresses[:index]
    ]


def _pod_addresses(entries: list[Obj]) -> list[FieldError]:
    path, addresses = "status.podIPs", [entry.get("ip") or "" for entry in entries]
    errors = [
        error
        for index, address in enumerate(addresses)
        for error in invalid_each(f"{path}[{index}]", address, names.ip(address))
    ]
    if len(addresses) > 1:
        if _too_many_families(addresses):
            errors.append(FieldError.invalid(path, [{"IP": address} for address in addresses], _ONE_PER_FAMILY))
        errors += _duplicates(addresses, path)
    return errors


def _host_addresses(status: Obj) -> list[FieldError]:
    path, addresses = "status.hostIPs", [entry.get("ip") or "" for entry in status.get("hostIPs") or ()]
    if not addresses:
        return []
    errors: list[FieldError] = []
    if (status.get("hostIP") or "") != addresses[0]:
        errors.append(FieldError.invalid(f"{path}[0].ip", addresses[0], "must be equal to `hostIP`"))
    for index, address in enumerate(addresses):
        errors += invalid_each(f"{path}[{index}]", address, names.ip(address))
    if len(addresses) > 1:
        errors += _duplicates(addresses, path)
        if _too_many_families(addresses):
            errors.append(FieldError.invalid(path, [{"IP": address} for address in addresses], _ONE_PER_FAMILY))
    return errors


def _user(user: Obj, path: str, spec: Obj) -> list[FieldError]:
    if (linux := user.get("linux")) is None:
        return []
    if (spec.get("os") or {}).get("name") == "windows":
        return [FieldError.forbidden(path, "cannot be set for a windows pod")]
    errors = check_range(f"{path}.uid", linux.get("uid") or 0, 0, MAX_INT32)
    errors += check_range(f"{path}.gid", linux.get("gid") or 0, 0, MAX_INT32)
    for index, group in enumerate(linux.get("supplementalGroups") or ()):
        errors += check_range(f"{path}.supplementalGroups[{index}]", group, 0, MAX_INT32)
    return errors


def _allocated(entries: list[Obj], container: Obj | None, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    resources = (container or {}).get("resources") or {}
    claims = {
        f"claim:{claim.get('name')}" + (f"/{claim['request']}" if claim.get("request") else "")
        for claim in resources.get("claims") or ()
    }
    for index, entry in enumerate(entries):
        name = entry.get("name") or ""
        of_claim = name.startswith("claim:")
        if container is not None and name not in (claims if of_claim else resources.get("requests") or ()):
            detail = _NO_CLAIM if of_claim else _NO_REQUEST
            errors.append(FieldError.invalid(f"{path}[{index}].name", name, detail))
        seen: set[str] = set()
        for position, resource in enumerate(entry.get("resources") or ()):
            at, health = f"{path}[{index}].resources[{position}]", resource.get("health") or ""
            if health not in _HEALTH:
                errors.append(unsupported(f"{at}.health", health, _HEALTH))
            if (identity := resource.get("resourceID") or "") in seen:
                errors.append(FieldError.duplicate(f"{at}.resourceID", identity))
            seen.add(identity)
    return errors
