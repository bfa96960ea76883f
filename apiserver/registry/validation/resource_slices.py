"""Devices that drivers offer: ResourceSlice of resource.k8s.io.

Owns its rules. Limits and texts are those of Kubernetes 1.36.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from apiserver.registry.validation import names
from apiserver.registry.validation.claim_status import check_binding
from apiserver.registry.validation.device_names import (
    check_attribute_name,
    check_driver,
    check_label,
    check_pool,
    check_set,
    check_slice,
    named,
)
from apiserver.registry.validation.devices import EFFECTS
from apiserver.registry.validation.fields import check_immutable, check_label_name, invalid_each
from apiserver.registry.validation.scheduling import validate_node_selector
from machinery import quantity
from machinery.field_errors import FieldError

Obj = dict[str, Any]

DEVICES, SPECIAL_DEVICES = 128, 64
"""In one slice; fewer where any has taints or consumes counters."""
COUNTER_SETS, COUNTERS, CONSUMPTIONS = 8, 32, 2
PROPERTIES: Final = 32
"""Attributes and capacities of a device together."""
TAINTS: Final = 16
VALUE_LENGTH: Final = 64
OPTIONS: Final = 10
_KEY_LENGTH: Final = 63 + 1 + 32
_NUMBER, _PRERELEASE, _BUILD = r"(0|[1-9]\d*)", r"(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)", "[0-9a-zA-Z-]+"
_VERSION = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-{_PRERELEASE}(\.{_PRERELEASE})*)?(\+{_BUILD}(\.{_BUILD})*)?", re.ASCII
)
_ONE_PLACE: Final = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
_ONE_DEVICE_PLACE: Final = (
    "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true "
    "in the ResourceSlice spec"
)
_TRUE_OR_UNSET: Final = "must be either unset or set to true"


def validate_slice(obj: Obj) -> list[FieldError]:
    """A new ResourceSlice."""
    return _spec(obj.get("spec") or {}, None)


def validate_slice_update(new: Obj, old: Obj) -> list[FieldError]:
    """ResourceSlice: driver, pool and node stay."""
    return _spec(new.get("spec") or {}, old.get("spec") or {})


def _spec(spec: Obj, old: Obj | None) -> list[FieldError]:
    pool = spec.get("pool") or {}
    errors = check_driver(spec.get("driver") or "", "spec.driver")
    errors += check_pool(pool.get("name") or "", "spec.pool.name")
    if (pool.get("resourceSliceCount") or 0) <= 0:
        count = pool.get("resourceSliceCount") or 0
        errors.append(FieldError.invalid("spec.pool.resourceSliceCount", count, "must be greater than zero"))
    if (generation := pool.get("generation") or 0) < 0:
        errors.append(FieldError.invalid("spec.pool.generation", generation, "must be greater than or equal to zero"))
    if old is not None:
        errors += check_immutable("spec.pool.name", pool.get("name"), (old.get("pool") or {}).get("name"))
        errors += check_immutable("spec.driver", spec.get("driver"), old.get("driver"))
        errors += check_immutable("spec.nodeName", spec.get("nodeName"), old.get("nodeName"))
    errors += _slice_place(spec)
    if spec.get("sharedCounters") is not None and spec.get("devices") is not None:
        detail = "only one of `sharedCounters` or `devices` is allowed"
        errors.append(FieldError.invalid("spec", "", detail))
    devices = spec.get("devices") or []
    special = any(each.get("taints") or each.get("consumesCounters") for each in devices)
    before = {each.get("name"): each for each in (old or {}).get("devices") or ()}

    def device(item: Obj, path: str) -> list[FieldError]:
        return _device(item, before.get(item.get("name")), path, chosen=spec.get("perDeviceNodeSelection") is True)

    errors += check_set(devices, SPECIAL_DEVICES if special else DEVICES, device, named, "spec.devices")
    return errors + check_set(spec.get("sharedCounters"), COUNTER_SETS, _counter_set, named, "spec.sharedCounters")


def _slice_place(spec: Obj) -> list[FieldError]:
    """On which nodes the devices are: exactly one way of saying so."""
    errors, said = _place(spec, "spec", "must be either unset or set to a non-empty string")
    selector = spec.get("nodeSelector")
    if selector is not None and len(selector.get("nodeSelectorTerms") or ()) != 1:
        at, terms = "spec.nodeSelector.nodeSelectorTerms", selector.get("nodeSelectorTerms") or []
        errors.append(FieldError.invalid(at, terms, "must have exactly one node selector term"))
    each = spec.get("perDeviceNodeSelection")
    if each:
        said.append("`perDeviceNodeSelection`")
    elif each is not None:
        errors.append(FieldError.invalid("spec.perDeviceNodeSelection", each, _TRUE_OR_UNSET))
    if not said:
        errors.append(FieldError.required("spec", _ONE_PLACE))
    elif len(said) > 1:
        shown = f"{{{', '.join(said)}}}"
        errors.append(FieldError.invalid("spec", shown, f"{_ONE_PLACE}, but multiple fields are set"))
    return errors


def _place(found: Obj, path: str, empty: str) -> tuple[list[FieldError], list[str]]:
    """Findings, and the fields by which a place is told."""
    errors: list[FieldError] = []
    said: list[str] = []
    name, selector, everywhere = (found.get(field) for field in ("nodeName", "nodeSelector", "allNodes"))
    if name:
        said.append("`nodeName`")
        errors += invalid_each(f"{path}.nodeName", name, names.dns_subdomain(name))
    elif name is not None:
        errors.append(FieldError.invalid(f"{path}.nodeName", name, empty))
    if selector is not None:
        said.append("`nodeSelector`")
        errors += validate_node_selector(selector, f"{path}.nodeSelector")
    if everywhere:
        said.append("`allNodes`")
    elif everywhere is not None:
        errors.append(FieldError.invalid(f"{path}.allNodes", everywhere, _TRUE_OR_UNSET))
    return errors, said


def _device(device: Obj, old: Obj | None, path: str, *, chosen: bool) -> list[FieldError]:
    """`chosen`: every device says by itself on which nodes it is."""
    errors = check_label(device.get("name") or "", f"{path}.name")
    attributes, capacity = device.get("attributes") or {}, device.get("capacity") or {}
    if (count := len(attributes) + len(capacity)) > PROPERTIES:
        detail = f"the total number of attributes and capacities must not exceed {PROPERTIES}"
        errors.append(FieldError.invalid(path, count, detail))
    errors += _check_map(attributes, -1, _KEY_LENGTH, check_attribute_name, _attribute, f"{path}.attributes")
    check_capacity = _shared_capacity if device.get("allowMultipleAllocations") else _capacity
    errors += _check_map(capacity, -1, _KEY_LENGTH, check_attribute_name, check_capacity, f"{path}.capacity")
    if old is None or (old.get("taints") or []) != (device.get("taints") or []):
        errors += check_slice(device.get("taints"), TAINTS, _taint, f"{path}.taints")
    errors += check_set(
        device.get("consumesCounters"),
        CONSUMPTIONS,
        _consumption,
        lambda item: str(item.get("counterSet") or ""),
        f"{path}.consumesCounters",
    )
    if chosen:
        found, said = _place(device, path, "must not be empty")
        errors += found
        if not said:
            errors.append(FieldError.required(path, _ONE_DEVICE_PLACE))
        elif len(said) > 1:
            errors.append(FieldError.invalid(path, f"{{{', '.join(said)}}}", _ONE_DEVICE_PLACE))
    elif any(device.get(field) is not None for field in ("nodeName", "nodeSelector", "allNodes")):
        detail = (
            "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in "
            "the ResourceSlice spec"
        )
        errors.append(FieldError.invalid(path, None, detail))
    return errors + check_binding(device, path)


def _check_map(
    found: Mapping[str, Any],
    limit: int,
    shown: int,
    check_key: Callable[[str, str], list[FieldError]],
    check_item: Callable[[Any, str], list[FieldError]],
    path: str,
) -> list[FieldError]:
    """Keys and items; keys longer than `shown` are told without their middle."""
    if 0 <= limit < len(found):
        return [FieldError.too_many(path, len(found), limit)]
    errors: list[FieldError] = []
    for key, item in sorted(found.items()):
        at = f"{path}[{_short(key, shown)}]"
        errors += check_key(key, at) + check_item(item, at)
    return errors


def _short(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    left = limit - 3
    return f"{text[: (left + 1) // 2]}...{text[len(text) - left // 2 :]}"


def _attribute(attribute: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    given = [field for field in ("bool", "int", "string", "version") if attribute.get(field) is not None]
    for field in ("string", "version"):
        text = attribute.get(field)
        if text is None:
            continue
        if field == "version" and not _VERSION.fullmatch(text):
            detail = "must be a string compatible with semver.org spec 2.0.0"
            errors.append(FieldError.invalid(f"{path}.version", text, detail))
        if len(text.encode()) > VALUE_LENGTH:
            errors.append(FieldError.too_long(f"{path}.{field}", VALUE_LENGTH))
    if len(given) != 1:
        shown: Any = attribute if given else ""
        errors.append(FieldError.invalid(path, shown, "exactly one value must be specified"))
    return errors


def _capacity(capacity: Obj, path: str) -> list[FieldError]:
    if capacity.get("requestPolicy") is None:
        return []
    return [FieldError.forbidden(f"{path}.requestPolicy", "allowMultipleAllocations must be true")]


def _shared_capacity(capacity: Obj, path: str) -> list[FieldError]:
    """A capacity of which several claims take parts: which parts they may ask for."""
    policy, path = capacity.get("requestPolicy") or {}, f"{path}.requestPolicy"
    values, bounds, default = policy.get("validValues") or [], policy.get("validRange"), policy.get("default")
    most = _amount(capacity.get("value"))
    if values and bounds is not None:
        detail = 'exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time'
        return [FieldError.forbidden(path, detail)]
    given = "validValues" if values else "validRange" if bounds is not None else ""
    if not given:
        return []
    if default is None:
        return [FieldError.required(f"{path}.default", f"required when {given} is defined")]
    if values:
        return _valid_values(_amount(default), most, [_amount(each) for each in values], f"{path}.validValues")
    return _valid_range(_amount(default), most, bounds or {}, f"{path}.validRange")


def _amount(given: Any) -> str:
    """A quantity as text; null is zero, as Go reads it."""
    return "0" if given is None else str(given)


def _valid_values(default: str, most: str, values: list[str], path: str) -> list[FieldError]:
    parsed = [quantity.parse(each) for each in values]
    errors = [
        FieldError.invalid(f"{path}[{index + 1}]", values[index + 1], "values must be sorted in ascending order")
        for index in range(len(values) - 1)
        if parsed[index] > parsed[index + 1]
    ]

    def option(value: str, at: str) -> list[FieldError]:
        if quantity.parse(value) <= quantity.parse(most):
            return []
        return [FieldError.invalid(at, value, f"option is larger than capacity value: {most}")]

    errors += check_set(values, OPTIONS, option, lambda each: str(quantity.value(each)), path)
    if quantity.parse(default) not in parsed:
        errors.append(FieldError.invalid(path, default, "default value is not valid according to the requestPolicy"))
    return errors


def _valid_range(default: str, most: str, bounds: Obj, path: str) -> list[FieldError]:
    low, high, step = (None if bounds.get(field) is None else str(bounds[field]) for field in ("min", "max", "step"))
    if low is None:
        return [FieldError.required(f"{path}.min", "required when validRange is defined")]
    parse = quantity.parse
    errors: list[FieldError] = []

    def refuse(field: str, value: str, detail: str) -> None:
        errors.append(FieldError.invalid(f"{path}.{field}", value, detail))

    if parse(low) > parse(most):
        refuse("min", low, f"min is larger than capacity value: {most}")
    if parse(default) < parse(low):
        refuse("min", default, f"default is less than min: {low}")
    if high is not None:
        if parse(low) > parse(high):
            refuse("max", low, f"min is larger than max: {high}")
        if parse(high) > parse(most):
            refuse("max", high, f"max is larger than capacity value: {most}")
        if parse(default) > parse(high):
            refuse("max", default, f"default is more than max: {high}")
    if step is not None:
        if parse(low) + parse(step) > parse(most):
            added = quantity.canonical(str(quantity.value(low) + quantity.value(step)))
            refuse("step", step, f"one step {added} is larger than capacity value: {most}")
        for value in (default, high):
            # Upstream divides; a step of zero divides nothing.
            size = quantity.value(step)
            if value is not None and (size == 0 or (quantity.value(value) - quantity.value(low)) % size):
                refuse("step", value, f"value is not a multiple of a given step ({step}) from ({low})")
    return errors


def _taint(taint: Obj, path: str) -> list[FieldError]:
    errors = check_label_name(f"{path}.key", taint.get("key") or "")
    if value := taint.get("value"):
        errors += invalid_each(f"{path}.value", value, names.label_value(value))
    effect = taint.get("effect") or ""
    if not effect:
        errors.append(FieldError.required(f"{path}.effect"))
    elif effect not in EFFECTS:
        errors.append(FieldError.not_supported(f"{path}.effect", effect, EFFECTS))
    return errors


def _counter_set(found: Obj, path: str) -> list[FieldError]:
    return _counters(found, "name", path)


def _consumption(found: Obj, path: str) -> list[FieldError]:
    return _counters(found, "counterSet", path)


def _counters(found: Obj, name: str, path: str) -> list[FieldError]:
    """A set of counters, or what a device takes of one; `name` is the field that names the set."""
    own, counters = found.get(name) or "", found.get("counters") or {}
    errors = check_label(own, f"{path}.{name}") if own else [FieldError.required(f"{path}.{name}")]
    if not counters:
        return [*errors, FieldError.required(f"{path}.counters")]
    return errors + _check_map(counters, COUNTERS, 63, check_label, lambda item, at: [], f"{path}.counters")
