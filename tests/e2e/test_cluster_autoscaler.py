"""The cluster autoscaler of a plain `up`: a Deployment that is too large gets a machine, and its end takes it away."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.harness.nanokube import Cluster, brought_up, eventually


@pytest.fixture(scope="module")
def growing(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One worker, time thirty times as fast: ten minutes are twenty seconds."""
    made = Cluster("e2e-autoscaler", tmp_path_factory.mktemp("home"))
    yield from brought_up(made, "--workers", "1", "--time-scale", "30")


def deployment(replicas: int) -> str:
    container = {
        "name": "main",
        "image": "busybox",
        "command": ["sleep", "100000"],
        "resources": {"requests": {"cpu": "700m"}},
    }
    labels = {"app": "large"}
    pod = {"containers": [container], "terminationGracePeriodSeconds": 0}
    return json.dumps(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "large"},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        }
    )


def test_machines_come_for_pods_and_go_with_them(growing: Cluster) -> None:
    growing.kubectl("apply", "-f", "-", stdin=deployment(4))
    eventually(lambda: growing.ready_nodes() == {"worker-1", "worker-2"}, "a second machine", 60)
    available = "jsonpath={.status.availableReplicas}"
    eventually(lambda: growing.kubectl("get", "deploy", "large", "-o", available) == "4", "all replicas", 60)
    reasons = {each["reason"] for each in growing.items("events")}
    assert "TriggeredScaleUp" in reasons
    status = growing.get("configmap", "cluster-autoscaler-status", "-n", "kube-system")["data"]["status"]
    assert "cloudProviderTarget: 2" in status
    told = growing.nanokube("explain", "nodegroup", "workers")
    assert "2 (1..5)" in told

    growing.kubectl("scale", "deploy", "large", "--replicas=1")
    eventually(lambda: len(growing.ready_nodes()) == 1, "one machine less", 110)
    eventually(lambda: growing.kubectl("get", "deploy", "large", "-o", available) == "1", "the replica", 60)
    (left,) = growing.ready_nodes()
    eventually(lambda: "NodeGroupMinSizeReached" in growing.nanokube("explain", "node", left), "why the last stays", 60)
