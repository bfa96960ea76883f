from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.models import core_v1
from controller_manager.endpoints.legacy import MANAGED_BY, MANAGER, plan_endpoints, plan_subsets
from controller_manager.endpoints.pods import ports_of
from controller_manager.endpoints.slice_plan import Changes, plan_slices
from tests.unit.controller_manager.builders import node, pod, service


def nowhere(_: str) -> None:
    """No node is known."""


def written(changes: Changes, existing: list[dict[str, Any]], fresh: int = 0) -> list[dict[str, Any]]:
    """The slices after the changes, as a server would keep them."""
    gone = {each["metadata"]["name"] for each in changes.delete}
    updated = {each["metadata"]["name"]: each for each in changes.update}
    kept = [updated.get(e["metadata"]["name"], e) for e in existing if e["metadata"]["name"] not in gone]
    for i, each in enumerate(changes.create):
        kept.append({**each, "metadata": {**each["metadata"], "name": f"s{fresh + i}"}})
    return kept


def endpoints(slices: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {each["targetRef"]["name"]: each for one in slices for each in one.get("endpoints") or ()}


def test_a_service_without_pods_has_one_empty_slice() -> None:
    changes = plan_slices(service(), [], nowhere, [])
    (made,) = changes.create
    assert made["metadata"]["generateName"] == "web-"
    assert made["metadata"]["labels"] == {
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    assert (made["endpoints"], made["ports"], made["addressType"]) == (None, None, "IPv4")
    assert plan_slices(service(), [], nowhere, written(changes, [])) == ([], [], [])


def test_the_empty_slice_is_filled_and_emptied_again() -> None:
    slices = written(plan_slices(service(), [], nowhere, []), [])
    changes = plan_slices(service(), [pod("a", ready=True, ip="10.0.0.1")], nowhere, slices)
    assert (changes.create, len(changes.update), changes.delete) == ([], 1, [])
    assert changes.update[0]["ports"] == [{"name": "http", "protocol": "TCP", "port": 8080}]
    slices = written(changes, slices)
    changes = plan_slices(service(), [], nowhere, slices)
    assert (len(changes.create), len(changes.update), len(changes.delete)) == (0, 1, 0)
    assert changes.update[0]["endpoints"] is None


@pytest.mark.parametrize(
    ("subject", "svc", "expected"),
    [
        pytest.param(pod("a", ready=True, ip="10.0.0.1"), service(), (True, True, False), id="ready"),
        pytest.param(pod("a", ip="10.0.0.1"), service(), (False, False, False), id="not ready"),
        pytest.param(
            pod("a", ready=True, ip="10.0.0.1", deleted=True), service(), (False, True, True), id="on its way out"
        ),
        pytest.param(
            pod("a", ip="10.0.0.1"), service(publishNotReadyAddresses=True), (True, False, False), id="published anyway"
        ),
        pytest.param(pod("a", ready=True), service(), None, id="no address"),
        pytest.param(pod("a", phase="Succeeded", ip="10.0.0.1"), service(), None, id="finished"),
        pytest.param(pod("a", ready=True, ip="10.0.0.1", labels={"app": "x"}), service(), None, id="not selected"),
    ],
)
def test_conditions(subject: core_v1.Pod, svc: core_v1.Service, expected: tuple[bool, bool, bool] | None) -> None:
    found = endpoints(plan_slices(svc, [subject], nowhere, []).create).get("a")
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert found["conditions"] == dict(zip(("ready", "serving", "terminating"), expected, strict=True))


def test_zone_and_node_name() -> None:
    nodes = {"n1": node("n1", labels={"topology.kubernetes.io/zone": "z"})}
    found = endpoints(plan_slices(service(), [pod("a", ip="10.0.0.1")], nodes.get, []).create)["a"]
    assert (found["nodeName"], found["zone"]) == ("n1", "z")


def test_named_ports_are_looked_up_in_each_pod() -> None:
    named = service(ports=[core_v1.ServicePort(port=80, targetPort="http", name="w", protocol="TCP")])
    pods = [
        pod("a", ip="10.0.0.1", ports={"http": 80}),
        pod("b", ip="10.0.0.2", ports={"http": 8080}),
        pod("c", ip="10.0.0.3", ports={"http": 8080}),
        pod("d", ip="10.0.0.4"),
    ]
    assert ports_of(named, pods[3]) == []
    made = plan_slices(named, pods, nowhere, []).create
    grouped = {tuple(p["port"] for p in each["ports"] or ()): len(each["endpoints"]) for each in made}
    assert grouped == {(80,): 1, (8080,): 2, (): 1}


def test_other_peoples_families_go() -> None:
    foreign = {"metadata": {"name": "six"}, "addressType": "IPv6", "endpoints": []}
    assert plan_slices(service(), [], nowhere, [foreign]).delete == [foreign]


@settings(max_examples=150)
@given(
    st.lists(st.frozensets(st.integers(0, 30)), min_size=1, max_size=6),
    st.integers(1, 7),
)
def test_slices_follow_any_churn(rounds: list[frozenset[int]], limit: int) -> None:
    slices: list[dict[str, Any]] = []
    fresh = 0
    for present in rounds:
        pods = [pod(f"p{i}", ready=i % 2 == 0, ip=f"10.0.0.{i + 1}") for i in sorted(present)]
        changes = plan_slices(service(), pods, nowhere, slices, limit=limit)
        slices = written(changes, slices, fresh)
        fresh += len(changes.create)
        names = [each["targetRef"]["name"] for one in slices for each in one.get("endpoints") or ()]
        assert sorted(names) == sorted(f"p{i}" for i in present), "each pod once"
        assert all(len(each.get("endpoints") or ()) <= limit for each in slices)
        assert len(slices) >= 1
        assert plan_slices(service(), pods, nowhere, slices, limit=limit) == ([], [], []), (
            "a second pass changes nothing"
        )


def test_one_changed_pod_changes_one_slice() -> None:
    pods = [pod(f"p{i}", ready=True, ip=f"10.0.{i // 250}.{i % 250 + 1}") for i in range(250)]
    slices = written(plan_slices(service(), pods, nowhere, []), [])
    assert sorted(len(each["endpoints"]) for each in slices) == [50, 100, 100]
    pods[7] = pod("p7", ready=False, ip="10.0.0.8")
    changes = plan_slices(service(), pods, nowhere, slices)
    assert (len(changes.create), len(changes.update), len(changes.delete)) == (0, 1, 0)


def test_legacy_subsets() -> None:
    pods = [
        pod("b", ready=True, ip="10.0.0.20"),
        pod("a", ready=True, ip="10.0.0.3"),
        pod("c", ip="10.0.0.4"),
        pod("d", ready=True, ip="10.0.0.5", deleted=True),
    ]
    (subset,), truncated = plan_subsets(service(), pods)
    assert not truncated
    assert [each["ip"] for each in subset["addresses"]] == ["10.0.0.20", "10.0.0.3"], "ordered as texts"
    assert [each["ip"] for each in subset["notReadyAddresses"]] == ["10.0.0.4"]
    assert subset["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]


def test_legacy_ports_with_the_same_addresses_share_a_subset() -> None:
    both = [
        core_v1.ServicePort(port=80, targetPort="http", name="a"),
        core_v1.ServicePort(port=81, targetPort=8081, name="b"),
    ]
    pods = [pod("x", ready=True, ip="10.0.0.1", ports={"http": 8080}), pod("y", ready=True, ip="10.0.0.2")]
    found, _ = plan_subsets(service(ports=both), pods)
    summary = sorted(([p["name"] for p in each["ports"]], [a["ip"] for a in each["addresses"]]) for each in found)
    assert summary == [(["a"], ["10.0.0.1"]), (["b"], ["10.0.0.1", "10.0.0.2"])]
    whole, _ = plan_subsets(service(ports=both), pods[:1])
    assert [[p["name"] for p in each["ports"]] for each in whole] == [["a", "b"]], "as recorded from the original"


def test_legacy_headless_without_ports_still_has_addresses() -> None:
    found, _ = plan_subsets(service(ports=[], headless=True), [pod("x", ready=True, ip="10.0.0.1")])
    assert [list(each) for each in found] == [["addresses"]]


def test_slice_ports_are_in_the_recorded_order() -> None:
    both = [
        core_v1.ServicePort(port=80, targetPort=8080, name="a"),
        core_v1.ServicePort(port=81, targetPort=8081, name="b"),
    ]
    (made,) = plan_slices(service(ports=both), [pod("x", ip="10.0.0.1")], nowhere, []).create
    assert [each["name"] for each in made["ports"]] == ["b", "a"]


def test_legacy_object_is_written_only_when_it_differs() -> None:
    pods = [pod("a", ready=True, ip="10.0.0.3")]
    planned = plan_endpoints(service(), pods, None)
    assert planned is not None
    assert planned["metadata"]["labels"] == {MANAGED_BY: MANAGER}
    assert plan_endpoints(service(), pods, planned) is None
    assert plan_endpoints(service(), [], planned) is not None


def test_legacy_is_cut_at_a_thousand() -> None:
    pods = [pod(f"p{i}", ready=True, ip=f"10.0.{i // 250}.{i % 250 + 1}") for i in range(1001)]
    planned = plan_endpoints(service(), pods, None)
    assert planned is not None
    assert planned["metadata"]["annotations"] == {"endpoints.kubernetes.io/over-capacity": "truncated"}
    assert sum(len(each["addresses"]) for each in planned["subsets"]) == 1000
