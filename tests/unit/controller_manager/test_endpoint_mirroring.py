"""Hand-written Endpoints as EndpointSlices."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller_manager.endpoints.mirroring import LEADER, MANAGER, MAX_PER_SUBSET, SKIP, plan_mirror, should_mirror
from tests.unit.controller_manager.builders import service
from tests.unit.controller_manager.test_endpoints_plan import written

Obj = dict[str, Any]
PORT = {"name": "http", "port": 80, "protocol": "TCP"}


def written_by_hand(*subsets: Obj, **metadata: Any) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "db", "namespace": "default", "uid": "u", **metadata},
        "subsets": list(subsets),
    }


def subset(*ips: str, unready: tuple[str, ...] = (), ports: tuple[Obj, ...] = (PORT,)) -> Obj:
    return {
        "addresses": [{"ip": each} for each in ips],
        "notReadyAddresses": [{"ip": each} for each in unready],
        "ports": list(ports),
    }


def test_a_slice_per_family_and_ports() -> None:
    other = {"port": 81, "protocol": "UDP"}
    mirror = plan_mirror(
        written_by_hand(
            subset("10.0.0.1", "fd00::1", unready=("10.0.0.2",)),
            subset("10.0.0.3", ports=(other,)),
            labels={"team": "x"},
            annotations={"note": "y", "endpoints.kubernetes.io/last-change-trigger-time": "z"},
        ),
        [],
    )
    assert (mirror.invalid, mirror.excess) == (0, 0)
    found = {(e["addressType"], e["ports"][0]["port"]): e for e in mirror.changes.create}
    assert found.keys() == {("IPv4", 80), ("IPv6", 80), ("IPv4", 81)}
    first = found["IPv4", 80]
    assert [(e["addresses"], e["conditions"]) for e in first["endpoints"]] == [
        (["10.0.0.1"], {"ready": True}),
        (["10.0.0.2"], {"ready": False}),
    ]
    assert first["metadata"]["generateName"] == "db-"
    assert first["metadata"]["labels"] == {
        "team": "x",
        "kubernetes.io/service-name": "db",
        "endpointslice.kubernetes.io/managed-by": MANAGER,
    }
    assert first["metadata"]["annotations"] == {"note": "y"}
    assert first["metadata"]["ownerReferences"][0]["kind"] == "Endpoints"
    assert found["IPv4", 81]["ports"] == [{"name": "", "port": 81, "protocol": "UDP"}]


def test_changes_keep_the_slice() -> None:
    before = written_by_hand(subset("10.0.0.1"))
    slices = written(plan_mirror(before, []).changes, [])
    assert plan_mirror(before, slices).changes == ([], [], [])
    changes = plan_mirror(written_by_hand(subset("10.0.0.2"), labels={"new": "label"}), slices).changes
    assert (len(changes.create), len(changes.update), len(changes.delete)) == (0, 1, 0)
    assert changes.update[0]["metadata"]["name"] == "s0"
    assert changes.update[0]["metadata"]["labels"]["new"] == "label"
    moved = plan_mirror(written_by_hand(subset("10.0.0.1", ports=({"port": 9, "protocol": "TCP"},))), slices).changes
    assert (len(moved.create), len(moved.update), len(moved.delete)) == (0, 1, 0), "a slice is used again"
    assert len(plan_mirror(written_by_hand(), slices).changes.delete) == 1


def test_what_cannot_be_mirrored_is_counted() -> None:
    ips = [f"10.0.{i // 250}.{i % 250 + 1}" for i in range(MAX_PER_SUBSET + 5)]
    mirror = plan_mirror(written_by_hand(subset("no-address", *ips)), [])
    assert (mirror.invalid, mirror.excess) == (1, 5)
    assert len(mirror.changes.create[0]["endpoints"]) == MAX_PER_SUBSET


@pytest.mark.parametrize(
    ("metadata", "selector", "expected"),
    [
        pytest.param({}, None, True, id="a Service without a selector"),
        pytest.param({}, {"app": "x"}, False, id="with one"),
        pytest.param({}, {}, False, id="an empty one"),
        pytest.param({"labels": {SKIP: "true"}}, None, False, id="skipped"),
        pytest.param({"labels": {SKIP: "false"}}, None, True, id="not skipped"),
        pytest.param({"annotations": {LEADER: "{}"}}, None, False, id="a leader election"),
    ],
)
def test_should_mirror(metadata: Obj, selector: dict[str, str] | None, expected: bool) -> None:
    svc = service()
    assert svc.spec is not None
    svc.spec.selector = selector
    assert should_mirror(written_by_hand(**metadata), svc) is expected
    assert not should_mirror(written_by_hand(**metadata), None)


@given(st.lists(st.lists(st.tuples(st.integers(1, 9), st.booleans(), st.integers(1, 2)), max_size=6), max_size=4))
def test_any_edit_is_mirrored_in_one_pass(edits: list[list[tuple[int, bool, int]]]) -> None:
    slices: list[Obj] = []
    fresh = 0
    for edit in edits:
        subsets = [
            subset(
                *((f"10.0.0.{ip}",) if ready else ()),
                unready=() if ready else (f"10.0.0.{ip}",),
                ports=({"port": port, "protocol": "TCP"},),
            )
            for ip, ready, port in edit
        ]
        changes = plan_mirror(written_by_hand(*subsets), slices).changes
        slices = written(changes, slices, fresh)
        fresh += len(changes.create)
        found = [(e["addresses"][0], each["ports"][0]["port"]) for each in slices for e in each["endpoints"]]
        assert sorted(found) == sorted({(f"10.0.0.{ip}", port) for ip, _, port in edit}), "each address once"
        assert plan_mirror(written_by_hand(*subsets), slices).changes == ([], [], [])
