"""resolv.conf and host names of pods."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from api.models import core_v1
from kubelet.dns import Resolver, hostname, hosts_file, parse_resolv_conf, pod_resolver

HOST = Resolver(("1.1.1.1",), ("corp.example",), ("timeout:2",))


def spec(**more: Any) -> core_v1.PodSpec:
    return msgspec.convert({"containers": [], **more}, core_v1.PodSpec)


CLUSTER = Resolver(
    ("10.96.0.10",),
    ("ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"),
    ("timeout:2", "ndots:5"),
)


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        pytest.param(spec(), CLUSTER, id="cluster-first"),
        pytest.param(spec(dnsPolicy="Default"), HOST, id="default"),
        pytest.param(spec(hostNetwork=True), HOST, id="host-network"),
        pytest.param(spec(hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet"), CLUSTER, id="with-host-net"),
        pytest.param(
            spec(
                dnsPolicy="None", dnsConfig={"nameservers": ["9.9.9.9"], "options": [{"name": "ndots", "value": "2"}]}
            ),
            Resolver(("9.9.9.9",), (), ("ndots:2",)),
            id="none",
        ),
        pytest.param(
            spec(dnsConfig={"options": [{"name": "ndots", "value": "1"}]}),
            Resolver(CLUSTER.servers, CLUSTER.searches, ("timeout:2", "ndots:1")),
            id="option-replaced",
        ),
    ],
)
def test_resolver_by_policy(pod: core_v1.PodSpec, expected: Resolver) -> None:
    assert pod_resolver(pod, "ns", HOST, ["10.96.0.10"], "cluster.local") == expected


def test_reads_the_machines_own() -> None:
    text = "# comment\nnameserver 1.1.1.1\nsearch corp.example\noptions timeout:2\n"
    assert parse_resolv_conf(text) == HOST


def test_host_names_are_cut_to_the_kernels_limit() -> None:
    assert hostname(spec(), "a" * 62 + "-" + "b" * 10) == "a" * 62
    assert hostname(spec(hostname="own"), "web") == "own"


def test_hosts_file_names_the_pod_and_its_aliases() -> None:
    pod = spec(hostname="web", subdomain="sub", hostAliases=[{"ip": "1.2.3.4", "hostnames": ["a", "b"]}])
    text = hosts_file(pod, "web", "ns", "cluster.local", ["10.0.0.2"])
    assert "10.0.0.2\tweb.sub.ns.svc.cluster.local\tweb\n" in text
    assert text.endswith("1.2.3.4\ta\tb\n")
