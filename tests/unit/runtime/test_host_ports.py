"""Host ports as nftables rules."""

from __future__ import annotations

import pytest

from proto.cri.v1 import cri_pb2 as cri
from runtime.faults import BadConfig
from runtime.host_ports import HostPort, plan_host_ports, plan_ruleset


def test_plan() -> None:
    mappings = [
        cri.PortMapping(container_port=80, host_port=8080),
        cri.PortMapping(container_port=53, host_port=5353, protocol=cri.UDP, host_ip="10.0.0.1"),
        cri.PortMapping(container_port=81),
        cri.PortMapping(container_port=82, host_port=82, host_ip="fd00::1"),
    ]
    expected = [HostPort("tcp", 8080, "10.1.1.1", 80), HostPort("udp", 5353, "10.1.1.1", 53, "10.0.0.1")]
    assert plan_host_ports("10.1.1.1", mappings) == expected
    assert plan_host_ports("", mappings) == []
    with pytest.raises(BadConfig):
        plan_host_ports("10.1.1.1", [cri.PortMapping(container_port=70000, host_port=1)])


def test_ruleset_is_one_replacement() -> None:
    ports = plan_host_ports("10.1.1.1", [cri.PortMapping(container_port=80, host_port=8080, host_ip="10.0.0.1")])
    text = plan_ruleset(ports)
    assert "ip daddr 10.0.0.1 tcp dport 8080 dnat to 10.1.1.1:80\n" in text
    assert text.index("delete table") < text.index("chain ports")
    assert "dnat" not in plan_ruleset([]).replace("dstnat", "")
