"""Rows of services and their endpoints, and of the networking group."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from apiserver.tables.columns import Object, Printer, printer
from apiserver.tables.durations import age
from apiserver.tables.texts import (
    NONE,
    UNSET,
    cut,
    items,
    label_selector,
    labels,
    mapping,
    name,
    name_with_default,
    number,
    part,
    text,
)

_SHOWN = 3
_DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"


def service(obj: Object, now: datetime) -> list[Any]:
    spec = mapping(obj, "spec")
    addresses = items(spec, "clusterIPs")
    return [
        name(obj),
        text(spec, "type"),
        addresses[0] if addresses else NONE,
        external_ip(obj),
        ",".join(_service_port(port) for port in items(spec, "ports")) or NONE,
        age(obj, now),
        labels(mapping(spec, "selector")),
    ]


def _service_port(port: Any) -> str:
    node_port = number(port, "nodePort")
    shown = f"{number(port, 'port')}:{node_port}" if node_port else str(number(port, "port"))
    return f"{shown}/{text(port, 'protocol')}"


def external_ip(obj: Object) -> str:
    external = list(map(str, items(obj, "spec", "externalIPs")))
    match text(obj, "spec", "type"):
        case "ClusterIP" | "NodePort":
            return ",".join(external) or NONE
        case "LoadBalancer":
            balancer = load_balancer(obj)
            return ",".join([*([balancer] if balancer else []), *external]) or "<pending>"
        case "ExternalName":
            return text(obj, "spec", "externalName")
    return "<unknown>"


def load_balancer(obj: Object) -> str:
    """Addresses that a load balancer was given, sorted and without repetition."""
    ingress = items(obj, "status", "loadBalancer", "ingress")
    return ",".join(sorted({shown for entry in ingress if (shown := text(entry, "ip") or text(entry, "hostname"))}))


def endpoints(obj: Object, now: datetime) -> list[Any]:
    subsets = items(obj, "subsets")
    found = []
    for subset in subsets:
        addresses = [text(address, "ip") for address in items(subset, "addresses")]
        ports = items(subset, "ports")
        found += [_joined(ip, number(port, "port")) for port in ports for ip in addresses] if ports else addresses
    return [name(obj), cut(found, _SHOWN) if subsets else NONE, age(obj, now)]


def _joined(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def endpoint_slice(obj: Object, now: datetime) -> list[Any]:
    ports = []
    for port in items(obj, "ports"):
        known = part(port, "port")
        ports.append(str(known) if known is not None else text(port, "name") or "*")
    addresses = [address for endpoint in items(obj, "endpoints") for address in map(str, items(endpoint, "addresses"))]
    return [
        name(obj),
        text(obj, "addressType"),
        cut(ports, _SHOWN) or UNSET,
        cut(addresses, _SHOWN) or UNSET,
        age(obj, now),
    ]


def ingress(obj: Object, now: datetime) -> list[Any]:
    hosts = [host for rule in items(obj, "spec", "rules") if (host := text(rule, "host"))]
    return [
        name(obj),
        text(obj, "spec", "ingressClassName") or NONE,
        cut(hosts, _SHOWN) or "*",
        load_balancer(obj),
        "80, 443" if items(obj, "spec", "tls") else "80",
        age(obj, now),
    ]


def ingress_class(obj: Object, now: datetime) -> list[Any]:
    parameters = mapping(obj, "spec", "parameters")
    shown = NONE
    if parameters:
        group = text(parameters, "apiGroup")
        kind = text(parameters, "kind") + (f".{group}" if group else "")
        shown = f"{kind}/{text(parameters, 'name')}"
    return [name_with_default(obj, _DEFAULT_CLASS), text(obj, "spec", "controller"), shown, age(obj, now)]


def network_policy(obj: Object, now: datetime) -> list[Any]:
    return [name(obj), label_selector(mapping(obj, "spec", "podSelector")), age(obj, now)]


def ip_address(obj: Object, now: datetime) -> list[Any]:
    parent = mapping(obj, "spec", "parentRef")
    return [
        name(obj),
        "/".join((text(parent, "resource"), text(parent, "namespace"), text(parent, "name"))) if parent else NONE,
    ]


def service_cidr(obj: Object, now: datetime) -> list[Any]:
    return [name(obj), ",".join(map(str, items(obj, "spec", "cidrs"))), age(obj, now)]


PRINTERS: dict[tuple[str, str], Printer] = {
    ("", "services"): printer("Type, Cluster-IP, External-IP, Port(s), Age, Selector+", service),
    ("", "endpoints"): printer("Endpoints, Age", endpoints),
    ("discovery.k8s.io", "endpointslices"): printer("AddressType, Ports, Endpoints, Age", endpoint_slice),
    ("networking.k8s.io", "ingresses"): printer("Class, Hosts, Address, Ports, Age", ingress),
    ("networking.k8s.io", "ingressclasses"): printer("Controller, Parameters, Age", ingress_class),
    ("networking.k8s.io", "networkpolicies"): printer("Pod-Selector, Age", network_policy),
    ("networking.k8s.io", "ipaddresses"): printer("ParentRef", ip_address),
    ("networking.k8s.io", "servicecidrs"): printer("CIDRs, Age", service_cidr),
}
