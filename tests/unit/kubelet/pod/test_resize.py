"""In-place resize in the pod machine: asked of the node, carried out or put off, told in conditions and events."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from api.models import core_v1
from kubelet import admission
from kubelet.pod import events as ev
from kubelet.status.pod_status import pod_status, status_patch
from tests.unit.kubelet.pod.test_pod_machine import Node, at, make_pod, running

SMALL = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}
LARGE = {"requests": {"cpu": "150m", "memory": "64Mi"}, "limits": {"cpu": "300m", "memory": "64Mi"}}


def container(resources: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "main", "image": "busybox", "resources": resources, **more}


def resized(node: Node, resources: dict[str, Any]) -> None:
    """The API server's pod after a write to `…/resize`."""
    raw = msgspec.to_builtins(node.machine.pod)
    raw["spec"]["containers"][0]["resources"] = resources
    raw["metadata"]["generation"] = 2
    node.post(ev.PodChanged(msgspec.convert(raw, core_v1.Pod, strict=False)))


def status(node: Node) -> dict[str, Any]:
    return pod_status(node.machine, "10.9.9.9", "nanokube", at(node.now).wall())


def conditions(node: Node) -> dict[str, dict[str, Any]]:
    return {each["type"]: each for each in status(node)["conditions"] if each["type"].startswith("PodResize")}


def test_a_running_container_gets_what_it_asks_without_a_restart() -> None:
    node = running(make_pod([container(SMALL)]))
    first = node.live["main"].id
    resized(node, LARGE)
    node.finish()  # the node agrees
    assert conditions(node)["PodResizeInProgress"]["status"] == "True"
    held = status(node)["containerStatuses"][0]
    assert (held["resources"], held["allocatedResources"]) == (SMALL, LARGE["requests"])
    node.settle()
    held = status(node)["containerStatuses"][0]
    assert (held["resources"], held["allocatedResources"], held["restartCount"]) == (LARGE, LARGE["requests"], 0)
    assert node.live["main"].id == first
    assert not conditions(node)
    assert [event.reason for event in node.events if "Resize" in event.reason] == ["ResizeStarted", "ResizeCompleted"]
    assert node.events[-1].message == (
        'Pod resize completed: {"containers":[{"name":"main","resources":{"limits":{"cpu":"300m","memory":"64Mi"},'
        '"requests":{"cpu":"150m","memory":"64Mi"}}}],"generation":2}'
    )


@pytest.mark.parametrize("reason", ["Deferred", "Infeasible"])
def test_a_node_without_room_says_so_and_keeps_what_was(reason: str) -> None:
    node = running(make_pod([container(SMALL)]))
    node.room = (reason, "too much")
    resized(node, LARGE)
    node.settle()
    pending = conditions(node)["PodResizePending"]
    assert (pending["reason"], pending["message"]) == (reason, "too much")
    assert status(node)["containerStatuses"][0]["resources"] == SMALL
    assert f"Resize{reason}" in node.reasons()
    node.room = ("", "")
    node.post(ev.ResizeRetry())
    node.settle()
    assert not conditions(node)
    assert status(node)["containerStatuses"][0]["resources"] == LARGE


def test_a_wish_taken_back_is_no_longer_pending() -> None:
    node = running(make_pod([container(SMALL)]))
    node.room = ("Infeasible", "too much")
    resized(node, LARGE)
    node.settle()
    before = status(node)
    resized(node, SMALL)
    node.settle()
    assert not conditions(node)
    patch = status_patch("u-1", before, status(node))
    assert patch is not None
    assert {"$patch": "delete", "type": "PodResizePending"} in patch["status"]["conditions"]


def test_a_policy_may_want_a_restart() -> None:
    policy = [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]
    node = running(make_pod([container(SMALL, resizePolicy=policy)]))
    first = node.live["main"].id
    resized(node, LARGE)
    node.settle()
    assert node.live["main"].id != first
    assert "Container main resize requires restart" in [event.message for event in node.events]
    held = status(node)["containerStatuses"][0]
    assert (held["resources"], held["restartCount"]) == (LARGE, 1)
    assert "ResizeCompleted" in node.reasons()


def test_a_policy_for_another_resource_does_not() -> None:
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    node = running(make_pod([container(SMALL, resizePolicy=policy)]))
    first = node.live["main"].id
    resized(node, LARGE)
    node.settle()
    assert node.live["main"].id == first


def test_a_refusal_of_the_runtime_is_told_and_tried_again_later() -> None:
    node = running(make_pod([container(SMALL)]))
    node.fail = {"resize"}
    resized(node, LARGE)
    node.settle()
    assert (
        conditions(node)["PodResizeInProgress"] | {"reason": "Error", "message": "no"}
        == conditions(node)["PodResizeInProgress"]
    )
    assert node.reasons().count("ResizeError") == 1
    node.fail = set()
    node.sleep(11)
    assert not conditions(node)
    assert "ResizeCompleted" in node.reasons()


def test_a_new_kubelet_finishes_what_the_old_one_heard_of() -> None:
    node = running(make_pod([container(SMALL)]))
    node.room = ("Deferred", "later")
    resized(node, LARGE)
    node.settle()
    node.room = ("", "")
    node.restart_kubelet()
    node.settle()
    assert status(node)["containerStatuses"][0]["resources"] == LARGE
    assert status(node)["containerStatuses"][0]["restartCount"] == 0


@pytest.mark.parametrize(
    ("wanted", "used", "answer"),
    [
        pytest.param("1", "500m", ("", ""), id="fits"),
        pytest.param(
            "3",
            "0",
            ("Infeasible", "Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000"),
            id="never",
        ),
        pytest.param(
            "2",
            "500m",
            ("Deferred", "Node didn't have enough resource: cpu, requested: 2000, used: 500, capacity: 2000"),
            id="not-now",
        ),
    ],
)
def test_what_a_node_answers(wanted: str, used: str, answer: tuple[str, str]) -> None:
    pod, other = (make_pod([container({"requests": {"cpu": amount}})]) for amount in (wanted, used))
    assert admission.resize(pod, [other], admission.Allocatable(2000, 1 << 30, 10)) == answer
