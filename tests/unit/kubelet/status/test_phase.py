"""The phase of a pod, case by case as upstream's tables have it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from api.models import core_v1
from kubelet.status.phase import pod_phase

RUN: dict[str, Any] = {"state": {"running": {}}, "started": True}
OK: dict[str, Any] = {"state": {"terminated": {"exitCode": 0}}}
BAD: dict[str, Any] = {"state": {"terminated": {"exitCode": 1}}}
WAIT: dict[str, Any] = {"state": {"waiting": {"reason": "ContainerCreating"}}}
LOOP: dict[str, Any] = {
    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
    "lastState": {"terminated": {"exitCode": 1}},
}


def spec(policy: str, mains: int = 2, inits: int = 0, sidecars: int = 0) -> core_v1.PodSpec:
    raw = {
        "restartPolicy": policy,
        "containers": [{"name": f"m{i}"} for i in range(mains)],
        "initContainers": [
            *({"name": f"s{i}", "restartPolicy": "Always"} for i in range(sidecars)),
            *({"name": f"i{i}"} for i in range(inits)),
        ],
    }
    return msgspec.convert(raw, core_v1.PodSpec)


CASES = [
    ("Always", {}, "Pending", "nothing-known"),
    ("Always", {"m0": RUN, "m1": RUN}, "Running", "all-running"),
    ("Always", {"m0": OK, "m1": BAD}, "Running", "always-all-ended"),
    ("Always", {"m0": RUN, "m1": BAD}, "Running", "always-mixed"),
    ("Always", {"m0": RUN}, "Pending", "always-one-unknown"),
    ("Always", {"m0": RUN, "m1": WAIT}, "Pending", "always-one-waiting"),
    ("Always", {"m0": RUN, "m1": LOOP}, "Running", "always-crash-loop-beside-running"),
    ("Always", {"m0": LOOP, "m1": LOOP}, "Running", "always-all-crash-loop"),
    ("Never", {"m0": RUN, "m1": RUN}, "Running", "never-all-running"),
    ("Never", {"m0": OK, "m1": OK}, "Succeeded", "never-all-succeeded"),
    ("Never", {"m0": BAD, "m1": BAD}, "Failed", "never-all-failed"),
    ("Never", {"m0": OK, "m1": BAD}, "Failed", "never-mixed-ended"),
    ("Never", {"m0": RUN, "m1": BAD}, "Running", "never-running-and-failed"),
    ("Never", {"m0": RUN}, "Pending", "never-one-unknown"),
    ("OnFailure", {"m0": OK, "m1": OK}, "Succeeded", "onfailure-all-succeeded"),
    ("OnFailure", {"m0": BAD, "m1": BAD}, "Running", "onfailure-all-failed"),
    ("OnFailure", {"m0": RUN, "m1": BAD}, "Running", "onfailure-mixed"),
    ("OnFailure", {"m0": OK, "m1": LOOP}, "Running", "onfailure-crash-loop"),
]


@pytest.mark.parametrize(("policy", "statuses", "phase"), [pytest.param(*case[:3], id=case[3]) for case in CASES])
def test_phase_of_plain_pods(policy: str, statuses: dict[str, Any], phase: str) -> None:
    assert pod_phase(spec(policy), statuses) == phase


INIT_CASES = [
    ("Always", {"i0": RUN, "m0": WAIT}, "Pending", "init-running"),
    ("Always", {"i0": OK, "m0": RUN}, "Running", "init-done"),
    ("Always", {"i0": BAD, "m0": WAIT}, "Pending", "init-failed-always"),
    ("Always", {"i0": LOOP, "m0": WAIT}, "Pending", "init-crash-loop"),
    ("Never", {"i0": BAD, "m0": WAIT}, "Failed", "init-failed-never"),
    ("OnFailure", {"i0": BAD, "m0": WAIT}, "Pending", "init-failed-onfailure"),
]


@pytest.mark.parametrize(("policy", "statuses", "phase"), [pytest.param(*case[:3], id=case[3]) for case in INIT_CASES])
def test_phase_with_an_init_container(policy: str, statuses: dict[str, Any], phase: str) -> None:
    assert pod_phase(spec(policy, mains=1, inits=1), statuses) == phase


@pytest.mark.parametrize(
    ("statuses", "phase"),
    [
        pytest.param({"s0": RUN, "m0": RUN}, "Running", id="both-running"),
        pytest.param({"s0": {**RUN, "started": False}, "m0": WAIT}, "Pending", id="sidecar-starting"),
        pytest.param({"s0": LOOP, "m0": RUN}, "Running", id="sidecar-crash-loop"),
        pytest.param({"s0": BAD, "m0": OK}, "Succeeded", id="a-sidecar-decides-nothing"),
    ],
)
def test_phase_with_a_sidecar(statuses: dict[str, Any], phase: str) -> None:
    assert pod_phase(spec("Never", mains=1, sidecars=1), statuses) == phase


@pytest.mark.parametrize(
    ("statuses", "phase"),
    [
        pytest.param({"m0": OK, "m1": OK}, "Succeeded", id="all-zero"),
        pytest.param({"m0": OK, "m1": BAD}, "Failed", id="one-failed"),
        pytest.param({"m0": RUN, "m1": BAD}, "Running", id="still-running"),
    ],
)
def test_a_pod_at_its_end_never_goes_back_to_running(statuses: dict[str, Any], phase: str) -> None:
    assert pod_phase(spec("Always"), statuses, terminal=True) == phase
