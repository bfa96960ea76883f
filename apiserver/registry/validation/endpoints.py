"""Endpoints and endpoint slices. Called by the rules of those kinds in the strategy table."""

import ipaddress
from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.address_warnings import ip_form
from apiserver.registry.validation.fields import check_enum, check_immutable, invalid_each
from machinery.field_errors import FieldError

Obj = dict[str, Any]
MAX_ENDPOINTS, MAX_PORTS, MAX_ADDRESSES, MAX_HINTS = 1000, 20000, 100, 8
_PROTOCOLS = ("SCTP", "TCP", "UDP")


def reserved_address(path: str, value: str) -> list[FieldError]:
    """Addresses that can be no endpoint: unspecified, loopback, link-local."""
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return [FieldError.invalid(path, value, "must be a valid IP address")]
    errors: list[FieldError] = []
    if address.is_unspecified:
        errors.append(FieldError.invalid(path, value, f"may not be unspecified ({value})"))
    if address.is_loopback:
        detail = "may not be in the loopback range (127.0.0.0/8, ::1/128)"
        errors.append(FieldError.invalid(path, value, detail))
    if address.is_link_local:
        detail = "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
        errors.append(FieldError.invalid(path, value, detail))
    if address.is_multicast and value.startswith(("224.0.0.", "ff02:")):
        detail = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
        errors.append(FieldError.invalid(path, value, detail))
    return errors


def validate_endpoints(obj: Obj) -> list[FieldError]:
    """v1 Endpoints."""
    errors: list[FieldError] = []
    for index, subset in enumerate(obj.get("subsets") or ()):
        path = f"subsets[{index}]"
        ready, waiting = subset.get("addresses") or [], subset.get("notReadyAddresses") or []
        if not ready and not waiting:
            detail = "must specify `addresses` or `notReadyAddresses`"
            errors.append(FieldError.required(path, detail))
        for field, addresses in (("addresses", ready), ("notReadyAddresses", waiting)):
            for position, address in enumerate(addresses):
                errors += _validate_address(address, f"{path}.{field}[{position}]")
        ports = subset.get("ports") or []
        for position, port in enumerate(ports):
            errors += _validate_port(port, len(ports) > 1, f"{path}.ports[{position}]")
    return errors


def _validate_address(address: Obj, path: str) -> list[FieldError]:
    value = address.get("ip") or ""
    errors = invalid_each(f"{path}.ip", value, names.ip(value))
    if hostname := address.get("hostname"):
        errors += invalid_each(f"{path}.hostname", hostname, names.dns_label(hostname))
    if node := address.get("nodeName"):
        errors += invalid_each(f"{path}.nodeName", node, names.dns_subdomain(node))
    return errors + reserved_address(f"{path}.ip", value)


def _validate_port(port: Obj, named: bool, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    name = port.get("name") or ""
    if name:
        errors += invalid_each(f"{path}.name", name, names.dns_label(name))
    elif named:
        errors.append(FieldError.required(f"{path}.name"))
    number = port.get("port") or 0
    errors += invalid_each(f"{path}.port", number, names.port_number(number))
    errors += check_enum(f"{path}.protocol", port.get("protocol"), _PROTOCOLS, required=True)
    if (protocol := port.get("appProtocol")) is not None:
        errors += invalid_each(f"{path}.appProtocol", protocol, names.qualified_name(protocol))
    return errors


def validate_slice(obj: Obj) -> list[FieldError]:
    """discovery.k8s.io EndpointSlice."""
    kind = obj.get("addressType")
    errors: list[FieldError] = []
    if not kind:
        errors.append(FieldError.required("addressType"))
    elif kind not in ("FQDN", "IPv4", "IPv6"):
        errors += check_enum("addressType", kind, ("FQDN", "IPv4", "IPv6"))
    endpoints = obj.get("endpoints") or []
    if len(endpoints) > MAX_ENDPOINTS:
        errors.append(FieldError.too_many("endpoints", len(endpoints), MAX_ENDPOINTS))
        return errors
    for index, endpoint in enumerate(endpoints):
        errors += _validate_slice_endpoint(endpoint, kind, f"endpoints[{index}]")
    return errors + _validate_slice_ports(obj.get("ports") or [], "ports")


def _validate_slice_endpoint(endpoint: Obj, kind: Any, path: str) -> list[FieldError]:
    addresses = endpoint.get("addresses") or []
    errors: list[FieldError] = []
    if not addresses:
        errors.append(FieldError.required(f"{path}.addresses", "must contain at least 1 address"))
    elif len(addresses) > MAX_ADDRESSES:
        errors.append(FieldError.too_many(f"{path}.addresses", len(addresses), MAX_ADDRESSES))
    for index, address in enumerate(addresses):
        at = f"{path}.addresses[{index}]"
        if kind == "FQDN":
            errors += _domain_name(address, at)
        elif kind in ("IPv4", "IPv6"):
            errors += _validate_slice_address(address, kind, path, at)
    if node := endpoint.get("nodeName"):
        errors += invalid_each(f"{path}.nodeName", node, names.dns_subdomain(node))
    if hostname := endpoint.get("hostname"):
        errors += invalid_each(f"{path}.hostname", hostname, names.dns_label(hostname))
    return errors + _validate_hints(endpoint.get("hints") or {}, f"{path}.hints")


def _domain_name(name: str, path: str) -> list[FieldError]:
    """A fully qualified one, in which every label is one."""
    bare = name.removesuffix(".")
    if not name:
        return [FieldError.required(path)]
    if texts := names.dns_subdomain(bare):
        return [FieldError.invalid(path, bare, ",".join(texts))]
    if "." not in bare:
        detail = "should be a domain with at least two segments separated by dots"
        return [FieldError.invalid(path, bare, detail)]
    for label in bare.split("."):
        if texts := names.dns_label(label):
            return [FieldError.invalid(path, label, ",".join(texts))]
    return []


def _validate_hints(hints: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for field, check in (("forZones", names.label_value), ("forNodes", names.dns_subdomain)):
        given = hints.get(field) or []
        if len(given) > MAX_HINTS:
            errors.append(FieldError.too_many(f"{path}.{field}", len(given), MAX_HINTS))
            continue
        seen: set[str] = set()
        for index, each in enumerate(given):
            name, at = each.get("name") or "", f"{path}.{field}[{index}].name"
            if name in seen:
                errors.append(FieldError.duplicate(at, name))
            seen.add(name)
            errors += invalid_each(at, name, check(name))
    return errors


def _validate_slice_address(address: str, kind: str, path: str, at: str) -> list[FieldError]:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return invalid_each(at, address, names.ip(address))
    errors: list[FieldError] = []
    if parsed.version != int(kind[-1]):
        # Upstream names the list here, not its element.
        errors.append(FieldError.invalid(f"{path}.addresses", address, f"must be an {kind} address"))
    return errors + reserved_address(at, address)


def _validate_slice_ports(ports: list[Obj], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, port in enumerate(ports):
        at = f"{path}[{index}]"
        name = port.get("name") or ""
        if name:
            errors += invalid_each(f"{at}.name", name, names.dns_label(name))
        if name in seen:
            errors.append(FieldError.duplicate(f"{at}.name", name))
        seen.add(name)
        number = port.get("port")
        if number is not None and not 1 <= number <= 65535:
            errors += invalid_each(f"{at}.port", number, names.port_number(number))
        errors += check_enum(f"{at}.protocol", port.get("protocol"), _PROTOCOLS, required=True)
        if (protocol := port.get("appProtocol")) is not None:
            errors += invalid_each(f"{at}.appProtocol", protocol, names.qualified_name(protocol))
    return errors


def validate_slice_update(new: Obj, old: Obj) -> list[FieldError]:
    """The address type stays."""
    return validate_slice(new) + check_immutable("addressType", new.get("addressType"), old.get("addressType"))


def endpoints_warnings(obj: Obj, old: Obj | None) -> list[str]:
    """Oddly written addresses, unless the controller of endpoints copied them."""
    if (obj["metadata"].get("labels") or {}).get("endpoints.kubernetes.io/managed-by") == "endpoint-controller":
        return []
    return [
        text
        for index, subset in enumerate(obj.get("subsets") or ())
        for field in ("addresses", "notReadyAddresses")
        for position, address in enumerate(subset.get(field) or ())
        for text in ip_form(f"subsets[{index}].{field}[{position}].ip", address.get("ip") or "")
    ]


def endpoint_slice_warnings(obj: Obj, old: Obj | None) -> list[str]:
    """A deprecated type, and oddly written addresses unless the controller of slices copied them."""
    found: list[str] = []
    if obj.get("addressType") == "FQDN":
        if old is None:
            found.append("spec.addressType: FQDN endpoints are deprecated")
        return found
    labels = obj["metadata"].get("labels") or {}
    if labels.get("endpointslice.kubernetes.io/managed-by") != "endpointslice-controller.k8s.io":
        for index, endpoint in enumerate(obj.get("endpoints") or ()):
            for position, address in enumerate(endpoint.get("addresses") or ()):
                found += ip_form(f"endpoints[{index}].addresses[{position}]", address)
    return found
