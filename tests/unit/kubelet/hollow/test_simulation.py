"""What hollow nodes say of their pods."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from kubelet.hollow import simulation
from kubelet.hollow.simulation import HollowPod

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def pod(annotations: dict[str, str] | None = None, owner: str = "", **spec: Any) -> HollowPod:
    raw = {
        "metadata": {
            "name": "p",
            "namespace": "n",
            "uid": "u",
            "generation": 3,
            "annotations": annotations,
            "ownerReferences": [{"kind": owner, "controller": True}] if owner else None,
        },
        "spec": {"containers": [{"name": "c", "image": "i"}], "nodeName": "hollow-1", **spec},
        "status": {"phase": "Pending"},
    }
    return msgspec.convert(raw, HollowPod)


@pytest.mark.parametrize(
    ("annotations", "owner", "policy", "seconds"),
    [
        ({}, "", "Always", None),
        ({}, "", "Never", None),
        ({}, "Job", "Never", simulation.JOB_SECONDS),
        ({}, "ReplicaSet", "Never", None),
        ({simulation.RUN_SECONDS: "2.5"}, "Job", "OnFailure", 2.5),
        ({simulation.RUN_SECONDS: "2.5"}, "", "Always", None),
        ({simulation.RUN_SECONDS: "-1"}, "Job", "Never", simulation.JOB_SECONDS),
        ({simulation.RUN_SECONDS: "nan"}, "", "Never", None),
        ({simulation.RUN_SECONDS: "soon"}, "", "Never", None),
    ],
)
def test_how_long_a_pod_runs(annotations: dict[str, str], owner: str, policy: str, seconds: float | None) -> None:
    assert simulation.run_seconds(pod(annotations, owner, restartPolicy=policy)) == seconds


@pytest.mark.parametrize(("text", "code"), [("", 0), ("3", 3), ("256", 0), ("-1", 0), ("x", 0)])
def test_exit_code(text: str, code: int) -> None:
    assert simulation.exit_code(pod({simulation.EXIT_CODE: text})) == code


@pytest.mark.parametrize("number", [1, 255, 256, 65_536, simulation.ADDRESS_COUNT - 1])
def test_addresses_can_be_read_back(number: int) -> None:
    assert simulation.number_of(simulation.address(number)) == number


@pytest.mark.parametrize("text", ["", "10.244.0.1", "100.128.0.0", "a.b.c.d", "1.2.3"])
def test_foreign_addresses_have_no_number(text: str) -> None:
    assert simulation.number_of(text) is None


def test_first_and_last_address() -> None:
    assert simulation.address(1) == "100.64.0.1"
    assert simulation.address(simulation.ADDRESS_COUNT - 1) == "100.127.255.255"


def test_running_pod_is_ready_everywhere() -> None:
    sidecar = {"name": "s", "image": "i", "restartPolicy": "Always"}
    found = simulation.running(pod(initContainers=[{"name": "i", "image": "i"}, sidecar]), "100.64.0.1", "h", NOW)
    status = found["status"]
    assert found["metadata"] == {"uid": "u"}
    assert (status["phase"], status["podIP"], status["observedGeneration"]) == ("Running", "100.64.0.1", 3)
    assert {each["type"]: each["status"] for each in status["conditions"]} == {
        "PodReadyToStartContainers": "True",
        "Initialized": "True",
        "Ready": "True",
        "ContainersReady": "True",
    }
    assert [next(iter(each["state"])) for each in status["initContainerStatuses"]] == ["terminated", "running"]
    assert status["containerStatuses"][0]["ready"] is True


@pytest.mark.parametrize(("code", "phase", "reason"), [(0, "Succeeded", "PodCompleted"), (2, "Failed", "PodFailed")])
def test_ended_pod(code: int, phase: str, reason: str) -> None:
    status = simulation.ended(pod(), code, NOW)["status"]
    ready = next(each for each in status["conditions"] if each["type"] == "Ready")
    assert (status["phase"], ready["status"], ready["reason"]) == (phase, "False", reason)
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == code


@pytest.mark.parametrize(
    ("annotations", "requests", "expected"),
    [
        ({}, None, (10, 16 << 20)),
        ({}, {"cpu": "1", "memory": "1Gi"}, (500, 1 << 30)),
        ({simulation.CPU: "300m", simulation.MEMORY: "64Mi"}, {"cpu": "1"}, (300, 64 << 20)),
        ({simulation.CPU: "much"}, {"cpu": "200m"}, (100, 16 << 20)),
        ({simulation.CPU: "-5"}, None, (0, 16 << 20)),
    ],
)
def test_usage(annotations: dict[str, str], requests: dict[str, str] | None, expected: tuple[int, int]) -> None:
    container = {"name": "c", "image": "i", "resources": {"requests": requests}}
    made = pod(annotations, containers=[container])
    assert simulation.usage(made.spec.containers[0], made) == expected
