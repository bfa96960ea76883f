"""What the proxy reads of Services, EndpointSlices and Nodes: small structs, so that caches stay small."""

from __future__ import annotations

import msgspec

from api import resources
from api.models import core_v1, discovery_v1
from client.kinds import View


class Metadata(msgspec.Struct):
    """Name and labels."""

    name: str = ""
    namespace: str = ""
    labels: dict[str, str] | None = None


class Port(msgspec.Struct):
    """core/v1 ServicePort."""

    port: int
    name: str = ""
    protocol: str = "TCP"
    nodePort: int = 0


class ClientIP(msgspec.Struct):
    """core/v1 ClientIPConfig."""

    timeoutSeconds: int = 10800


class AffinityConfig(msgspec.Struct):
    """core/v1 SessionAffinityConfig."""

    clientIP: ClientIP | None = None


class ServiceSpec(msgspec.Struct):
    """core/v1 ServiceSpec, in part."""

    type: str = "ClusterIP"
    clusterIP: str = ""
    externalIPs: list[str] | None = None
    loadBalancerSourceRanges: list[str] | None = None
    ports: list[Port] | None = None
    sessionAffinity: str = "None"
    sessionAffinityConfig: AffinityConfig | None = None
    internalTrafficPolicy: str | None = None
    externalTrafficPolicy: str | None = None
    healthCheckNodePort: int = 0


class Ingress(msgspec.Struct):
    """core/v1 LoadBalancerIngress."""

    ip: str = ""
    ipMode: str | None = None


class LoadBalancer(msgspec.Struct):
    """core/v1 LoadBalancerStatus."""

    ingress: list[Ingress] | None = None


class ServiceStatus(msgspec.Struct):
    """core/v1 ServiceStatus."""

    loadBalancer: LoadBalancer | None = None


class Service(msgspec.Struct):
    """core/v1 Service."""

    metadata: Metadata
    spec: ServiceSpec | None = None
    status: ServiceStatus | None = None


class Conditions(msgspec.Struct):
    """discovery/v1 EndpointConditions; unknown readiness counts as ready."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Hint(msgspec.Struct):
    """discovery/v1 ForZone, ForNode."""

    name: str


class Hints(msgspec.Struct):
    """discovery/v1 EndpointHints."""

    forZones: list[Hint] | None = None
    forNodes: list[Hint] | None = None


class SliceEndpoint(msgspec.Struct):
    """discovery/v1 Endpoint."""

    addresses: list[str]
    conditions: Conditions | None = None
    nodeName: str | None = None
    hints: Hints | None = None


class SlicePort(msgspec.Struct):
    """discovery/v1 EndpointPort."""

    name: str | None = None
    protocol: str | None = None
    port: int | None = None


class EndpointSlice(msgspec.Struct):
    """discovery/v1 EndpointSlice."""

    metadata: Metadata
    addressType: str = "IPv4"
    endpoints: list[SliceEndpoint] | None = None
    ports: list[SlicePort] | None = None


class NodeSpec(msgspec.Struct):
    """core/v1 NodeSpec, in part."""

    podCIDR: str = ""


class NodeAddress(msgspec.Struct):
    """core/v1 NodeAddress."""

    type: str
    address: str


class NodeStatus(msgspec.Struct):
    """core/v1 NodeStatus, in part."""

    addresses: list[NodeAddress] | None = None


class Node(msgspec.Struct):
    """core/v1 Node."""

    metadata: Metadata
    spec: NodeSpec | None = None
    status: NodeStatus | None = None


SERVICES = View(resources.of(core_v1.Service), Service)
ENDPOINT_SLICES = View(resources.of(discovery_v1.EndpointSlice), EndpointSlice)
NODES = View(resources.of(core_v1.Node), Node)
