"""Services: types, ports, addresses, traffic policies; what each type needs.

Called by the service strategy.
"""

from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.address_warnings import cidr_form, ip_form
from apiserver.registry.validation.endpoints import reserved_address
from apiserver.registry.validation.fields import (
    check_enum,
    check_port_or_name,
    check_range,
    invalid_each,
    unsupported,
)
from apiserver.registry.validation.metadata import validate_labels
from machinery.field_errors import FieldError

Obj = dict[str, Any]

_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_FAMILIES = ("IPv4", "IPv6")
_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
_DISTRIBUTIONS = ("PreferClose", "PreferSameNode", "PreferSameZone")
_NOT_EXTERNAL = "may not be set for ExternalName services"
_ONCE = "may not change once set"
_TOPOLOGY_MODE = "service.kubernetes.io/topology-mode"
_TOPOLOGY_HINTS = "service.kubernetes.io/topology-aware-hints"
_SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
_ONLY_BALANCER = "may only be used when `type` is 'LoadBalancer'"


def needs_address(spec: Obj) -> bool:
    """All types but ExternalName have cluster IPs (or `None`)."""
    return spec.get("type") in ("ClusterIP", "NodePort", "LoadBalancer")


def is_headless(spec: Obj) -> bool:
    """clusterIP None."""
    return spec.get("clusterIP") == "None" or (spec.get("clusterIPs") or [None])[0] == "None"


def needs_node_ports(spec: Obj) -> bool:
    """NodePort, and LoadBalancer unless it declines them."""
    kind = spec.get("type")
    return kind == "NodePort" or (kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False)


def needs_health_port(spec: Obj) -> bool:
    """A load balancer that keeps traffic on the node."""
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def validate_service(obj: Obj) -> list[FieldError]:
    """v1 Service."""
    spec = obj.get("spec") or {}
    kind = spec.get("type")
    if faults := _validate_addresses(spec):
        return faults  # upstream allocates first, and allocates nothing for these
    headless = is_headless(spec)
    errors = _validate_topology(obj["metadata"].get("annotations") or {})
    ports = spec.get("ports") or []
    if not ports and not headless and kind != "ExternalName":
        errors.append(FieldError.required("spec.ports"))
    if headless and kind in ("LoadBalancer", "NodePort"):
        detail = f"may not be set to 'None' for {kind} services"
        errors.append(FieldError.invalid("spec.clusterIPs[0]", "None", detail))
    if kind == "ExternalName":
        errors += _validate_external(spec)
    errors += _validate_ports(ports, headless)
    if selector := spec.get("selector"):
        errors += validate_labels(selector, "spec.selector")
    errors += _validate_affinity(spec)
    for index, address in enumerate(spec.get("externalIPs") or ()):
        path = f"spec.externalIPs[{index}]"
        texts = names.ip(address)
        errors += invalid_each(path, address, texts) if texts else reserved_address(path, address)
    errors += check_enum("spec.type", kind, _TYPES, required=True)
    errors += _validate_node_ports(spec, ports)
    errors += _validate_source_ranges(obj["metadata"].get("annotations") or {}, spec)
    return errors + _validate_traffic(spec)


def _validate_topology(annotations: Obj) -> list[FieldError]:
    """The annotation and its forerunner tell the same."""
    mode, hints = annotations.get(_TOPOLOGY_MODE), annotations.get(_TOPOLOGY_HINTS)
    if mode is None or hints is None or mode == hints:
        return []
    detail = f"must match annotations[{_TOPOLOGY_HINTS}] when both are specified"
    return [FieldError.invalid(f"metadata.annotations[{_TOPOLOGY_MODE}]", mode, detail)]


def _validate_source_ranges(annotations: Obj, spec: Obj) -> list[FieldError]:
    """Of load balancers only; the annotation counts where the field is not set. Blanks around ranges are allowed."""
    if ranges := spec.get("loadBalancerSourceRanges"):
        path = "spec.LoadBalancerSourceRanges"
        given = [(f"{path}[{index}]", cidr) for index, cidr in enumerate(ranges)]
    elif _SOURCE_RANGES in annotations:
        path = f"metadata.annotations[{_SOURCE_RANGES}]"
        given = [(path, cidr) for cidr in annotations[_SOURCE_RANGES].split(",")]
        given = given if annotations[_SOURCE_RANGES].strip() else []
    else:
        return []
    errors = [] if spec.get("type") == "LoadBalancer" else [FieldError.forbidden(path, _ONLY_BALANCER)]
    for where, cidr in given:
        errors += invalid_each(where, cidr.strip(), names.cidr(cidr.strip()))
    return errors


def _validate_external(spec: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    if spec.get("clusterIPs"):
        errors.append(FieldError.forbidden("spec.clusterIPs", _NOT_EXTERNAL))
    for field in ("ipFamilies", "ipFamilyPolicy"):
        if spec.get(field):
            errors.append(FieldError.forbidden(f"spec.{field}", _NOT_EXTERNAL))
    name = (spec.get("externalName") or "").removesuffix(".")
    if not name:
        errors.append(FieldError.required("spec.externalName"))
    else:
        errors += invalid_each("spec.externalName", name, names.dns_subdomain(name))
    return errors


def _validate_ports(ports: list[Obj], headless: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    pairs: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        path = f"spec.ports[{index}]"
        name = port.get("name") or ""
        if not name:
            if len(ports) > 1:
                errors.append(FieldError.required(f"{path}.name"))
        else:
            errors += invalid_each(f"{path}.name", name, names.dns_label(name))
            if name in seen:
                errors.append(FieldError.duplicate(f"{path}.name", name))
            seen.add(name)
        number = port.get("port") or 0
        errors += invalid_each(f"{path}.port", number, names.port_number(number))
        errors += check_enum(f"{path}.protocol", port.get("protocol"), _PROTOCOLS, required=True)
        errors += check_port_or_name(f"{path}.targetPort", port.get("targetPort"))
        if (protocol := port.get("appProtocol")) is not None:
            errors += invalid_each(f"{path}.appProtocol", protocol, names.qualified_name(protocol))
        pair = (port.get("protocol"), number)
        if pair in pairs:
            shown = {
                "Name": "",
                "Protocol": pair[0],
                "AppProtocol": None,
                "Port": number,
                "TargetPort": 0,
                "NodePort": 0,
            }
            errors.append(FieldError.duplicate(path, shown))
        pairs.add(pair)
    return errors


def _validate_affinity(spec: Obj) -> list[FieldError]:
    affinity = spec.get("sessionAffinity")
    errors = check_enum("spec.sessionAffinity", affinity, ("ClientIP", "None"), required=True)
    path = "spec.sessionAffinityConfig"
    config = spec.get("sessionAffinityConfig")
    detail = "when session affinity type is ClientIP"
    if affinity == "ClientIP":
        client = (config or {}).get("clientIP")
        seconds = (client or {}).get("timeoutSeconds")
        if config is None:
            errors.append(FieldError.required(path, detail))
        elif client is None:
            errors.append(FieldError.required(f"{path}.clientIP", detail))
        elif seconds is None:
            errors.append(FieldError.required(f"{path}.clientIP.timeoutSeconds", detail))
        elif not 0 < seconds <= 86400:
            detail = "must be greater than 0 and less than 86400"
            errors.append(FieldError.invalid(f"{path}.clientIP.timeoutSeconds", seconds, detail))
    elif affinity == "None" and config is not None:
        errors.append(FieldError.forbidden(path, "must not be set when session affinity is None"))
    return errors


def _validate_addresses(spec: Obj) -> list[FieldError]:
    """clusterIP, clusterIPs, ipFamilies and ipFamilyPolicy: each, and how they fit together."""
    path, address, addresses = "spec.clusterIPs", spec.get("clusterIP"), spec.get("clusterIPs") or []
    if spec.get("type") == "ExternalName":
        return []
    errors: list[FieldError] = []
    if address and not addresses:
        errors.append(FieldError.required(path))
    elif addresses and not address:
        errors.append(FieldError.invalid(path, addresses, "must be empty when `clusterIP` is not specified"))
    elif addresses and addresses[0] != address:
        errors.append(FieldError.invalid(path, addresses, "first value must match `clusterIP`"))
    families = spec.get("ipFamilies") or []
    for index, family in enumerate(families):
        if family not in _FAMILIES:
            errors.append(unsupported(f"spec.ipFamilies[{index}]", family, _FAMILIES))
        if family in families[:index]:
            errors.append(FieldError.duplicate(f"spec.ipFamilies[{index}]", family))
    policy = spec.get("ipFamilyPolicy")
    if policy is not None and policy not in _POLICIES:
        errors.append(unsupported("spec.ipFamilyPolicy", policy, _POLICIES))
    faulty = False
    for index, value in enumerate(addresses):
        if index == 0 and value == "None":
            if len(addresses) > 1:
                faulty = True
                errors.append(FieldError.invalid(path, addresses, "'None' must be the first and only value"))
        elif texts := names.ip(value):
            faulty = True
            errors += invalid_each(f"{path}[{index}]", value, texts)
    if len(addresses) > 2:
        errors.append(FieldError.invalid(path, addresses, "may only hold up to 2 values"))
    if faulty:
        return errors
    kinds = ["IPv6" if ":" in value else "IPv4" for value in addresses]
    if len(addresses) > 1 and len(set(kinds)) < 2:
        errors.append(FieldError.invalid(path, addresses, "may specify no more than one IP for each IP family"))
    if not is_headless(spec):
        errors += [
            FieldError.invalid(
                f"{path}[{index}]", value, f"expected an {family} value as indicated by `ipFamilies[{index}]`"
            )
            for index, (value, kind, family) in enumerate(zip(addresses, kinds, families, strict=False))
            if family in _FAMILIES and family != kind
        ]
    return errors


def _validate_node_ports(spec: Obj, ports: list[Obj]) -> list[FieldError]:
    errors: list[FieldError] = []
    if spec.get("type") == "ClusterIP":
        errors += [
            FieldError.forbidden(f"spec.ports[{index}].nodePort", "may not be used when `type` is 'ClusterIP'")
            for index, port in enumerate(ports)
            if port.get("nodePort")
        ]
    seen: set[tuple[Any, int]] = set()
    for index, port in enumerate(ports):
        # Where ports are allocated, that tells: upstream does it first.
        if (number := port.get("nodePort")) and not needs_node_ports(spec):
            if (port.get("protocol"), number) in seen:
                errors.append(FieldError.duplicate(f"spec.ports[{index}].nodePort", number))
            seen.add((port.get("protocol"), number))
    return errors


def _validate_traffic(spec: Obj) -> list[FieldError]:
    kind = spec.get("type")
    errors: list[FieldError] = []
    if kind != "LoadBalancer":
        for field in ("allocateLoadBalancerNodePorts", "loadBalancerClass"):
            if spec.get(field) is not None:
                errors.append(FieldError.forbidden(f"spec.{field}", _ONLY_BALANCER))
    elif (balancer := spec.get("loadBalancerClass")) is not None:
        errors += invalid_each("spec.loadBalancerClass", balancer, names.qualified_name(balancer))
    external = spec.get("externalTrafficPolicy")
    accessible = kind in ("NodePort", "LoadBalancer") or bool(spec.get("externalIPs"))
    if external and not accessible:
        detail = "may only be set for externally-accessible services"
        errors.append(FieldError.invalid("spec.externalTrafficPolicy", external, detail))
    elif accessible:
        errors += check_enum("spec.externalTrafficPolicy", external, ("Cluster", "Local"), required=True)
    health = spec.get("healthCheckNodePort")
    if health and not needs_health_port(spec):
        detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        errors.append(FieldError.invalid("spec.healthCheckNodePort", health, detail))
    internal = spec.get("internalTrafficPolicy")
    if internal is None and needs_address(spec):
        errors.append(FieldError.required("spec.internalTrafficPolicy"))
    elif internal is not None and internal not in ("Cluster", "Local"):
        errors.append(unsupported("spec.internalTrafficPolicy", internal, ("Cluster", "Local")))
    distribution = spec.get("trafficDistribution")
    if distribution is not None and distribution not in _DISTRIBUTIONS:
        errors.append(unsupported("spec.trafficDistribution", distribution, _DISTRIBUTIONS))
    return errors


def validate_service_update(new: Obj, old: Obj) -> list[FieldError]:
    """Addresses and the load balancer class are set once."""
    after, before = new["spec"], old["spec"]
    errors: list[FieldError] = []
    if needs_address(after) and needs_address(before):
        errors += _validate_address_change(after, before) + _validate_family_change(after, before)
    if before.get("type") == after.get("type") == "LoadBalancer":
        balancer = after.get("loadBalancerClass")
        if balancer != before.get("loadBalancerClass"):
            errors.append(FieldError.invalid("spec.loadBalancerClass", balancer, _ONCE))
    both = needs_health_port(before) and needs_health_port(after)
    if both and after.get("healthCheckNodePort") != before.get("healthCheckNodePort"):
        errors.append(FieldError.forbidden("spec.healthCheckNodePort", "field is immutable"))
    return errors + validate_service(new)


def _validate_address_change(after: Obj, before: Obj) -> list[FieldError]:
    """A second address may come and, where the policy says so, go."""
    if is_headless(after) and is_headless(before):
        return []
    new, old, path = after.get("clusterIPs") or [], before.get("clusterIPs") or [], "spec.clusterIPs"
    if len(new) == len(old):
        return [
            FieldError.invalid(f"{path}[{index}]", new, _ONCE)
            for index, (address, was) in enumerate(zip(new, old, strict=True))
            if address != was
        ]
    if not new:
        return [FieldError.invalid(f"{path}[0]", None, "primary clusterIP can not be unset")]
    errors = [FieldError.invalid(f"{path}[0]", new, _ONCE)] if old and new[0] != old[0] else []
    if len(old) > len(new) == 1:
        errors += _single_stack(after, "clusterIP")
    return errors


def _validate_family_change(after: Obj, before: Obj) -> list[FieldError]:
    if is_headless(after) or is_headless(before):
        return []
    new, old, path = after.get("ipFamilies") or [], before.get("ipFamilies") or [], "spec.ipFamilies[0]"
    if len(new) == len(old):
        changed = sum(family != was for family, was in zip(new, old, strict=True))
        return [FieldError.invalid(path, new, _ONCE)] * changed
    errors: list[FieldError] = []
    if len(old) > len(new) and not after.get("clusterIPs"):
        errors.append(FieldError.invalid(path, new or None, "primary ipFamily can not be unset"))
    if new and old and new[0] != old[0]:
        errors.append(FieldError.invalid(path, after.get("clusterIPs"), _ONCE))
    if len(old) > len(new) == 1:
        errors += _single_stack(after, "ipFamily")
    return errors


def _single_stack(spec: Obj, what: str) -> list[FieldError]:
    policy = spec.get("ipFamilyPolicy")
    if policy == "SingleStack":
        return []
    detail = f"must be set to 'SingleStack' when releasing the secondary {what}"
    return [FieldError.invalid("spec.ipFamilyPolicy", policy, detail)]


def validate_service_status(new: Obj, old: Obj) -> list[FieldError]:
    """Addresses of the load balancer."""
    ingress = ((new.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    path = "status.loadBalancer.ingress"
    if ingress and (new.get("spec") or {}).get("type") != "LoadBalancer":
        return [FieldError.forbidden(path, "may only be used when `spec.type` is 'LoadBalancer'")]
    return validate_balancer(ingress, path)


def validate_balancer(ingress: list[Obj], path: str) -> list[FieldError]:
    """Where a load balancer answers; services and ingresses share this."""
    errors: list[FieldError] = []
    for index, point in enumerate(ingress):
        at = f"{path}[{index}]"
        if address := point.get("ip"):
            errors += invalid_each(f"{at}.ip", address, names.ip(address))
        if mode := point.get("ipMode"):
            if not point.get("ip"):
                errors.append(FieldError.forbidden(f"{at}.ipMode", "may not be specified when `ip` is not set"))
            elif mode not in ("Proxy", "VIP"):
                errors.append(unsupported(f"{at}.ipMode", mode, ("Proxy", "VIP")))
        if hostname := point.get("hostname"):
            errors += invalid_each(f"{at}.hostname", hostname, names.dns_subdomain(hostname))
            if not names.ip(hostname):
                errors.append(FieldError.invalid(f"{at}.hostname", hostname, "must be a DNS name, not an IP address"))
        for position, port in enumerate(point.get("ports") or ()):
            errors += check_range(f"{at}.ports[{position}].port", port.get("port"), 1, 65535)
    return errors


def service_warnings(obj: Obj, old: Obj | None) -> list[str]:
    """Fields that do nothing, are on their way out or are oddly written."""
    spec = obj.get("spec") or {}
    kind, outer = spec.get("type"), spec.get("externalIPs") or []
    headless = kind == "ClusterIP" and spec.get("clusterIP") == "None"
    found: list[str] = []
    if _TOPOLOGY_HINTS in (obj["metadata"].get("annotations") or {}):
        found.append(f"annotation {_TOPOLOGY_HINTS} is deprecated, please use {_TOPOLOGY_MODE} instead")
    if spec.get("clusterIP") not in (None, "", "None"):
        for index, address in enumerate(spec.get("clusterIPs") or ()):
            found += ip_form(f"spec.clusterIPs[{index}]", address)
    if headless:
        if spec.get("loadBalancerIP"):
            found.append("spec.loadBalancerIP is ignored for headless services")
        if outer:
            found.append("spec.externalIPs is ignored for headless services")
        if spec.get("sessionAffinity") not in (None, "None"):
            found.append("spec.SessionAffinity is ignored for headless services")
    for index, address in enumerate(outer):
        found += ip_form(f"spec.externalIPs[{index}]", address)
    if outer and not headless and kind != "ExternalName":
        found.append("spec.externalIPs is deprecated and may no longer be implemented in some clusters")
    if address := spec.get("loadBalancerIP"):
        found += ip_form("spec.loadBalancerIP", address)
    for index, block in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        found += cidr_form(f"spec.loadBalancerSourceRanges[{index}]", block)
    if kind == "ExternalName" and outer:
        found.append('spec.externalIPs is ignored when spec.type is "ExternalName"')
    if kind != "ExternalName" and spec.get("externalName"):
        found.append('spec.externalName is ignored when spec.type is not "ExternalName"')
    if spec.get("trafficDistribution") == "PreferClose":
        found.append('spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"')
    return found
