"""Ephemeral containers in the pod machine: added to a pod that runs, never restarted, told in a list of their own."""

from __future__ import annotations

from typing import Any

import msgspec

from api.models import core_v1
from kubelet.pod import events as ev
from kubelet.pod.slot import Kind
from kubelet.status.pod_status import pod_status
from tests.unit.kubelet.pod.test_pod_machine import Node, at, make_pod, running, start

DEBUGGER = {"name": "debugger", "image": "busybox", "targetContainerName": "main", "stdin": True}


def added(node: Node, *containers: dict[str, Any]) -> None:
    """The API server's pod, with ephemeral containers."""
    raw = msgspec.to_builtins(node.machine.pod)
    raw["spec"]["ephemeralContainers"] = list(containers)
    node.post(ev.PodChanged(msgspec.convert(raw, core_v1.Pod, strict=False)))
    node.settle()


def told(node: Node) -> dict[str, Any]:
    status = pod_status(node.machine, "10.9.9.9", "nanokube", at(node.now).wall())
    found: dict[str, Any] = status["ephemeralContainerStatuses"][0]
    return found


def test_it_starts_in_a_running_pod_and_is_never_ready() -> None:
    node = running(make_pod())
    added(node, DEBUGGER)
    assert set(node.live) == {"main", "debugger"}
    slot = node.machine.slots["debugger"]
    assert (slot.kind, slot.target, slot.spec.stdin, slot.field) == (
        Kind.EPHEMERAL, "main", True, "ephemeralContainers",
    )  # fmt: skip
    status = told(node)
    assert "running" in status["state"]
    assert (status["ready"], status["restartCount"]) == (False, 0)
    assert not {"started", "resources"} & set(status)


def test_it_is_not_restarted_and_changes_neither_phase_nor_readiness() -> None:
    node = running(make_pod())
    added(node, DEBUGGER)
    node.exit("debugger", 3)
    node.settle()
    node.sleep(600)
    assert set(node.live) == {"main"}
    assert told(node)["state"]["terminated"]["exitCode"] == 3
    status = pod_status(node.machine, "10.9.9.9", "nanokube", at(node.now).wall())
    assert status["phase"] == "Running"
    assert {each["type"]: each["status"] for each in status["conditions"]}["ContainersReady"] == "True"


def test_it_does_not_wait_for_init_containers() -> None:
    node = start(make_pod(initContainers=[{"name": "init", "image": "busybox"}]))
    node.settle()
    assert set(node.live) == {"init"}
    added(node, {**DEBUGGER, "targetContainerName": "init"})
    assert set(node.live) == {"init", "debugger"}


def test_the_pod_ends_without_it() -> None:
    node = running(make_pod(restartPolicy="Never"))
    added(node, DEBUGGER)
    node.exit("main", 0)
    node.settle()
    assert not node.live
    status = pod_status(node.machine, "10.9.9.9", "nanokube", at(node.now).wall())
    assert status["phase"] == "Succeeded"


def test_a_second_one_joins_the_first() -> None:
    node = running(make_pod())
    added(node, DEBUGGER)
    first = node.live["debugger"].id
    added(node, DEBUGGER, {**DEBUGGER, "name": "another"})
    assert set(node.live) == {"main", "debugger", "another"}
    assert node.live["debugger"].id == first


def test_a_new_kubelet_adopts_it() -> None:
    node = running(make_pod())
    added(node, DEBUGGER)
    first = node.live["debugger"].id
    node.restart_kubelet()
    node.settle()
    assert node.live["debugger"].id == first
    assert "running" in told(node)["state"]
