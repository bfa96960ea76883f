"""The vertical autoscaler on a real cluster: busy containers get what they need, in place or as new pods."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from machinery import quantity
from tests.harness.nanokube import Cluster, brought_up, eventually

BUSY = "trap 'exit 0' TERM; while :; do :; done"


@pytest.fixture(scope="module")
def vertical(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A worker and the autoscaler, which looks every other second."""
    made = Cluster("e2e-vpa", tmp_path_factory.mktemp("home"))
    yield from brought_up(made, "--workers", "1", "--time-scale", "30", "--vpa")


def deploy(cluster: Cluster, name: str, mode: str) -> set[str]:
    """Two busy pods that ask for little, and their autoscaler; the uids of the pods."""
    container = {
        "name": "main",
        "image": "busybox",
        "command": ["sh", "-c", BUSY],
        "resources": {"requests": {"cpu": "30m", "memory": "16Mi"}, "limits": {"cpu": "150m"}},
    }
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    deployment = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    policy = {"containerPolicies": [{"containerName": "*", "maxAllowed": {"cpu": "100m"}}]}
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    autoscaler = {"targetRef": target, "updatePolicy": {"updateMode": mode}, "resourcePolicy": policy}
    for version, kind, spec in (
        ("apps/v1", "Deployment", deployment),
        ("autoscaling.k8s.io/v1", "VerticalPodAutoscaler", autoscaler),
    ):
        body = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(body))
    pods = eventually(lambda: two(cluster, name), "two pods")
    return {pod["metadata"]["uid"] for pod in pods}


def two(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    found = cluster.running(f"app={name}")
    return found if len(found) == 2 else []


def raised(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    """Both pods, once they have what they need."""

    def has(pod: dict[str, Any]) -> bool:
        resources = pod["status"]["containerStatuses"][0].get("resources") or {}
        return quantity.parse((resources.get("requests") or {}).get("cpu", "0")) == quantity.parse("100m")

    found = two(cluster, name)
    return found if found and all(has(pod) for pod in found) else []


def test_busy_containers_are_resized_in_place(vertical: Cluster) -> None:
    before = deploy(vertical, "grows", "InPlaceOrRecreate")
    after = eventually(lambda: raised(vertical, "grows"), "raised requests", timeout=90, pause=0.3)
    assert {pod["metadata"]["uid"] for pod in after} == before
    assert {pod["status"]["containerStatuses"][0]["restartCount"] for pod in after} == {0}
    assert after[0]["spec"]["containers"][0]["resources"]["limits"]["cpu"] == "500m"  # as 150m stood to 30m
    header, row = vertical.kubectl("get", "vpa", "grows").splitlines()
    assert header.split() == ["NAME", "MODE", "CPU", "MEM", "PROVIDED", "AGE"]
    assert row.split()[:5] == ["grows", "InPlaceOrRecreate", "100m", "262144k", "True"]
    told = vertical.nanokube("explain", "vpa", "grows")
    assert told.startswith("VPA default/grows recommends main cpu 100m, memory 262144k.")
    assert "MAX ALLOWED" in told and after[0]["metadata"]["name"] in told
    assert "InPlaceResizedByVPA" in vertical.kubectl("get", "events")


def test_busy_containers_are_recreated(vertical: Cluster) -> None:
    before = deploy(vertical, "anew", "Recreate")
    after = eventually(lambda: raised(vertical, "anew"), "new pods", timeout=90, pause=0.3)
    assert not {pod["metadata"]["uid"] for pod in after} & before
    assert {pod["metadata"]["annotations"]["vpaObservedContainers"] for pod in after} == {"main"}
    assert "EvictedByVPA" in vertical.kubectl("get", "events")
