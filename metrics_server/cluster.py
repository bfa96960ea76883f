"""Which nodes and pods there are, as far as metrics need them.

Owns: the views (a few fields an object, whatever else it has) and their informers. Called by everything else here.
"""

from __future__ import annotations

import msgspec

from api.resources import lookup
from client.informer import Informer, Informers
from client.kinds import View


class Meta(msgspec.Struct, gc=False):
    """metav1.ObjectMeta, in part."""

    name: str = ""
    namespace: str = ""
    labels: dict[str, str] | None = None


class Address(msgspec.Struct, gc=False):
    type: str = ""
    address: str = ""


class Endpoint(msgspec.Struct, gc=False):
    Port: int = 0


class Endpoints(msgspec.Struct, gc=False):
    kubeletEndpoint: Endpoint = msgspec.field(default_factory=Endpoint)


class Condition(msgspec.Struct, gc=False):
    type: str = ""
    status: str = ""


class NodeStatus(msgspec.Struct):
    addresses: list[Address] = []
    daemonEndpoints: Endpoints = msgspec.field(default_factory=Endpoints)
    conditions: list[Condition] = []


class Node(msgspec.Struct):
    """core/v1 Node, in part."""

    metadata: Meta
    status: NodeStatus = msgspec.field(default_factory=NodeStatus)

    @property
    def kubelet(self) -> str:
        """`host:port` of its kubelet; "" while it has not told it."""
        addresses = {each.type: each.address for each in self.status.addresses}
        host = addresses.get("InternalIP") or addresses.get("Hostname") or ""
        port = self.status.daemonEndpoints.kubeletEndpoint.Port
        if not host or not port:
            return ""
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def is_ready(self) -> bool:
        return any(each.type == "Ready" and each.status == "True" for each in self.status.conditions)


class PodSpec(msgspec.Struct, gc=False):
    nodeName: str = ""


class PodStatus(msgspec.Struct, gc=False):
    phase: str = ""


class Pod(msgspec.Struct):
    """core/v1 Pod, in part."""

    metadata: Meta
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)


class Cluster:
    """Both caches."""

    def __init__(self, informers: Informers) -> None:
        nodes, pods = lookup("", "v1", "nodes"), lookup("", "v1", "pods")
        assert nodes is not None and pods is not None
        self.nodes: Informer[Node] = informers.informer(View(nodes, Node))
        self.pods: Informer[Pod] = informers.informer(View(pods, Pod))

    def node(self, name: str) -> Node | None:
        return self.nodes.lister.get(("", name))

    def pod(self, namespace: str, name: str) -> Pod | None:
        return self.pods.lister.get((namespace, name))
