"""Ingresses, ingress classes, network policies, IP addresses and service CIDRs.

Called by the rules of those kinds in the strategy table.
"""

import ipaddress
from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.address_warnings import cidr_form
from apiserver.registry.validation.fields import (
    check_absolute_path,
    check_domain_prefixed_path,
    check_enum,
    check_immutable,
    check_label_selector,
    check_port_or_name,
    invalid_each,
    unsupported,
)
from apiserver.registry.validation.metadata import IMMUTABLE
from apiserver.registry.validation.service import validate_balancer
from machinery.field_errors import FieldError

Obj = dict[str, Any]
_PROTOCOLS = ("TCP", "UDP", "SCTP")
_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_INVALID_SEQUENCES = ("//", "/./", "/../", "%2f", "%2F")
_INVALID_SUFFIXES = ("/..", "/.")


def validate_ingress(obj: Obj, *, lenient: bool = False) -> list[FieldError]:
    """networking.k8s.io/v1 Ingress. `lenient`: names of secrets may be wrong, as they were before."""
    spec = obj.get("spec") or {}
    errors: list[FieldError] = []
    backend, rules = spec.get("defaultBackend"), spec.get("rules") or []
    if backend is not None:
        errors += _validate_backend(backend, "spec.defaultBackend")
    elif not rules:
        detail = "either `defaultBackend` or `rules` must be specified"
        errors.append(FieldError.invalid("spec", None, detail))
    for index, rule in enumerate(rules):
        errors += _validate_rule(rule, f"spec.rules[{index}]")
    for index, item in enumerate(spec.get("tls") or ()):
        for position, host in enumerate(item.get("hosts") or ()):
            check = names.wildcard_subdomain if "*" in host else names.dns_subdomain
            errors += invalid_each(f"spec.tls[{index}].hosts[{position}]", host, check(host))
        if (secret := item.get("secretName")) and not lenient:
            errors += invalid_each(f"spec.tls[{index}].secretName", secret, names.dns_subdomain(secret))
    if name := spec.get("ingressClassName"):
        errors += invalid_each("spec.ingressClassName", name, names.dns_subdomain(name))
    return errors


def validate_ingress_create(obj: Obj) -> list[FieldError]:
    """A new ingress names its class in one place only."""
    errors = validate_ingress(obj)
    annotation = (obj["metadata"].get("annotations") or {}).get("kubernetes.io/ingress.class")
    if annotation is not None and (obj.get("spec") or {}).get("ingressClassName") is not None:
        detail = "can not be set when the class field is also set"
        errors.append(FieldError.invalid("annotations.kubernetes.io/ingress.class", annotation, detail))
    return errors


def validate_ingress_update(new: Obj, old: Obj) -> list[FieldError]:
    """The same rules as at creation, but for the annotation and for what was wrong already."""
    secrets = [item.get("secretName") or "" for item in (old.get("spec") or {}).get("tls") or ()]
    return validate_ingress(new, lenient=any(names.dns_subdomain(secret) for secret in secrets if secret))


def _validate_rule(rule: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if host := rule.get("host"):
        if not names.ip(host):
            errors.append(FieldError.invalid(f"{path}.host", host, "must be a DNS name, not an IP address"))
        check = names.wildcard_subdomain if "*" in host else names.dns_subdomain
        errors += invalid_each(f"{path}.host", host, check(host))
    if (http := rule.get("http")) is not None:
        paths = http.get("paths") or []
        if not paths:
            errors.append(FieldError.required(f"{path}.http.paths"))
        for index, item in enumerate(paths):
            errors += _validate_path(item, f"{path}.http.paths[{index}]")
    return errors


def _validate_path(item: Obj, path: str) -> list[FieldError]:
    kind, value = item.get("pathType"), item.get("path") or ""
    errors: list[FieldError] = []
    if kind is None:
        return [FieldError.required(f"{path}.pathType", "pathType must be specified")]
    if kind in ("Exact", "Prefix"):
        errors += check_absolute_path(f"{path}.path", value)
        if value:
            errors += [
                FieldError.invalid(f"{path}.path", value, f"must not contain '{text}'")
                for text in _INVALID_SEQUENCES
                if text in value
            ]
            errors += [
                FieldError.invalid(f"{path}.path", value, f"cannot end with '{text}'")
                for text in _INVALID_SUFFIXES
                if value.endswith(text)
            ]
    elif kind == "ImplementationSpecific":
        if value:
            errors += check_absolute_path(f"{path}.path", value)
    else:
        errors.append(unsupported(f"{path}.pathType", kind, _PATH_TYPES))
    return errors + _validate_backend(item.get("backend") or {}, f"{path}.backend")


def _validate_backend(backend: Obj, path: str) -> list[FieldError]:
    service, resource = backend.get("service"), backend.get("resource")
    if resource is not None and service is not None:
        return [FieldError.invalid(path, "", "cannot set both resource and service backends")]
    if resource is not None:
        return _validate_reference(resource, f"{path}.resource")
    if service is None:
        return [FieldError.invalid(path, "", "resource or service backend is required")]
    errors: list[FieldError] = []
    name = service.get("name") or ""
    if not name:
        errors.append(FieldError.required(f"{path}.service.name"))
    else:
        errors += invalid_each(f"{path}.service.name", name, names.dns_label(name))
    port = service.get("port") or {}
    port_name, number = port.get("name"), port.get("number") or 0
    if port_name and number:
        errors.append(FieldError.invalid(path, "", "cannot set both port name & port number"))
    elif port_name:
        errors += invalid_each(f"{path}.service.port.name", port_name, names.port_name(port_name))
    elif number:
        errors += invalid_each(f"{path}.service.port.number", number, names.port_number(number))
    else:
        errors.append(FieldError.required(path, "port name or number is required"))
    return errors


def _validate_reference(reference: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if (group := reference.get("apiGroup")) is not None:
        errors += invalid_each(f"{path}.apiGroup", group, names.dns_subdomain(group))
    for field in ("kind", "name"):
        value = reference.get(field)
        if not value:
            errors.append(FieldError.required(f"{path}.{field}", f"{field} is required"))
        else:
            errors += invalid_each(f"{path}.{field}", value, names.path_segment(value))
    return errors


def validate_ingress_status(new: Obj, old: Obj) -> list[FieldError]:
    """Addresses of the load balancer."""
    ingress = ((new.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    return validate_balancer(ingress, "status.loadBalancer.ingress")


def ingress_warnings(obj: Obj, old: Obj | None) -> list[str]:
    """The class annotation is deprecated."""
    if old is None and "kubernetes.io/ingress.class" in (obj["metadata"].get("annotations") or {}):
        return ["annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead"]
    return []


def network_policy_warnings(obj: Obj, old: Obj | None) -> list[str]:
    """Oddly written blocks of addresses."""
    spec = obj.get("spec") or {}
    found: list[str] = []
    for field, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(field) or ()):
            for position, peer in enumerate(rule.get(peers) or ()):
                block, path = peer.get("ipBlock") or {}, f"spec.{field}[{index}].{peers}[{position}].ipBlock"
                if block:
                    found += cidr_form(f"{path}.cidr", block.get("cidr") or "")
                for place, excepted in enumerate(block.get("except") or ()):
                    found += cidr_form(f"{path}.except[{place}]", excepted)
    return found


def validate_ingress_class(obj: Obj) -> list[FieldError]:
    """The controller is a domain-prefixed path of at most 250."""
    spec = obj.get("spec") or {}
    controller = spec.get("controller") or ""
    errors: list[FieldError] = []
    if not controller:
        errors.append(FieldError.required("spec.controller"))
    else:
        if len(controller) > 250:
            errors.append(FieldError.too_long("spec.controller", 250))
        errors += check_domain_prefixed_path("spec.controller", controller)
    parameters = spec.get("parameters")
    if parameters is not None:
        errors += _validate_reference(parameters, "spec.parameters")
        scope, namespace = parameters.get("scope"), parameters.get("namespace")
        errors += check_enum("spec.parameters.scope", scope, ("Cluster", "Namespace"), required=True)
        if scope == "Namespace":
            if namespace is None:
                detail = "`parameters.scope` is set to 'Namespace'"
                errors.append(FieldError.required("spec.parameters.namespace", detail))
            else:
                errors += invalid_each("spec.parameters.namespace", namespace, names.dns_label(namespace))
        if scope == "Cluster" and namespace is not None:
            detail = "`parameters.scope` is set to 'Cluster'"
            errors.append(FieldError.forbidden("spec.parameters.namespace", detail))
    return errors


def validate_ingress_class_update(new: Obj, old: Obj) -> list[FieldError]:
    """The controller stays."""
    after, before = (new.get("spec") or {}).get("controller"), (old.get("spec") or {}).get("controller")
    return validate_ingress_class(new) + check_immutable("spec.controller", after, before)


def validate_network_policy(obj: Obj) -> list[FieldError]:
    """Selectors, peers, ports and address blocks."""
    spec = obj.get("spec") or {}
    errors = check_label_selector("spec.podSelector", spec.get("podSelector"))
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction) or ()):
            path = f"spec.{direction}[{index}]"
            for position, port in enumerate(rule.get("ports") or ()):
                errors += _validate_policy_port(port, f"{path}.ports[{position}]")
            for position, peer in enumerate(rule.get(peers) or ()):
                errors += _validate_peer(peer, f"{path}.{peers}[{position}]")
    types = spec.get("policyTypes") or []
    if len(types) > 2:
        detail = "may not specify more than two policyTypes"
        return [*errors, FieldError.invalid("spec.policyTypes", types, detail)]
    for index, kind in enumerate(types):
        if kind not in ("Ingress", "Egress"):
            errors.append(unsupported(f"spec.policyTypes[{index}]", kind, ("Ingress", "Egress")))
    return errors


def _validate_policy_port(port: Obj, path: str) -> list[FieldError]:
    protocol = port.get("protocol")
    known = protocol is None or protocol in _PROTOCOLS
    errors = [] if known else [unsupported(f"{path}.protocol", protocol, _PROTOCOLS)]
    number, end = port.get("port"), port.get("endPort")
    if number is None:
        if end is not None:
            detail = "may not be specified when `port` is not specified"
            errors.append(FieldError.invalid(f"{path}.endPort", end, detail))
        return errors
    errors += check_port_or_name(f"{path}.port", number)
    if end is not None:
        if isinstance(number, str):
            detail = "may not be specified when `port` is non-numeric"
            errors.append(FieldError.invalid(f"{path}.endPort", end, detail))
        else:
            if end < number:  # upstream shows the port here
                detail = "must be greater than or equal to `port`"
                errors.append(FieldError.invalid(f"{path}.endPort", number, detail))
            errors += invalid_each(f"{path}.endPort", end, names.port_number(end))
    return errors


def _validate_peer(peer: Obj, path: str) -> list[FieldError]:
    count = 0
    errors: list[FieldError] = []
    for field in ("podSelector", "namespaceSelector"):
        if peer.get(field) is not None:
            count += 1
            errors += check_label_selector(f"{path}.{field}", peer[field])
    if (block := peer.get("ipBlock")) is not None:
        if count:
            errors.append(FieldError.forbidden(path, "may not specify both ipBlock and another peer"))
        count += 1
        errors += _validate_block(block, f"{path}.ipBlock")
    if not count:
        errors.append(FieldError.required(path, "must specify a peer"))
    return errors


def _validate_block(block: Obj, path: str) -> list[FieldError]:
    cidr = block.get("cidr")
    if not cidr:
        return [FieldError.required(f"{path}.cidr")]
    errors = invalid_each(f"{path}.cidr", cidr, names.cidr(cidr))
    if (outer := _network(cidr)) is None:
        return errors
    for index, excepted in enumerate(block.get("except") or ()):
        at = f"{path}.except[{index}]"
        errors += invalid_each(at, excepted, names.cidr(excepted))
        if (inner := _network(excepted)) is None:
            continue
        inside = inner.version == outer.version and inner.prefixlen > outer.prefixlen
        if not inside or int(inner.network_address) & int(outer.netmask) != int(outer.network_address):
            errors.append(FieldError.invalid(at, excepted, "must be a strict subset of `cidr`"))
    return errors


def _network(cidr: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(cidr, strict=False) if "/" in cidr else None
    except ValueError:
        return None


def validate_ip_address(obj: Obj) -> list[FieldError]:
    """The parent is told; the name is the address."""
    parent = (obj.get("spec") or {}).get("parentRef")
    if parent is None:
        return [FieldError.required("spec.parentRef")]
    errors: list[FieldError] = []
    if group := parent.get("group"):
        errors += invalid_each("spec.parentRef.group", group, names.dns_subdomain(group))
    for field in ("resource", "name"):
        if not (value := parent.get(field)):
            errors.append(FieldError.required(f"spec.parentRef.{field}"))
        else:
            errors += invalid_each(f"spec.parentRef.{field}", value, names.path_segment(value))
    if namespace := parent.get("namespace"):
        errors += invalid_each("spec.parentRef.namespace", namespace, names.path_segment(namespace))
    return errors


def validate_ip_address_update(new: Obj, old: Obj) -> list[FieldError]:
    """The parent stays."""
    after, before = (new.get("spec") or {}).get("parentRef"), (old.get("spec") or {}).get("parentRef")
    if after == before:
        return validate_ip_address(new)
    parts = ("group", "resource", "namespace", "name")
    shown = None if after is None else {part.capitalize(): after.get(part) or "" for part in parts}
    return [*validate_ip_address(new), FieldError.invalid("spec.parentRef", shown, IMMUTABLE)]


def validate_service_cidr_update(new: Obj, old: Obj) -> list[FieldError]:
    """The ranges stay; one of the other family may come."""
    after, before = ((obj.get("spec") or {}).get("cidrs") or [] for obj in (new, old))
    errors = validate_service_cidr(new)
    if len(after) == len(before):
        pairs = enumerate(zip(after, before, strict=True))
        return errors + [
            FieldError.invalid(f"spec.cidrs[{i}]", cidr, IMMUTABLE) for i, (cidr, was) in pairs if cidr != was
        ]
    if len(before) == 1 and len(after) == 2:
        if after[0] != before[0]:
            errors.append(FieldError.invalid("spec.cidrs[0]", after[0], IMMUTABLE))
        return errors + validate_service_cidr(new)
    return [*errors, FieldError.invalid("spec.cidrs", after or None, IMMUTABLE)]


def validate_service_cidr(obj: Obj) -> list[FieldError]:
    """One or two ranges, one of each family."""
    ranges = (obj.get("spec") or {}).get("cidrs") or []
    if not ranges:
        return [FieldError.required("spec.cidrs", "at least one CIDR required")]
    if len(ranges) > 2:
        return [FieldError.invalid("spec.cidrs", {"CIDRs": ranges}, "may only hold up to 2 values")]
    errors = [
        error
        for index, cidr in enumerate(ranges)
        for error in invalid_each(f"spec.cidrs[{index}]", cidr, names.strict_cidr(cidr))
    ]
    networks = [network for network in map(_network, ranges) if network is not None]
    if len(networks) == 2 and networks[0].version == networks[1].version:
        detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
        errors.append(FieldError.invalid("spec.cidrs", ranges, detail))
    return errors
