"""Where volumes may be, what classes say, how modes are asked for, how claims grow, how long to wait: tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import codec
from api.models import core_v1, storage_v1
from api.volumes import Claim, Volume
from csi_controllers import capabilities, parameters, resizer, topology
from csi_controllers.driver import About, Can, DriverError
from csi_controllers.objects import attacher_finalizer
from csi_controllers.retries import Retries
from machinery.clock import VirtualClock
from machinery.meta import ObjectKey
from proto.csi.v1 import csi_pb2 as pb

DRIVER = "d.example.com"
ZONE = "topology.kubernetes.io/zone"
Mode = pb.VolumeCapability.AccessMode


def made(kind: Any, obj: dict[str, Any]) -> Any:
    import msgspec

    return codec.decode(msgspec.json.encode(obj), kind)


def csi_node(name: str, keys: list[str] | None, driver: str = DRIVER) -> storage_v1.CSINode:
    drivers = [{"name": driver, "nodeID": name, **({"topologyKeys": keys} if keys is not None else {})}]
    found: storage_v1.CSINode = made(storage_v1.CSINode, {"metadata": {"name": name}, "spec": {"drivers": drivers}})
    return found


def requirement(
    zones: Mapping[str, str | None], selected: str = "", allowed: list[str] | None = None, claim: str = "data"
) -> tuple[list[str], list[str]]:
    """Zones of nodes (None: without the driver) -> (requisite, preferred)."""
    nodes = {name: csi_node(name, [ZONE] if zone else None) for name, zone in zones.items()}
    labels = {name: {ZONE: zone} if zone else {} for name, zone in zones.items()}
    expressions = [core_v1.TopologySelectorLabelRequirement(key=ZONE, values=allowed or [])]
    terms = [core_v1.TopologySelectorTerm(matchLabelExpressions=expressions)] if allowed else []
    found = topology.requirement(claim, DRIVER, nodes, labels, terms, selected)
    return [each.segments[ZONE] for each in found.requisite], [each.segments[ZONE] for each in found.preferred]


@pytest.mark.parametrize(
    ("zones", "selected", "allowed", "requisite", "first"),
    [
        pytest.param({"n1": "a", "n2": "b", "n3": "a"}, "n2", None, ["a", "b"], "b", id="selected first"),
        pytest.param({"n1": "a", "n2": None}, "n1", None, ["a"], "a", id="nodes without the driver do not count"),
        pytest.param({"n1": "a", "n2": "b"}, "n1", ["a", "c"], ["a", "c"], "a", id="what the class allows"),
    ],
)
def test_topology(
    zones: Mapping[str, str | None], selected: str, allowed: list[str] | None, requisite: list[str], first: str
) -> None:
    found, preferred = requirement(zones, selected, allowed)
    assert found == requisite
    assert preferred[0] == first
    assert sorted(preferred) == sorted(requisite)


@pytest.mark.parametrize(
    ("zones", "selected", "allowed", "why"),
    [
        pytest.param({"n1": None}, "n1", None, "no topology key found for node n1", id="no driver on the node"),
        pytest.param({}, "n9", None, "no topology key found for node n9", id="no such node"),
        pytest.param({"n1": None}, "", None, "no available topology found", id="no driver anywhere"),
        pytest.param({"n1": "a"}, "n1", ["b"], "not in allowed topologies", id="class forbids the node"),
    ],
)
def test_no_topology(zones: Mapping[str, str | None], selected: str, allowed: list[str] | None, why: str) -> None:
    with pytest.raises(topology.NoTopology, match=why):
        requirement(zones, selected, allowed)


@given(st.sets(st.sampled_from("abcdef"), min_size=1), st.text(min_size=1, max_size=8))
def test_without_a_pod_claims_are_spread_but_each_stays_where_it_is(zones: set[str], claim: str) -> None:
    nodes: dict[str, str | None] = {f"n{zone}": zone for zone in zones}
    requisite, preferred = requirement(nodes, claim=claim)
    assert sorted(preferred) == requisite == sorted(zones)
    assert requirement(nodes, claim=claim) == (requisite, preferred)


def test_affinity_names_every_topology() -> None:
    found = topology.node_affinity(
        [pb.Topology(segments={"b": "2", "a": "1"}), pb.Topology(), pb.Topology(segments={"a": "3"})]
    )
    assert found is not None
    first, second = found["required"]["nodeSelectorTerms"]
    assert [(each["key"], each["values"]) for each in first["matchExpressions"]] == [("a", ["1"]), ("b", ["2"])]
    assert second["matchExpressions"] == [{"key": "a", "operator": "In", "values": ["3"]}]
    assert topology.node_affinity([]) is None


CLAIM: Claim = made(
    Claim,
    {"metadata": {"name": "data", "namespace": "team", "annotations": {"who": "me"}}, "spec": {"accessModes": []}},
)
P = "csi.storage.k8s.io/"


def test_parameters_are_sorted_out() -> None:
    given_ = {
        f"{P}fstype": "xfs",
        f"{P}provisioner-secret-name": "p-${pvc.name}",
        f"{P}provisioner-secret-namespace": "${pvc.namespace}",
        f"{P}node-stage-secret-name": "s-${pvc.annotations['who']}-${pv.name}",
        f"{P}node-stage-secret-namespace": "x",
        "type": "ssd",
    }
    found = parameters.understand(given_, CLAIM, "pvc-1")
    assert (found.for_driver, found.fstype) == ({"type": "ssd"}, "xfs")
    assert found.provisioner == parameters.SecretRef("p-data", "team")
    assert found.volume_refs == {"nodeStageSecretRef": parameters.SecretRef("s-me-pvc-1", "x")}
    both = {f"{P}secret-name": "all", f"{P}secret-namespace": "x"}
    assert len(parameters.understand(both, CLAIM, "pvc-1").volume_refs) == 5
    assert parameters.understand({"fstype": "ext4"}, CLAIM, "v").fstype == "ext4"


@pytest.mark.parametrize(
    ("given_", "why"),
    [
        pytest.param({f"{P}speed": "1"}, "unknown parameter key", id="unknown"),
        pytest.param({f"{P}fstype": "xfs", "fstype": "ext4"}, "the same parameter", id="twice"),
        pytest.param({f"{P}node-stage-secret-name": "a"}, "namespace is missing", id="half a reference"),
        pytest.param(
            {f"{P}provisioner-secret-name": "${pvc.annotations['who']}", f"{P}provisioner-secret-namespace": "x"},
            "invalid tokens",
            id="the provisioner's secret is not the user's to choose",
        ),
        pytest.param(
            {f"{P}node-stage-secret-name": "a", f"{P}node-stage-secret-namespace": "${pvc.annotations['who']}"},
            "invalid tokens",
            id="nor is any namespace",
        ),
    ],
)
def test_bad_parameters(given_: dict[str, str], why: str) -> None:
    with pytest.raises(parameters.BadParameter, match=why):
        parameters.understand(given_, CLAIM, "pvc-1")


def test_secrets_are_text() -> None:
    assert parameters.secret_data(core_v1.Secret(data={"a": "eA=="})) == {"a": "x"}
    for bad in ("%%%", "//79"):
        with pytest.raises(parameters.BadParameter):
            parameters.secret_data(core_v1.Secret(data={"a": bad}))


@pytest.mark.parametrize(
    ("mode", "can", "wanted"),
    [
        pytest.param("ReadWriteOnce", (), Mode.SINGLE_NODE_WRITER, id="plain driver"),
        pytest.param(
            "ReadWriteOnce", (Can.SINGLE_NODE_MULTI_WRITER,), Mode.SINGLE_NODE_MULTI_WRITER, id="several pods"
        ),
        pytest.param("ReadWriteOncePod", (Can.SINGLE_NODE_MULTI_WRITER,), Mode.SINGLE_NODE_SINGLE_WRITER, id="one pod"),
        pytest.param("ReadOnlyMany", (), Mode.MULTI_NODE_READER_ONLY, id="readers"),
        pytest.param("ReadWriteMany", (), Mode.MULTI_NODE_MULTI_WRITER, id="shared"),
    ],
)
def test_access_modes(mode: str, can: tuple[int, ...], wanted: int) -> None:
    about = About(DRIVER, frozenset(), frozenset(can))
    assert capabilities.capability(mode, about, block=False).access_mode.mode == wanted
    assert capabilities.capability(mode, about, block=True).WhichOneof("access_type") == "block"
    with pytest.raises(capabilities.UnsupportedModes):
        capabilities.capability("ReadMaybe", about, block=False)


@pytest.mark.parametrize(
    ("driver", "finalizer"),
    [
        ("block.csi.nanokube.io", "external-attacher/block-csi-nanokube-io"),
        ("a_b-", "external-attacher/a-b-X"),
    ],
)
def test_the_finalizers_name(driver: str, finalizer: str) -> None:
    assert attacher_finalizer(driver) == finalizer


def claim(asks: str, has: str, allocated: str = "", state: str = "") -> Claim:
    status: dict[str, Any] = {"phase": "Bound", "capacity": {"storage": has}}
    if allocated:
        status["allocatedResources"] = {"storage": allocated}
    if state:
        status["allocatedResourceStatuses"] = {"storage": state}
    spec = {"volumeName": "v", "resources": {"requests": {"storage": asks}}}
    found: Claim = made(Claim, {"metadata": {"name": "c"}, "spec": spec, "status": status})
    return found


@pytest.mark.parametrize(
    ("claim_", "volume", "target", "grows"),
    [
        pytest.param(claim("1Gi", "1Gi"), "1Gi", 1, False, id="content"),
        pytest.param(claim("1Gi", "2Gi"), "2Gi", 1, False, id="has more than it asks for"),
        pytest.param(claim("3Gi", "1Gi"), "1Gi", 3, True, id="asks for more"),
        pytest.param(claim("3Gi", "1Gi", "3Gi", resizer.IN_PROGRESS), "1Gi", 3, True, id="was interrupted"),
        pytest.param(claim("3Gi", "1Gi", "3Gi", resizer.NODE_PENDING), "3Gi", 3, False, id="the node's turn"),
        pytest.param(claim("5Gi", "1Gi", "3Gi", resizer.NODE_PENDING), "3Gi", 5, True, id="and now more still"),
        pytest.param(claim("2Gi", "1Gi", "9Gi", resizer.IN_PROGRESS), "1Gi", 9, True, id="less, but more is under way"),
        pytest.param(claim("2Gi", "1Gi", "9Gi", resizer.INFEASIBLE), "1Gi", 2, True, id="less than what cannot be"),
        pytest.param(claim("1Gi", "1Gi", "9Gi", resizer.INFEASIBLE), "1Gi", 1, False, id="given up"),
        pytest.param(claim("3Gi", "1Gi"), "3Gi", 3, True, id="the volume was written, the claim not"),
    ],
)
def test_what_a_claim_grows_to(claim_: Claim, volume: str, target: int, grows: bool) -> None:
    there: Volume = made(Volume, {"metadata": {"name": "v"}, "spec": {"capacity": {"storage": volume}}})
    assert resizer.target(claim_) == target << 30
    assert resizer.needs_growth(claim_, there) == grows


def test_conditions_keep_their_time_and_what_is_not_ours() -> None:
    status = {
        "conditions": [
            {"type": "Resizing", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "Other", "status": "True", "message": "kept"},
        ]
    }
    before: Claim = made(Claim, {"metadata": {"name": "c"}, "spec": {}, "status": status})
    found = {each["type"]: each for each in resizer.conditions(before, "now", Resizing="", ControllerResizeError="x")}
    assert found["Resizing"]["lastTransitionTime"] != "now"
    assert (found["ControllerResizeError"]["message"], found["ControllerResizeError"]["lastTransitionTime"]) == (
        "x",
        "now",
    )
    assert found["Other"]["message"] == "kept"
    assert {each["type"] for each in resizer.conditions(before, "now", Resizing=None)} == {"Other"}


@pytest.mark.parametrize(
    ("code", "text", "final", "infeasible"),
    [
        ("NOT_FOUND", "rpc error: code = NotFound desc = x", True, True),
        ("DEADLINE_EXCEEDED", "rpc error: code = DeadlineExceeded desc = x", False, False),
        ("CANCELLED", "rpc error: code = Canceled desc = x", False, False),
        ("INTERNAL", "rpc error: code = Internal desc = x", True, False),
    ],
)
def test_errors_read_as_in_the_field(code: str, text: str, final: bool, infeasible: bool) -> None:
    error = DriverError(code, 1, "x")
    assert (str(error), error.is_final, error.is_infeasible) == (text, final, infeasible)


async def test_patience_doubles_for_the_same_and_starts_anew_for_another() -> None:
    clock = VirtualClock()
    retries, key = Retries(clock, 1.0, 8.0), ObjectKey("n", "c")
    assert retries.left(key, "a") == 0
    waits = [retries.after_failure(key, "a") for _ in range(6)]
    for wait, least in zip(waits, (1, 2, 4, 8, 8, 8), strict=True):
        assert least <= wait <= least * 1.1
    assert retries.left(key, "a") == pytest.approx(waits[-1])
    assert retries.left(key, "b") == 0
    await clock.advance(5)
    assert retries.left(key, "a") == pytest.approx(waits[-1] - 5)
    assert retries.after_failure(key, "b") <= 1.1
    assert retries.after_failure(key, "b", at_least=600) == 600
    retries.forget(key)
    assert retries.left(key, "b") == 0
