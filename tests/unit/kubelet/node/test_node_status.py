"""The Node object of a kubelet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from kubelet.node import status as node
from proto.cri.v1 import cri_pb2 as cri

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS = node.NodeSettings("n", "10.0.0.1", 10250, "2", "2Gi", 110, labels={"zone": "a"})


def test_allocatable_keeps_back_what_hard_eviction_needs() -> None:
    whole, usable = node.capacity(SETTINGS)
    assert (whole["memory"], usable["memory"]) == ("2097152Ki", "1994752Ki")
    assert (whole["cpu"], usable["cpu"], usable["pods"]) == ("2", "2", "110")


def test_ready_needs_runtime_and_network() -> None:
    found = node.conditions(node.Health("", "container runtime network not ready: x"), (), NOW)
    assert [(each["type"], each["status"], each["reason"]) for each in found][-1] == (
        "Ready",
        "False",
        "KubeletNotReady",
    )


def test_transition_times_move_only_with_the_status() -> None:
    first = node.conditions(node.Health(), (), NOW)
    later = NOW + timedelta(minutes=5)
    second = node.conditions(node.Health("down"), first, later)
    stamps = {each["type"]: (each["lastTransitionTime"], each["lastHeartbeatTime"]) for each in second}
    assert stamps["MemoryPressure"] == ("2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z")
    assert stamps["Ready"][0] == "2026-01-01T00:05:00Z"


def test_heartbeats_alone_are_no_change() -> None:
    def made(moment: datetime, health: node.Health) -> dict[str, object]:
        return node.node_status(SETTINGS, node.NodeInfo(), health, (), (), moment)

    assert node.same_but_heartbeat(made(NOW, node.Health()), made(NOW + timedelta(1), node.Health()))
    assert not node.same_but_heartbeat(made(NOW, node.Health()), made(NOW, node.Health("down")))


def test_at_most_fifty_images_the_largest_first() -> None:
    images = [cri.Image(id=f"i{n}", repo_tags=[f"r:{n}"], size=n) for n in range(60)]
    found = node.image_list([*images, cri.Image(id="nameless", size=99)])
    assert len(found) == 50 and found[0] == {"names": ["r:59"], "sizeBytes": 59}


def test_flags_for_labels_and_taints() -> None:
    assert node.parse_labels("a=b,c=") == {"a": "b", "c": ""}
    assert node.parse_taints("k=v:NoSchedule,x:NoExecute") == (("k", "v", "NoSchedule"), ("x", "", "NoExecute"))


@pytest.mark.parametrize("text", ["k", "k:Sometimes", ":NoSchedule"])
def test_bad_taints_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid taint"):
        node.parse_taints(text)
