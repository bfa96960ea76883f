"""The patch between two statuses, and the readiness conditions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from api.models import core_v1
from kubelet.pod import events as ev
from kubelet.pod.machine import PodMachine
from kubelet.pod.slot import Op
from kubelet.pod.timeline import Now
from kubelet.records import ContainerRecord, ContainerState, SandboxRecord
from kubelet.status.pod_status import pod_status, status_patch

NOW = datetime(2026, 1, 1, 0, 0, 10, tzinfo=UTC)
WALL = int(NOW.timestamp() * 1e9)


def machine(**more: Any) -> PodMachine:
    raw = {
        "metadata": {"name": "web", "namespace": "default", "uid": "u", "generation": 4},
        "spec": {"containers": [{"name": "main", "image": "busybox"}], **more.pop("spec", {})},
        "status": more,
    }
    made = PodMachine(msgspec.convert(raw, core_v1.Pod), Now(0, WALL))
    made.handle(ev.Observed(complete=True), Now(0, WALL))
    return made


def run(made: PodMachine) -> None:
    now = Now(0, WALL)
    made.handle(ev.SandboxStarted(SandboxRecord("s", 0, True, ips=("10.0.0.2",))), now)
    record = ContainerRecord("c", "main", 0, ContainerState.RUNNING, "s", WALL, WALL, hash=made.slots["main"].hash)
    made.handle(ev.ContainerStarted(record), now)


def conditions(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {condition["type"]: condition for condition in status["conditions"]}


def test_a_running_pod_is_ready_and_says_which_generation_it_speaks_of() -> None:
    made = machine()
    run(made)
    status = pod_status(made, "10.9.9.9", "nanokube", NOW)
    assert (status["phase"], status["podIP"], status["observedGeneration"]) == ("Running", "10.0.0.2", 4)
    assert {kind: each["status"] for kind, each in conditions(status).items()} == dict.fromkeys(
        ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"), "True"
    )
    assert status["containerStatuses"][0]["containerID"] == "nanokube://c"


def test_a_restart_under_way_still_tells_the_last_run() -> None:
    made = machine()
    run(made)
    slot = made.slots["main"]
    assert slot.current is not None
    slot.previous = replace(slot.current, state=ContainerState.EXITED, exit_code=1, reason="Error", finished_at=WALL)
    slot.current = ContainerRecord("d", "main", 1, ContainerState.CREATED, "s", WALL, hash=slot.hash)
    slot.op = Op.START

    def told() -> dict[str, Any]:
        status: dict[str, Any] = pod_status(made, "n", "x", NOW)["containerStatuses"][0]
        return status

    assert (told()["restartCount"], told()["containerID"]) == (0, "x://c")
    assert (told()["state"]["terminated"]["reason"], told()["lastState"]) == ("Error", {})
    slot.waiting = ("CrashLoopBackOff", "back-off 10s")
    assert told()["restartCount"] == 0
    assert told()["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert told()["lastState"]["terminated"]["exitCode"] == 1
    slot.op, slot.waiting = Op.IDLE, None
    slot.current = replace(slot.current, state=ContainerState.RUNNING, started_at=WALL)
    assert told()["restartCount"] == 1
    assert "running" in told()["state"]


def test_transition_times_stay_where_the_status_stays() -> None:
    old = {"type": "Ready", "status": "True", "lastTransitionTime": "2025-05-05T05:05:05Z"}
    made = machine(conditions=[old])
    assert conditions(pod_status(made, "n", "x", NOW))["Ready"]["lastTransitionTime"] == "2026-01-01T00:00:10Z"
    run(made)
    assert conditions(pod_status(made, "n", "x", NOW))["Ready"]["lastTransitionTime"] == "2025-05-05T05:05:05Z"


def test_a_readiness_gate_holds_the_pod_back() -> None:
    made = machine(spec={"readinessGates": [{"conditionType": "example.com/up"}]})
    run(made)
    ready = conditions(pod_status(made, "n", "x", NOW))["Ready"]
    assert (ready["status"], ready["reason"]) == ("False", "ReadinessGatesNotReady")
    assert ready["message"] == 'corresponding condition of pod readiness gate "example.com/up" does not exist.'


def test_an_evicted_or_rejected_pod_has_failed() -> None:
    made = machine()
    made.handle(ev.Rejected("OutOfcpu", "no room"), Now(0, WALL))
    status = pod_status(made, "n", "x", NOW)
    assert (status["phase"], status["reason"], status["message"]) == ("Failed", "OutOfcpu", "no room")


def test_no_patch_between_equal_statuses() -> None:
    made = machine()
    run(made)
    status = pod_status(made, "n", "x", NOW)
    assert status_patch("u", status, status) is None


def test_a_patch_names_only_what_differs_and_takes_old_reasons_away() -> None:
    old = {
        "phase": "Pending",
        "podIP": "1.2.3.4",
        "conditions": [
            {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "lastTransitionTime": "a"},
            {"type": "Theirs", "status": "True"},
        ],
    }
    new = {
        "phase": "Running",
        "podIP": "1.2.3.4",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "b"}],
    }
    assert status_patch("u", old, new) == {
        "metadata": {"uid": "u"},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "b", "reason": None}],
        },
    }
