"""Routes from Node objects."""

from __future__ import annotations

import errno
from typing import Any
from unittest.mock import Mock

import pytest

from kube_proxy.objects import Metadata, Node, NodeAddress, NodeSpec, NodeStatus
from kube_proxy.routes import RouteReconciler, plan_routes
from machinery.clock import VirtualClock


def node(name: str, cidr: str = "10.244.1.0/24", ip: str = "10.250.0.11") -> Node:
    return Node(Metadata(name), NodeSpec(cidr), NodeStatus([NodeAddress("InternalIP", ip)] if ip else None))


@pytest.mark.parametrize(
    ("nodes", "routes"),
    [
        pytest.param([node("other")], {"10.244.1.0/24": "10.250.0.11"}, id="another machine"),
        pytest.param([node("me")], {}, id="own pods are the runtime's"),
        pytest.param([node("other", cidr="")], {}, id="no network yet"),
        pytest.param([node("other", ip="")], {}, id="no address yet"),
        pytest.param([node("other", cidr="nonsense")], {}, id="nonsense network"),
        pytest.param([node("other", ip="nonsense")], {}, id="nonsense address"),
    ],
)
def test_plan_routes(nodes: list[Node], routes: dict[str, str]) -> None:
    assert plan_routes(nodes, "me") == routes


class OneGatewayOutOfReach:
    """Netlink of a kernel that knows no way to 192.0.2.9."""

    def __init__(self) -> None:
        self.routes: dict[str, str] = {}

    def __enter__(self) -> OneGatewayOutOfReach:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def add_route(self, destination: str, *, via: str) -> None:
        if via == "192.0.2.9":
            raise OSError(errno.ENETUNREACH, "add route", destination)
        self.routes[destination] = via

    def delete_route(self, destination: str, *, via: str, missing_ok: bool) -> None:
        del self.routes[destination]


def test_a_node_out_of_reach_does_not_cut_off_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = OneGatewayOutOfReach()
    monkeypatch.setattr("kube_proxy.routes.Netlink", lambda: kernel)
    informer: Any = Mock(add_handler=lambda _: None)
    reconciler = RouteReconciler(informer, VirtualClock())
    with pytest.raises(OSError, match="add route"):
        reconciler._sync({"10.244.0.0/24": "192.0.2.9", "10.244.1.0/24": "10.250.0.12"})
    assert kernel.routes == {"10.244.1.0/24": "10.250.0.12"}
    reconciler._sync({"10.244.2.0/24": "10.250.0.13"})
    assert kernel.routes == {"10.244.2.0/24": "10.250.0.13"}
