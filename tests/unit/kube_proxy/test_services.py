"""Which endpoints a Service port may use."""

from __future__ import annotations

from typing import Any

import pytest

from kube_proxy.objects import (
    AffinityConfig,
    ClientIP,
    Conditions,
    EndpointSlice,
    Ingress,
    LoadBalancer,
    Metadata,
    Port,
    Service,
    ServiceSpec,
    ServiceStatus,
    SliceEndpoint,
    SlicePort,
)
from kube_proxy.rules import Endpoint
from kube_proxy.services import candidates_of, is_proxied, ports_of, sources_of
from kube_proxy.topology import Place, usable


def endpoints_of(slices: list[EndpointSlice], port: Port, node: str, zone: str = "") -> tuple[Endpoint, ...]:
    return usable(candidates_of(slices, port, node), Place(node, zone))


def endpoint(ip: str, *, ready: bool | None = True, serving: bool = True, terminating: bool = False) -> SliceEndpoint:
    return SliceEndpoint([ip], Conditions(ready, serving, terminating), "worker-1")


def slice_of(*endpoints: SliceEndpoint, port: SlicePort | None = None, family: str = "IPv4") -> EndpointSlice:
    return EndpointSlice(Metadata("web-x", "default"), family, list(endpoints), [port or SlicePort("", "TCP", 8080)])


READY, DRAINING = endpoint("10.0.0.1"), endpoint("10.0.0.2", ready=False, terminating=True)
BROKEN = endpoint("10.0.0.3", ready=False, serving=False)
UNKNOWN = endpoint("10.0.0.4", ready=None)


@pytest.mark.parametrize(
    ("slices", "ips"),
    [
        pytest.param([], [], id="no slice"),
        pytest.param([slice_of(READY, DRAINING, BROKEN)], ["10.0.0.1"], id="ready ones only"),
        pytest.param([slice_of(DRAINING, BROKEN)], ["10.0.0.2"], id="draining ones when none is ready"),
        pytest.param([slice_of(BROKEN)], [], id="never broken ones"),
        pytest.param([slice_of(UNKNOWN)], ["10.0.0.4"], id="unknown counts as ready"),
        pytest.param([slice_of(READY), slice_of(READY)], ["10.0.0.1"], id="told twice, used once"),
        pytest.param([slice_of(READY, family="IPv6")], [], id="other family"),
        pytest.param([slice_of(READY, port=SlicePort("admin", "TCP", 9))], [], id="other port name"),
        pytest.param([slice_of(READY, port=SlicePort("", "UDP", 9))], [], id="other protocol"),
    ],
)
def test_endpoints(slices: list[EndpointSlice], ips: list[str]) -> None:
    assert [each.ip for each in endpoints_of(slices, Port(80), "")] == ips


@pytest.mark.parametrize(
    ("spec", "labels", "proxied"),
    [
        pytest.param(ServiceSpec(clusterIP="10.96.0.1"), {}, True, id="cluster ip"),
        pytest.param(ServiceSpec(clusterIP="None"), {}, False, id="headless"),
        pytest.param(ServiceSpec(type="ExternalName"), {}, False, id="external name"),
        pytest.param(
            ServiceSpec(clusterIP="10.96.0.1"), {"service.kubernetes.io/service-proxy-name": "x"}, False, id="foreign"
        ),
    ],
)
def test_proxied(spec: ServiceSpec, labels: dict[str, str], proxied: bool) -> None:
    assert is_proxied(Service(Metadata("web", "default", labels), spec)) is proxied


@pytest.mark.parametrize(
    ("ranges", "sources"),
    [
        pytest.param(["10.0.0.0/8", "10.1.0.0/16"], ("10.0.0.0/8",), id="one in another"),
        pytest.param([" 10.0.0.5/8"], ("10.0.0.0/8",), id="a host of it"),
        pytest.param(["fd00::/8", "x"], (), id="none of this family"),
        pytest.param(["10.0.0.0/9", "10.128.0.0/9"], ("10.0.0.0/8",), id="neighbours"),
    ],
)
def test_source_ranges_never_overlap(ranges: list[str], sources: tuple[str, ...]) -> None:
    assert sources_of(ranges) == sources


def test_source_ranges_close_the_balancers_address_and_no_other() -> None:
    spec = ServiceSpec(
        type="LoadBalancer",
        clusterIP="10.96.0.1",
        externalIPs=["1.1.1.1"],
        ports=[Port(80)],
        loadBalancerSourceRanges=["192.0.2.0/24"],
    )
    balancer = LoadBalancer([Ingress("10.251.0.1"), Ingress("10.251.0.2", "Proxy")])
    service = Service(Metadata("web", "default"), spec, ServiceStatus(balancer))
    (port,) = ports_of(service, [slice_of(endpoint("10.244.0.2"))], Place()).values()
    assert port.external_ips == ("1.1.1.1", "10.251.0.1")
    assert (port.restricted_ips, port.sources) == (("10.251.0.1",), ("192.0.2.0/24",))


def test_affinity_and_node_port_reach_the_rules() -> None:
    spec = ServiceSpec(
        clusterIP="10.96.0.1",
        ports=[Port(80, nodePort=30080)],
        sessionAffinity="ClientIP",
        sessionAffinityConfig=AffinityConfig(ClientIP(60)),
    )
    (port,) = ports_of(Service(Metadata("web", "default"), spec), [slice_of(READY)], Place("worker-1")).values()
    assert (port.affinity_seconds, port.node_port, port.endpoints[0].local) == (60, 30080, True)


def test_addresses_of_another_family_stay_out_of_the_table() -> None:
    spec = ServiceSpec(clusterIP="10.96.0.1", externalIPs=["2001:db8::1", "192.0.2.1"], ports=[Port(80)])
    found = ports_of(Service(Metadata("web", "default"), spec), [], Place())
    assert [each.external_ips for each in found.values()] == [("192.0.2.1",)]
    assert not is_proxied(Service(Metadata("web", "default"), ServiceSpec(clusterIP="fd00::1")))
    assert endpoints_of([slice_of(endpoint("fd00::2"))], Port(80), "") == ()


@pytest.mark.parametrize(
    ("spec", "node", "flags"),
    [
        pytest.param({}, "worker-1", (False, False), id="cluster"),
        pytest.param({"internalTrafficPolicy": "Local"}, "worker-1", (True, False), id="internal"),
        pytest.param({"externalTrafficPolicy": "Local"}, "worker-1", (False, True), id="external"),
        pytest.param(
            {"internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local"}, "", (False, False), id="the host"
        ),
    ],
)
def test_traffic_policies(spec: dict[str, Any], node: str, flags: tuple[bool, bool]) -> None:
    service = Service(Metadata("web", "default"), ServiceSpec(clusterIP="10.96.0.1", ports=[Port(80)], **spec))
    (found,) = ports_of(service, [slice_of(READY)], Place(node)).values()
    assert (found.internal_local, found.external_local) == flags
    assert bool(found.local_endpoints) == any(flags)
