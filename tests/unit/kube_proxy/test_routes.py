"""Routes from Node objects."""

from __future__ import annotations

import pytest

from kube_proxy.objects import Metadata, Node, NodeAddress, NodeSpec, NodeStatus
from kube_proxy.routes import plan_routes


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
