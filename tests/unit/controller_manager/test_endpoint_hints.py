"""Hints of endpoints: by closeness, and shared out by CPUs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.models import core_v1
from controller_manager.endpoints.hints import OVERLOAD, CannotShare, by_cpu, hint_shares, zone_ratios
from controller_manager.endpoints.pods import ZONE
from controller_manager.endpoints.slice_plan import plan_slices
from tests.unit.controller_manager.builders import node, pod, service
from tests.unit.controller_manager.test_endpoints_plan import endpoints, written


def machine(name: str, zone: str | None, cpu: str = "4", ready: str = "True", **labels: str) -> core_v1.Node:
    made = node(name, ready, labels={**({ZONE: zone} if zone else {}), **labels})
    assert made.status is not None
    made.status.allocatable = {"cpu": cpu}
    return made


NODES = {"n1": machine("n1", "a"), "n2": machine("n2", "b"), "n3": machine("n3", None)}


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        pytest.param(None, {}, id="none asked for"),
        pytest.param("PreferClose", {"p1": "a", "p2": "b"}, id="close"),
        pytest.param("PreferSameZone", {"p1": "a", "p2": "b"}, id="zone"),
    ],
)
def test_zone_hints(wish: str | None, expected: dict[str, str]) -> None:
    svc = service(trafficDistribution=wish)
    pods = [
        pod("p1", ready=True, node="n1", ip="10.0.0.1"),
        pod("p2", ready=True, node="n2", ip="10.0.0.2"),
        pod("p3", ready=True, node="n3", ip="10.0.0.3"),
        pod("p4", ready=False, node="n1", ip="10.0.0.4"),
    ]
    slices = written(plan_slices(svc, pods, NODES.get, []), [])
    found = endpoints(slices)
    assert {name: each["hints"] for name, each in found.items() if "hints" in each} == {
        name: {"forZones": [{"name": zone}]} for name, zone in expected.items()
    }
    assert plan_slices(svc, pods, NODES.get, slices) == ([], [], []), "a second pass changes nothing"


def test_node_hints_and_their_end() -> None:
    pods = [pod("p1", ready=True, node="n1", ip="10.0.0.1"), pod("p3", ready=True, node="n3", ip="10.0.0.3")]
    slices = written(plan_slices(service(trafficDistribution="PreferSameNode"), pods, NODES.get, []), [])
    assert {name: each["hints"] for name, each in endpoints(slices).items()} == {
        "p1": {"forZones": [{"name": "a"}], "forNodes": [{"name": "n1"}]},
        "p3": {"forNodes": [{"name": "n3"}]},
    }
    changes = plan_slices(service(), pods, NODES.get, slices)
    assert not any("hints" in each for each in endpoints(changes.update).values())


def ready_in(zones: dict[str, int]) -> list[dict[str, Any]]:
    return [
        {"conditions": {"ready": True}, "zone": zone, "targetRef": {"uid": f"{zone}{i}"}}
        for zone, count in zones.items()
        for i in range(count)
    ]


def shares(found: list[dict[str, Any]]) -> Counter[str]:
    return Counter(zone["name"] for each in found for zone in each["hints"]["forZones"])


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        pytest.param([machine("x", "a"), machine("y", "b", "12")], {"a": 0.25, "b": 0.75}, id="by CPUs"),
        pytest.param([machine("x", "a"), machine("y", "b", ready="False")], None, id="one ready zone only"),
        pytest.param([machine("x", "a"), machine("y", "b"), machine("z", None)], None, id="a node without a zone"),
        pytest.param([machine("x", "a"), machine("y", "b", "0")], None, id="a node without CPUs"),
        pytest.param(
            [machine("x", "a"), machine("y", "b"), machine("c", None, **{"node-role.kubernetes.io/control-plane": ""})],
            {"a": 0.5, "b": 0.5},
            id="control planes do not count",
        ),
        pytest.param([], None, id="no nodes"),
    ],
)
def test_ratios(nodes: list[core_v1.Node], expected: dict[str, float] | None) -> None:
    if expected is None:
        with pytest.raises(CannotShare):
            zone_ratios(nodes)
    else:
        assert zone_ratios(nodes) == expected


@pytest.mark.parametrize(
    ("present", "ratios", "expected"),
    [
        pytest.param({"a": 3, "b": 3}, {"a": 0.5, "b": 0.5}, {"a": 3, "b": 3}, id="even"),
        pytest.param({"a": 6, "b": 0}, {"a": 0.5, "b": 0.5}, {"a": 3, "b": 3}, id="all in one zone"),
        pytest.param({"a": 2, "b": 2}, {"a": 0.25, "b": 0.75}, {"a": 1, "b": 3}, id="a large zone takes"),
        pytest.param({"a": 1, "b": 0}, {"a": 0.5, "b": 0.5}, None, id="fewer endpoints than zones"),
        pytest.param({"a": 1, "b": 2}, {"a": 0.5, "b": 0.5}, None, id="no way without overload"),
    ],
)
def test_shares(present: dict[str, int], ratios: dict[str, float], expected: dict[str, int] | None) -> None:
    found = ready_in(present)
    if expected is None:
        with pytest.raises(CannotShare):
            hint_shares(found, ratios)
        assert not any("hints" in each for each in found)
    else:
        hint_shares(found, ratios)
        assert shares(found) == expected


def test_an_endpoint_without_a_zone_stops_the_sharing() -> None:
    found = [*ready_in({"a": 3, "b": 3}), {"conditions": {"ready": True}}]
    with pytest.raises(CannotShare, match="do not have a zone"):
        hint_shares(found, {"a": 0.5, "b": 0.5})


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 40), min_size=2),
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 64), min_size=2),
)
def test_no_zone_is_overloaded(present: dict[str, int], cpus: dict[str, int]) -> None:
    ratios = {zone: cpu / sum(cpus.values()) for zone, cpu in cpus.items()}
    found = ready_in(present)
    try:
        hint_shares(found, ratios)
    except CannotShare:
        return
    got = shares(found)
    assert got.total() == len(found), "each endpoint is hinted once"
    for zone, ratio in ratios.items():
        # A transfer moves whole endpoints: up to one may be missing at the threshold.
        assert got[zone] + 1 >= got.total() * ratio / (1 + OVERLOAD)


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        pytest.param(None, False, id="none"),
        pytest.param({"service.kubernetes.io/topology-mode": "Auto"}, True, id="Auto"),
        pytest.param({"service.kubernetes.io/topology-mode": "Disabled"}, False, id="Disabled"),
        pytest.param({"service.kubernetes.io/topology-aware-hints": "auto"}, True, id="the annotation of before"),
    ],
)
def test_by_cpu(annotations: dict[str, str] | None, expected: bool) -> None:
    svc = service()
    assert svc.metadata is not None
    svc.metadata.annotations = annotations
    assert by_cpu(svc) is expected
