"""The whole story of autoscaling, told by the product itself: requests through a Service become CPU in real cgroups,
replicas, a machine; and all of that goes again. Then the same story is broken off, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.nanokube import CHECKOUT, Cluster, eventually

NAMESPACE = "demo-autoscaling"
STEPS = [
    "cluster",
    "pods run",
    "Service answers",
    "metrics come",
    "load begins",
    "CPU rises",
    "HPA raises replicas",
    "pods are Pending",
    "autoscaler asks",
    "machine is ordered",
    "machine runs",
    "node joins",
    "node is Ready",
    "all pods run",
    "load spreads",
    "load ends",
    "HPA lowers replicas",
    "node is unneeded",
    "node is given up",
    "node is drained",
    "node is gone",
    "machine is removed",
    "pods still run",
]


@pytest.fixture(scope="module")
def stage(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Nothing yet: the story brings up its cluster."""
    made = Cluster("e2e-story", tmp_path_factory.mktemp("home"))
    made.nanokube("down")
    try:
        yield made
    finally:
        made.nanokube("down")


def test_load_makes_replicas_and_machines_and_its_end_takes_them_away(stage: Cluster) -> None:
    told = json.loads(stage.nanokube("demo", "autoscaling", "--time-scale", "20", "--keep", "-o", "json", timeout=420))
    steps: list[dict[str, Any]] = told["steps"]
    assert told["ok"]
    assert [each["what"] for each in steps] == STEPS
    assert all(each["after"] >= 0 and each["evidence"] for each in steps)
    evidence = {each["what"]: each["evidence"] for each in steps}
    assert "reason: cpu resource utilization (percentage of request) above target" in evidence["HPA raises replicas"]
    assert "Insufficient cpu" in evidence["pods are Pending"]
    assert "pod triggered scale-up: [{workers 1->2 (max: 5)}]" in evidence["autoscaler asks"]
    assert "Ready=True" in evidence["node is Ready"]
    assert "New size: 2; reason: All metrics below target" in evidence["HPA lowers replicas"]

    explained = stage.nanokube("explain", "hpa", "web", "-n", NAMESPACE)
    assert f"HPA {NAMESPACE}/web left its target at 2" in explained
    assert "cpu resource utilization (percentage of request)" in explained
    assert "ValidMetricFound" in stage.kubectl("describe", "hpa", "web", "-n", NAMESPACE)
    status = stage.get("configmap", "cluster-autoscaler-status", "-n", "kube-system")["data"]["status"]
    assert "cloudProviderTarget: 1" in status
    assert "1 (1..5)" in stage.nanokube("explain", "nodegroup", "workers")
    (left,) = stage.ready_nodes()
    eventually(lambda: "NodeGroupMinSizeReached" in stage.nanokube("explain", "node", left), "why the last stays", 60)


def test_a_story_that_is_broken_off_leaves_nothing_behind(stage: Cluster) -> None:
    assert "another telling" in stage.fails("demo", "autoscaling").stderr
    stage.kubectl("delete", "namespace", NAMESPACE)
    machines = stage.ready_nodes()
    with subprocess.Popen(
        [str(CHECKOUT / "nanokube"), "demo", "autoscaling", "--name", stage.name],
        env={**os.environ, **stage.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as telling:
        assert telling.stdout is not None
        try:
            lines = []
            for line in telling.stdout:
                lines.append(line)
                if "machine is ordered" in line:
                    telling.send_signal(signal.SIGINT)
            assert telling.wait(60) == 130, "".join(lines)
        finally:
            telling.kill()
    assert stage.kubectl("get", "namespace", NAMESPACE, "--ignore-not-found") == ""
    eventually(lambda: stage.ready_nodes() == machines, "only the machines of before")
    groups = json.loads(stage.nanokube("cloud", "groups", "-o", "json"))["groups"]
    assert [each["desired"] for each in groups] == [1]
