"""The pod row in every state that kubectl users know."""

from datetime import UTC, datetime
from typing import Any

import pytest

from apiserver.tables.pods import cells, conditions

NOW = datetime(2026, 1, 1, 1, 0, 0, tzinfo=UTC)
RUNNING = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}


def status(state: dict[str, Any], *, ready: bool = False, restarts: int = 0, **more: Any) -> dict[str, Any]:
    return {"name": "main", "ready": ready, "restartCount": restarts, "state": state, **more}


def pod(phase: str, *, containers: int = 1, init: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    """`init` lists names; a leading ``+`` makes a restartable one."""
    spec: dict[str, Any] = {"containers": [{"name": f"c{i}"} for i in range(containers)]}
    spec["initContainers"] = [
        {"name": name.lstrip("+"), **({"restartPolicy": "Always"} if name[0] == "+" else {})} for name in init
    ]
    spec.update(fields.pop("spec", {}))
    metadata = {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z", **fields.pop("metadata", {})}
    return {"metadata": metadata, "spec": spec, "status": {"phase": phase, **fields}}


@pytest.mark.parametrize(
    ("obj", "ready", "reason", "restarts"),
    [
        pytest.param(pod("Pending"), "0/1", "Pending", "0", id="pending"),
        pytest.param(
            pod("Running", containerStatuses=[status(RUNNING, ready=True)]), "1/1", "Running", "0", id="running"
        ),
        pytest.param(
            pod(
                "Running",
                containerStatuses=[
                    status(
                        {"waiting": {"reason": "CrashLoopBackOff"}},
                        restarts=4,
                        lastState={"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:59:55Z"}},
                    )
                ],
            ),
            "0/1",
            "CrashLoopBackOff",
            "4 (5s ago)",
            id="crash loop",
        ),
        pytest.param(
            pod("Pending", containerStatuses=[status({"waiting": {"reason": "ContainerCreating"}})]),
            "0/1",
            "ContainerCreating",
            "0",
            id="creating",
        ),
        pytest.param(
            pod(
                "Pending",
                init=("i1", "i2"),
                initContainerStatuses=[
                    {**status({"terminated": {"exitCode": 0, "reason": "Completed"}}), "name": "i1"},
                    {**status({"running": {}}), "name": "i2"},
                ],
            ),
            "0/1",
            "Init:1/2",
            "0",
            id="second init container",
        ),
        pytest.param(
            pod(
                "Pending",
                init=("i1",),
                initContainerStatuses=[
                    {**status({"waiting": {"reason": "CrashLoopBackOff"}}, restarts=1), "name": "i1"}
                ],
            ),
            "0/1",
            "Init:CrashLoopBackOff",
            "1",
            id="init crash loop",
        ),
        pytest.param(
            pod(
                "Pending",
                init=("i1",),
                initContainerStatuses=[{**status({"terminated": {"exitCode": 3, "signal": 0}}), "name": "i1"}],
            ),
            "0/1",
            "Init:ExitCode:3",
            "0",
            id="init exit code",
        ),
        pytest.param(
            pod(
                "Pending",
                init=("i1",),
                initContainerStatuses=[{**status({"terminated": {"exitCode": 137, "signal": 9}}), "name": "i1"}],
            ),
            "0/1",
            "Init:Signal:9",
            "0",
            id="init signal",
        ),
        pytest.param(
            pod(
                "Pending",
                init=("i1",),
                initContainerStatuses=[{**status({"waiting": {"reason": "PodInitializing"}}), "name": "i1"}],
            ),
            "0/1",
            "Init:0/1",
            "0",
            id="init waits",
        ),
        pytest.param(
            pod(
                "Running",
                init=("+sc",),
                initContainerStatuses=[{**status(RUNNING, ready=True, restarts=2, started=True), "name": "sc"}],
                containerStatuses=[status(RUNNING, ready=True, restarts=1)],
            ),
            "2/2",
            "Running",
            "3",
            id="sidecar",
        ),
        pytest.param(
            pod("Succeeded", containerStatuses=[status({"terminated": {"exitCode": 0, "reason": "Completed"}})]),
            "0/1",
            "Completed",
            "0",
            id="completed",
        ),
        pytest.param(
            pod(
                "Failed",
                reason="Evicted",
                containerStatuses=[status({"terminated": {"exitCode": 1, "reason": "Error"}}, restarts=2)],
            ),
            "0/1",
            "Error",
            "2",
            id="the container's reason wins over the pod's",
        ),
        pytest.param(pod("Failed", reason="Evicted"), "0/1", "Evicted", "0", id="evicted"),
        pytest.param(
            pod(
                "Running",
                containers=2,
                conditions=[{"type": "Ready", "status": "False"}],
                containerStatuses=[
                    status(RUNNING, ready=True, restarts=1),
                    status({"terminated": {"exitCode": 0, "reason": "Completed"}}, restarts=5),
                ],
            ),
            "1/2",
            "NotReady",
            "6",
            id="one of two completed",
        ),
        pytest.param(
            pod("Running", containerStatuses=[status({"terminated": {"exitCode": 2}})]),
            "0/1",
            "ExitCode:2",
            "0",
            id="code",
        ),
        pytest.param(
            pod("Running", containerStatuses=[status({"terminated": {"exitCode": 1, "signal": 15}})]),
            "0/1",
            "Signal:15",
            "0",
            id="signal",
        ),
        pytest.param(
            pod("Pending", conditions=[{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]),
            "0/1",
            "SchedulingGated",
            "0",
            id="gated",
        ),
        pytest.param(
            pod(
                "Running",
                metadata={"deletionTimestamp": "2026-01-01T00:59:00Z"},
                containerStatuses=[status(RUNNING, ready=True)],
            ),
            "1/1",
            "Terminating",
            "0",
            id="terminating",
        ),
        pytest.param(
            pod(
                "Succeeded",
                metadata={"deletionTimestamp": "2026-01-01T00:59:00Z"},
                containerStatuses=[status({"terminated": {"exitCode": 0, "reason": "Completed"}})],
            ),
            "0/1",
            "Completed",
            "0",
            id="finished pods do not terminate",
        ),
        pytest.param(
            pod("Running", reason="NodeLost", metadata={"deletionTimestamp": "2026-01-01T00:59:00Z"}),
            "0/1",
            "Unknown",
            "0",
            id="node lost",
        ),
        pytest.param(pod("Unknown"), "0/1", "Unknown", "0", id="unknown"),
    ],
)
def test_state(obj: dict[str, Any], ready: str, reason: str, restarts: str) -> None:
    assert cells(obj, NOW)[:5] == ["p", ready, reason, restarts, "60m"]


def test_wide_columns() -> None:
    obj = pod(
        "Running",
        spec={"nodeName": "n1", "readinessGates": [{"conditionType": "g1"}, {"conditionType": "g2"}]},
        podIPs=[{"ip": "10.1.0.5"}],
        nominatedNodeName="n2",
        conditions=[{"type": "g1", "status": "True"}],
    )
    assert cells(obj, NOW)[5:] == ["10.1.0.5", "n1", "n2", "1/2"]
    assert cells(pod("Pending"), NOW)[5:] == ["<none>"] * 4


def test_finished_pods_are_marked() -> None:
    assert conditions(pod("Running")) == []
    assert conditions(pod("Failed"))[0]["message"] == "The pod failed."
