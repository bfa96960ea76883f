"""What was allocated to a ResourceClaim of resource.k8s.io: consumers, devices and what drivers report of them.

Owns the rules of its status, which are asked when it is written. Rules, limits and texts are those of Kubernetes 1.36.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from apiserver.registry.validation import names
from apiserver.registry.validation.conditions import validate_conditions
from apiserver.registry.validation.device_names import (
    check_driver,
    check_label,
    check_pool,
    check_set,
    check_slice,
    check_uid,
    itself,
)
from apiserver.registry.validation.devices import (
    LIST_LIMIT,
    Check,
    check_raw,
    check_reference,
    claim_configuration,
    request_names,
)
from apiserver.registry.validation.fields import check_immutable, check_label_name
from apiserver.registry.validation.scheduling import validate_node_selector
from machinery.field_errors import FieldError

Obj = dict[str, Any]

CONSUMERS: Final = 256
CONDITIONS: Final = 8
ADDRESSES: Final = 16
BINDING_CONDITIONS: Final = 4


def validate_claim_status(new: Obj, old: Obj) -> list[FieldError]:
    """ResourceClaim: consumers, devices and the allocation, which stays as it was made."""
    status, before = new.get("status") or {}, old.get("status") or {}
    allocation, consumers = status.get("allocation"), status.get("reservedFor") or []
    errors = check_set(consumers, CONSUMERS, _consumer, lambda item: str(item.get("uid") or ""), "status.reservedFor")
    results = ((allocation or {}).get("devices") or {}).get("results") or ()
    errors += check_set(
        status.get("devices"), -1, _device_status({_identity(each) for each in results}), _identity, "status.devices"
    )
    if consumers and allocation is None:
        detail = "may not be specified when `allocated` is not set"
        errors.append(FieldError.forbidden("status.reservedFor", detail))
    elif new["metadata"].get("deletionTimestamp") and any(
        each not in (before.get("reservedFor") or ()) for each in consumers
    ):
        detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"
        errors.append(FieldError.forbidden("status.reservedFor", detail))
    if allocation is not None and before.get("allocation") is not None:
        errors += check_immutable("status.allocation", allocation, before["allocation"])
    elif allocation is not None:
        errors += _allocation(allocation, request_names((new.get("spec") or {}).get("devices") or {}))
    return errors


def _consumer(consumer: Obj, path: str) -> list[FieldError]:
    return [FieldError.required(f"{path}.{field}") for field in ("resource", "name", "uid") if not consumer.get(field)]


def _identity(device: Obj) -> str:
    """As upstream shows the id of a device."""
    parts = [str(device.get(field) or "") for field in ("driver", "pool", "device")]
    return "/".join([*parts, str(device["shareID"])] if device.get("shareID") else parts)


def _device_status(allocated: set[str]) -> Check:
    def check(device: Obj, path: str) -> list[FieldError]:
        errors = _named_device(device, path)
        if _identity(device) not in allocated:
            text = f"Invalid value: {_identity(device)}: must be an allocated device in the claim"
            errors.append(FieldError(path, "FieldValueInvalid", text))
        conditions = device.get("conditions") or []
        if len(conditions) > CONDITIONS:
            errors.append(FieldError.too_many(f"{path}.conditions", len(conditions), CONDITIONS))
        errors += validate_conditions(conditions, f"{path}.conditions")
        if device.get("data") is not None:
            errors += check_raw(device["data"], f"{path}.data")
        return errors + _network_data(device.get("networkData") or {}, f"{path}.networkData")

    return check


def _named_device(device: Obj, path: str) -> list[FieldError]:
    errors = check_driver(device.get("driver") or "", f"{path}.driver")
    errors += check_pool(device.get("pool") or "", f"{path}.pool")
    errors += check_label(device.get("device") or "", f"{path}.device")
    if device.get("shareID") is not None:
        errors += check_uid(device["shareID"], f"{path}.shareID")
    return errors


def _network_data(data: Obj, path: str) -> list[FieldError]:
    errors = [
        FieldError.too_long(f"{path}.{field}", limit)
        for field, limit in (("interfaceName", 256), ("hardwareAddress", 128))
        if len((data.get(field) or "").encode()) > limit
    ]
    return errors + check_set(data.get("ips"), ADDRESSES, _interface_address, itself, f"{path}.ips")


def _interface_address(address: str, path: str) -> list[FieldError]:
    host, slash, _ = address.partition("/")
    problem = names.cidr(address)
    if not slash or names.ip(host) or (problem and "bits set" not in problem[0]):
        detail = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)"
        return [FieldError.invalid(path, address, detail)]
    return []


def _allocation(allocation: Obj, known: Mapping[str, set[str]]) -> list[FieldError]:
    path, devices = "status.allocation", allocation.get("devices") or {}

    def result(item: Obj, at: str) -> list[FieldError]:
        errors = check_reference(known)(item.get("request") or "", f"{at}.request") + _named_device(item, at)
        return errors + check_binding(item, at)

    def configuration(item: Obj, at: str) -> list[FieldError]:
        source = item.get("source") or ""
        errors = [] if source else [FieldError.required(f"{at}.source")]
        if source and source not in ("FromClaim", "FromClass"):
            errors.append(FieldError.not_supported(f"{at}.source", source, ("FromClaim", "FromClass")))
        return errors + claim_configuration(known)(item, at)

    errors = check_slice(devices.get("results"), LIST_LIMIT, result, f"{path}.devices.results")
    errors += check_slice(devices.get("config"), 2 * LIST_LIMIT, configuration, f"{path}.devices.config")
    if allocation.get("nodeSelector") is not None:
        errors += validate_node_selector(allocation["nodeSelector"], f"{path}.nodeSelector")
    return errors


def check_binding(device: Obj, path: str) -> list[FieldError]:
    """Conditions that let a pod be bound, and those that keep it from it: both or none, and none twice."""
    kinds = ("bindingConditions", "bindingFailureConditions")
    binding, failure = (device.get(kind) or [] for kind in kinds)
    errors: list[FieldError] = []
    for kind, listed in zip(kinds, (binding, failure), strict=True):
        errors += check_slice(listed, BINDING_CONDITIONS, lambda name, at: check_label_name(at, name), f"{path}.{kind}")
    for kind, listed in zip(kinds, (binding, failure), strict=True):
        for index, name in enumerate(listed):
            at = f"{path}.{kind}[{index}]"
            if name in listed[:index]:
                errors.append(FieldError.duplicate(at, name))
            if listed is failure and name in binding:
                detail = "bindingFailureConditions must not overlap with bindingConditions"
                errors.append(FieldError.invalid(at, name, detail))
    if failure and not binding:
        detail = "bindingConditions are required to use bindingFailureConditions"
        errors.append(FieldError.invalid(f"{path}.bindingConditions", None, detail))
    if binding and not failure:
        detail = "bindingFailureConditions are required to use bindingConditions"
        errors.append(FieldError.invalid(f"{path}.bindingFailureConditions", None, detail))
    return errors
