"""Config maps, secrets, nodes, events, leases, priority and runtime classes.

Called by the rules of those kinds in the strategy table. `MAX_DATA` bounds what a config map or secret may hold.
"""

import base64
import binascii
import json
from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.fields import (
    check_enum,
    check_immutable,
    check_not_negative,
    duplicate,
    invalid_each,
    unsupported,
)
from apiserver.registry.validation.metadata import validate_annotations, validate_labels
from apiserver.registry.validation.resources import check_quantity, check_resource_name
from apiserver.registry.validation.scheduling import TAINT_EFFECTS, validate_tolerations
from machinery.field_errors import FieldError

Obj = dict[str, Any]
MAX_DATA = 1024 * 1024
_FROZEN = "field is immutable when `immutable` is set"


def _decoded_size(text: str) -> int:
    return len(text) * 3 // 4 - text.count("=", -2)


def validate_config_map(obj: Obj) -> list[FieldError]:
    """Keys are file names, unique over both maps; at most 1 MiB in all."""
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    errors: list[FieldError] = []
    size = 0
    for key, value in data.items():
        if texts := names.config_key(key):
            errors += invalid_each(f"data[{key}]", key, texts)
        if key in binary:
            errors.append(FieldError.invalid(f"data[{key}]", key, "duplicate of key present in binaryData"))
        # Fewer characters than a quarter of the limit cannot be more bytes than the limit.
        size += len(value) if len(value) < 64 or value.isascii() else len(value.encode())
    for key, value in binary.items():
        if texts := names.config_key(key):
            errors += invalid_each(f"binaryData[{key}]", key, texts)
        size += _decoded_size(value)
    if size > MAX_DATA:
        errors.append(FieldError.too_long("[]", MAX_DATA))
    return errors


def _validate_frozen(new: Obj, old: Obj, fields: tuple[str, ...]) -> list[FieldError]:
    if not old.get("immutable"):
        return []
    errors: list[FieldError] = []
    if not new.get("immutable"):
        errors.append(FieldError.forbidden("immutable", _FROZEN))
    errors += [
        FieldError.forbidden(field, _FROZEN) for field in fields if (new.get(field) or None) != (old.get(field) or None)
    ]
    return errors


def validate_config_map_update(new: Obj, old: Obj) -> list[FieldError]:
    """Immutable ones keep their data."""
    return _validate_frozen(new, old, ("data", "binaryData")) + validate_config_map(new)


_REQUIRED_KEYS: dict[str, tuple[str, ...]] = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
}
_JSON_KEYS = {"kubernetes.io/dockercfg": ".dockercfg", "kubernetes.io/dockerconfigjson": ".dockerconfigjson"}
_SERVICE_ACCOUNT = "kubernetes.io/service-account.name"


def validate_secret(obj: Obj) -> list[FieldError]:
    """Keys are file names; each well-known type has keys of its own; at most 1 MiB in all."""
    data = obj.get("data") or {}
    errors: list[FieldError] = []
    size = 0
    for key, value in data.items():
        if texts := names.config_key(key):
            errors += invalid_each(f"data[{key}]", key, texts)
        size += _decoded_size(value or "")
    if size > MAX_DATA:
        errors.append(FieldError.too_long("data", MAX_DATA))
    kind = obj.get("type") or ""
    if kind == "kubernetes.io/service-account-token":
        if not (obj["metadata"].get("annotations") or {}).get(_SERVICE_ACCOUNT):
            errors.append(FieldError.required(f"metadata.annotations[{_SERVICE_ACCOUNT}]"))
    elif kind == "kubernetes.io/ssh-auth":
        if not data.get("ssh-privatekey"):
            errors.append(FieldError.required("data[ssh-privatekey]"))
    elif kind == "kubernetes.io/basic-auth":
        if "username" not in data and "password" not in data:
            errors += [FieldError.required("data[username]"), FieldError.required("data[password]")]
    else:
        for key in _REQUIRED_KEYS.get(kind, ()):
            if key not in data:
                errors.append(FieldError.required(f"data[{key}]"))
            elif _JSON_KEYS.get(kind) == key and (problem := _json_error(data[key])):
                errors.append(FieldError.invalid(f"data[{key}]", "<secret contents redacted>", problem))
    return errors


def _json_error(encoded: str) -> str:
    try:
        raw = base64.b64decode(encoded or "").decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        return str(error)
    try:
        value = json.loads(raw)
    except json.JSONDecodeError as error:
        return _go_json_error(raw, error)
    if value is None or isinstance(value, dict):
        return ""
    kind = {bool: "bool", str: "string", list: "array"}.get(type(value), "number")
    return f"json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"


def _go_json_error(raw: str, error: json.JSONDecodeError) -> str:
    """The decoder's complaint in the words of Go's."""
    if not raw.strip():
        return "unexpected end of JSON input"
    at = error.pos
    for literal in ("null", "true", "false"):
        if raw[at : at + 1] == literal[0]:
            for offset, expected in enumerate(literal):
                found = raw[at + offset : at + offset + 1]
                if not found:
                    return "unexpected end of JSON input"
                if found != expected:
                    return f"invalid character '{found}' in literal {literal} (expecting '{expected}')"
    if at >= len(raw):
        return "unexpected end of JSON input"
    return f"invalid character '{raw[at]}' looking for beginning of value"


def validate_secret_update(new: Obj, old: Obj) -> list[FieldError]:
    """The type stays; immutable ones keep their data."""
    errors = check_immutable("type", new.get("type"), old.get("type"))
    return errors + _validate_frozen(new, old, ("data",)) + validate_secret(new)


def validate_node(obj: Obj) -> list[FieldError]:
    """Taints and pod CIDRs; capacities are quantities."""
    spec = obj.get("spec") or {}
    errors = validate_taints(spec.get("taints") or [], "metadata.taints") + _node_resources(obj)
    cidrs = spec.get("podCIDRs") or []
    for index, cidr in enumerate(cidrs):
        errors += invalid_each(f"spec.podCIDRs[{index}]", cidr, names.cidr(cidr))
    if len(cidrs) > 1:
        if len(cidrs) > 2 or len({":" in cidr for cidr in cidrs}) < len(cidrs):
            detail = "may specify no more than one CIDR for each IP family"
            errors.append(FieldError.invalid("spec.podCIDRs", cidrs, detail))
        for index, cidr in enumerate(cidrs):
            if cidr in cidrs[:index]:
                errors.append(FieldError.duplicate(f"spec.podCIDRs[{index}]", cidr))
    return errors


def _node_resources(obj: Obj) -> list[FieldError]:
    status = obj.get("status") or {}
    return [
        error
        for field in ("capacity", "allocatable")
        for name, amount in (status.get(field) or {}).items()
        for error in check_quantity(f"status.{field}.{name}", name, amount)
    ]


def validate_taints(taints: list[Obj], path: str) -> list[FieldError]:
    """Valid keys, values and effects, unique by key and effect."""
    errors: list[FieldError] = []
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(taints):
        at = f"{path}[{index}]"
        key, effect, value = taint.get("key") or "", taint.get("effect") or "", taint.get("value") or ""
        errors += invalid_each(f"{at}.key", key, names.qualified_name(key))
        if texts := names.label_value(value):
            errors.append(FieldError.invalid(f"{at}.value", value, ";".join(texts)))
        if not effect:
            errors.append(FieldError.required(f"{at}.effect"))
        elif effect not in TAINT_EFFECTS:
            errors.append(unsupported(f"{at}.effect", effect, TAINT_EFFECTS))
        if (key, effect) in seen:
            shown = {"Key": key, "Value": value, "Effect": effect, "TimeAdded": taint.get("timeAdded")}
            errors.append(duplicate(at, shown, "taints must be unique by key and effect pair"))
        seen.add((key, effect))
    return errors


def validate_node_update(new: Obj, old: Obj) -> list[FieldError]:
    """What holds for new nodes, and once more what may change."""
    return validate_node(new) + validate_node_change(new, old)


def validate_node_change(new: Obj, old: Obj) -> list[FieldError]:
    """CIDRs and the provider are set once; the rules of status writes too."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    errors = _node_resources(new)
    seen: list[Obj] = []
    for index, address in enumerate((new.get("status") or {}).get("addresses") or ()):
        if address in seen:
            shown = {"Type": address.get("type") or "", "Address": address.get("address") or ""}
            errors.append(FieldError.duplicate(f"status.addresses[{index}]", shown))
        seen.append(address)
    after, was = spec.get("podCIDRs") or [], before.get("podCIDRs") or []
    if was:
        changes = 1 if len(after) != len(was) else sum(one != other for one, other in zip(after, was, strict=True))
        detail = 'node updates may not change podCIDR except from "" to valid'
        errors += [FieldError.forbidden("spec.podCIDRs", detail)] * changes
    if before.get("providerID") and spec.get("providerID") != before["providerID"]:
        detail = 'node updates may not change providerID except from "" to valid'
        errors.append(FieldError.forbidden("spec.providerID", detail))
    errors += validate_taints(spec.get("taints") or [], "metadata.taints")
    if (spec.get("externalID") or "") != (before.get("externalID") or ""):
        errors.append(FieldError.forbidden("spec.externalID", "may not be updated"))
    return errors


def validate_lease(obj: Obj) -> list[FieldError]:
    """Positive duration, counted transitions."""
    spec = obj.get("spec") or {}
    errors: list[FieldError] = []
    duration = spec.get("leaseDurationSeconds")
    if duration is not None and duration <= 0:
        errors.append(FieldError.invalid("spec.leaseDurationSeconds", duration, "must be greater than 0"))
    transitions = spec.get("leaseTransitions")
    errors += check_not_negative("spec.leaseTransitions", transitions)
    strategy, preferred = spec.get("strategy"), spec.get("preferredHolder")
    if strategy:
        errors += invalid_each("spec.strategy", strategy, names.qualified_name(strategy))
    if preferred and not strategy:
        detail = "may only be specified if `strategy` is defined"
        errors.append(FieldError.forbidden("spec.preferredHolder", detail))
    return errors


_SYSTEM_CLASSES = {"system-node-critical": 2000001000, "system-cluster-critical": 2000000000}
_HIGHEST_USER_PRIORITY = 1_000_000_000


def validate_priority_class(obj: Obj) -> list[FieldError]:
    """System names and values are reserved."""
    name, value = obj["metadata"].get("name") or "", obj.get("value") or 0
    errors: list[FieldError] = []
    if name.startswith("system-"):
        if name not in _SYSTEM_CLASSES:
            reserved = "priority class names with 'system-' prefix are reserved for system use only. error: "
            errors.append(
                FieldError.forbidden("metadata.name", f"{reserved}{name} is not a known system priority class")
            )
    elif value > _HIGHEST_USER_PRIORITY:
        detail = f"maximum allowed value of a user defined priority is {_HIGHEST_USER_PRIORITY}"
        errors.append(FieldError.forbidden("value", detail))
    valid = ("PreemptLowerPriority", "Never")
    return errors + check_enum("preemptionPolicy", obj.get("preemptionPolicy"), valid)


def validate_priority_class_update(new: Obj, old: Obj) -> list[FieldError]:
    """Value and policy stay."""
    errors: list[FieldError] = []
    if new.get("value") != old.get("value"):
        errors.append(FieldError.forbidden("value", "may not be changed in an update."))
    return errors + check_immutable("preemptionPolicy", new.get("preemptionPolicy"), old.get("preemptionPolicy"))


def validate_runtime_class(obj: Obj) -> list[FieldError]:
    """The handler is a DNS label; overhead and scheduling as in pods."""
    handler = obj.get("handler") or ""
    errors = invalid_each("handler", handler, names.dns_label(handler))
    for name, amount in ((obj.get("overhead") or {}).get("podFixed") or {}).items():
        errors += check_resource_name(f"overhead.podFixed[{name}]", name)
        errors += check_quantity(f"overhead.podFixed[{name}]", name, amount)
    if scheduling := obj.get("scheduling"):
        errors += validate_labels(scheduling.get("nodeSelector"), "scheduling.nodeSelector")
        errors += validate_tolerations(scheduling.get("tolerations") or [], "scheduling.tolerations")
    return errors


def validate_runtime_class_update(new: Obj, old: Obj) -> list[FieldError]:
    """The handler stays."""
    return validate_runtime_class(new) + check_immutable("handler", new.get("handler"), old.get("handler"))


def validate_template_metadata(template: Obj, path: str) -> list[FieldError]:
    """Labels and annotations of an embedded object."""
    meta = template.get("metadata") or {}
    return validate_labels(meta.get("labels"), f"{path}.labels") + validate_annotations(
        meta.get("annotations"), f"{path}.annotations"
    )
