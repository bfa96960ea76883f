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
