"""Transactions between table states: the kernel accepts them, and only what changed is told."""

from __future__ import annotations

import pytest

from kube_proxy.rules import Endpoint, ServicePort, TableConfig, stale_udp, transaction, without_conflicts

CONFIG = TableConfig("nanokube", "10.244.0.0/16", "10.96.0.0/16", "10.250.0.0/24")
WEB = ServicePort("default/web:80/TCP", "10.96.0.7", "tcp", 80, (Endpoint("10.244.1.2", 8080),))
DNS = ServicePort("kube-system/dns:53/UDP", "10.96.0.10", "udp", 53, (Endpoint("10.244.1.3", 53, local=True),))


def table(*services: ServicePort) -> dict[str, ServicePort]:
    return {service.name: service for service in services}


def test_nothing_changed_is_no_transaction() -> None:
    assert transaction(CONFIG, table(WEB), table(WEB)) == ""


def test_a_change_names_only_its_own_chains() -> None:
    more = ServicePort(**{**vars(WEB), "endpoints": (*WEB.endpoints, Endpoint("10.244.2.2", 8080))})
    text = transaction(CONFIG, table(WEB, DNS), table(more, DNS))
    assert f"ep_{WEB.id}" in text
    assert DNS.id not in text
    assert "numgen random mod 2" in text
    assert "delete table" not in text


HERE, THERE = Endpoint("10.244.1.2", 8080, local=True), Endpoint("10.244.2.2", 8080)
NEAR = ServicePort(
    "default/near:80/TCP",
    "10.96.0.8",
    "tcp",
    80,
    (HERE, THERE),
    30080,
    ("10.251.0.1",),
    internal_local=True,
    external_local=True,
    local_endpoints=(HERE,),
)


def lines_of(service: ServicePort) -> list[str]:
    return transaction(CONFIG, {}, table(service)).splitlines()


def test_a_local_policy_chooses_among_endpoints_of_this_machine() -> None:
    lines = lines_of(NEAR)
    assert f"add rule ip nanokube cl_{NEAR.id} goto lo_{NEAR.id}" in lines
    assert any(f" lo_{NEAR.id} " in line and "10.244.1.2" in line and "10.244.2.2" not in line for line in lines)
    outside = [line.partition(f" np_{NEAR.id} ")[2] for line in lines if f"rule ip nanokube np_{NEAR.id} " in line]
    assert outside == [
        "ip saddr 10.244.0.0/16 jump mark_masquerade",
        f"ip saddr 10.244.0.0/16 goto ep_{NEAR.id}",
        "fib saddr type local jump mark_masquerade",
        f"fib saddr type local goto ep_{NEAR.id}",
        f"goto lo_{NEAR.id}",
    ], "who comes from outside keeps its address, pods and this machine may use all endpoints"


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        pytest.param({}, {}, id="an endpoint is here"),
        pytest.param(
            {"local_endpoints": ()},
            {"10.96.0.8 . tcp . 80": "drop", "10.251.0.1 . tcp . 80": "drop", "tcp . 30080": "drop"},
            id="only elsewhere: dropped",
        ),
        pytest.param(
            {"local_endpoints": (), "internal_local": False},
            {"10.251.0.1 . tcp . 80": "drop", "tcp . 30080": "drop"},
            id="the cluster IP uses all",
        ),
        pytest.param(
            {"local_endpoints": (), "external_local": False},
            {"10.96.0.8 . tcp . 80": "drop"},
            id="connections from outside use all",
        ),
        pytest.param(
            {"local_endpoints": (), "endpoints": ()},
            dict.fromkeys(("10.96.0.8 . tcp . 80", "10.251.0.1 . tcp . 80", "tcp . 30080"), "goto refuse"),
            id="nowhere: refused",
        ),
    ],
)
def test_what_a_local_policy_leaves_without_endpoints(change: dict[str, object], refused: dict[str, str]) -> None:
    found: dict[str, str] = {}
    for line in lines_of(ServicePort(**{**vars(NEAR), **change})):
        if line.startswith("add element ip nanokube no_endpoint"):
            pairs = line.partition("{ ")[2].removesuffix(" }").split(", ")
            found |= dict(pair.split(" : ") for pair in pairs)
    assert found == refused


def test_a_service_without_endpoints_is_refused() -> None:
    empty = ServicePort("default/web:80/TCP", "10.96.0.7", "tcp", 80)
    text = transaction(CONFIG, table(WEB), table(empty))
    assert "delete element ip nanokube service_ips { 10.96.0.7 . tcp . 80 }" in text
    assert "add element ip nanokube no_endpoints { 10.96.0.7 . tcp . 80 : goto refuse }" in text


def test_chains_are_deleted_after_what_points_to_them() -> None:
    lines = transaction(CONFIG, table(WEB), {}).splitlines()
    unreferenced = lines.index("delete element ip nanokube service_ips { 10.96.0.7 . tcp . 80 }")
    entry = lines.index(f"delete chain ip nanokube cl_{WEB.id}")
    assert unreferenced < entry < lines.index(f"delete chain ip nanokube ep_{WEB.id}")


@pytest.mark.parametrize(
    ("old", "new", "flows"),
    [
        pytest.param(table(DNS), {}, [("10.96.0.10", 53, "10.244.1.3")], id="service gone"),
        pytest.param(table(DNS), table(DNS), [], id="unchanged"),
        pytest.param(table(WEB), {}, [], id="tcp needs nothing"),
    ],
)
def test_stale_udp_flows(old: dict[str, ServicePort], new: dict[str, ServicePort], flows: list[object]) -> None:
    assert stale_udp(old, new) == flows


def outer(name: str, ip: str, *external: str, node_port: int = 0) -> ServicePort:
    return ServicePort(name, ip, "tcp", 80, (Endpoint("10.244.1.2", 8080),), node_port, external)


@pytest.mark.parametrize(
    ("services", "kept"),
    [
        pytest.param([outer("a", "10.96.0.1", "1.1.1.1")], [(("1.1.1.1",), 0)], id="alone"),
        pytest.param(
            [outer("b", "10.96.0.2", "1.1.1.1"), outer("a", "10.96.0.1", "1.1.1.1", "2.2.2.2")],
            [(("1.1.1.1", "2.2.2.2"), 0), ((), 0)],
            id="the first name gets a shared external address",
        ),
        pytest.param(
            [outer("a", "10.96.0.1", "10.96.0.2"), outer("b", "10.96.0.2")],
            [((), 0), ((), 0)],
            id="nobody gets another's cluster ip",
        ),
        pytest.param(
            [outer("a", "10.96.0.1", node_port=30000), outer("b", "10.96.0.2", node_port=30000)],
            [((), 30000), ((), 0)],
            id="a node port twice",
        ),
        pytest.param([outer("a", "10.96.0.1"), outer("b", "10.96.0.2")], [((), 0), ((), 0)], id="no node ports"),
    ],
)
def test_every_address_leads_to_one_service(
    services: list[ServicePort], kept: list[tuple[tuple[str, ...], int]]
) -> None:
    found = without_conflicts(table(*services))
    assert [(found[name].external_ips, found[name].node_port) for name in sorted(found)] == kept


def test_a_node_port_given_up_leaves_no_chain_that_holds_others() -> None:
    before, after = outer("a", "10.96.0.1", node_port=30000), outer("a", "10.96.0.1")
    lines = transaction(CONFIG, table(before), table(after)).splitlines()
    gone = lines.index("delete element ip nanokube node_ports { tcp . 30000 }")
    assert gone < lines.index(f"delete chain ip nanokube np_{before.id}")
