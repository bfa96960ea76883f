"""Placement as a user of a real cluster sees it: apart, together, spread, by priority, and explained."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.nanokube import Cluster, eventually

ZONE = "topology.kubernetes.io/zone"
SLEEP = ["sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait"]


def container(cpu: str = "10m") -> dict[str, Any]:
    return {"name": "app", "image": "busybox", "command": SLEEP, "resources": {"requests": {"cpu": cpu}}}


def deployment(name: str, replicas: int, **spec: Any) -> dict[str, Any]:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 2, "containers": [container()], **spec},
            },
        },
    }


def bare(name: str, cpu: str = "10m", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 2, "containers": [container(cpu)], **spec},
    }


@pytest.fixture
def apply(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[Any]:
    made: list[dict[str, Any]] = []

    def applied(*objects: dict[str, Any]) -> None:
        made.extend(objects)
        file = tmp_path / "objects.json"
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))
        cluster.kubectl("apply", "-n", namespace, "--validate=false", "-f", str(file))

    yield applied
    for each in made:
        if each["kind"] == "PriorityClass":
            cluster.kubectl("delete", "priorityclass", each["metadata"]["name"], "--wait=false")


def homes(cluster: Cluster, namespace: str, selector: str) -> Counter[str]:
    return Counter(pod["spec"].get("nodeName", "") for pod in cluster.pods(selector, namespace))


def test_replicas_keep_apart_and_one_too_many_waits(cluster: Cluster, namespace: str, apply: Any) -> None:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "apart"}}}
    apart = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    apply(deployment("apart", 4, affinity=apart))
    eventually(lambda: len(cluster.running("app=apart", namespace)) == 3, "three running pods")
    placed = homes(cluster, namespace, "app=apart")
    assert sorted(placed.values()) == [1, 1, 1, 1] and "" in placed
    (waiting,) = [pod for pod in cluster.pods("app=apart", namespace) if not pod["spec"].get("nodeName")]
    (condition,) = [each for each in waiting["status"]["conditions"] if each["type"] == "PodScheduled"]
    assert condition["reason"] == "Unschedulable"
    assert condition["message"].startswith(
        "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules. preemption: 0/3 nodes are available: "
    )
    explained = cluster.nanokube("explain", "pod", waiting["metadata"]["name"], "-n", namespace)
    assert explained.count("InterPodAffinity: node(s) didn't match pod anti-affinity rules") == 3
    assert "Now in the queue: unschedulable." in explained
    running = cluster.running("app=apart", namespace)[0]
    explained = cluster.nanokube("explain", "pod", running["metadata"]["name"], "-n", namespace)
    assert f"was given to {running['spec']['nodeName']}" in explained
    assert "NodeResourcesFit" in explained.splitlines()[2]


def test_a_pod_follows_another_to_its_node(cluster: Cluster, namespace: str, apply: Any) -> None:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "cache"}}}
    near = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    apply(bare("front", affinity=near), bare("cache"))
    eventually(lambda: len(cluster.running("app in (front,cache)", namespace)) == 2, "both pods to run")
    assert len(homes(cluster, namespace, "app in (front,cache)")) == 1


def test_replicas_spread_evenly(cluster: Cluster, namespace: str, apply: Any) -> None:
    constraint = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "even"}},
    }
    apply(deployment("even", 6, topologySpreadConstraints=[constraint]))
    eventually(lambda: len(cluster.running("app=even", namespace)) == 6, "six running pods")
    assert sorted(homes(cluster, namespace, "app=even").values()) == [2, 2, 2]


def test_a_missing_label_is_named(cluster: Cluster, namespace: str, apply: Any) -> None:
    constraint = {
        "maxSkew": 1,
        "topologyKey": "example.com/rack",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "racked"}},
    }
    apply(bare("racked", topologySpreadConstraints=[constraint]))
    text = "3 node(s) didn't match pod topology spread constraints (missing required label)"
    eventually(lambda: text in cluster.kubectl("describe", "pod", "racked", "-n", namespace), "the reason")


def test_the_more_important_pod_takes_the_place(cluster: Cluster, namespace: str, apply: Any) -> None:
    urgent = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 1000}
    name = f"urgent-{namespace}"
    apply({**urgent, "metadata": {"name": name}})
    node = sorted(cluster.ready_nodes())[0]
    pinned = {"nodeSelector": {"kubernetes.io/hostname": node}}
    apply(bare("modest", "1500m", **pinned))
    eventually(lambda: len(cluster.running("app=modest", namespace)) == 1, "the first pod to run")
    apply(bare("urgent", "1500m", priorityClassName=name, **pinned))
    eventually(lambda: len(cluster.running("app=urgent", namespace)) == 1, "the urgent pod to run", timeout=60)
    eventually(lambda: not cluster.pods("app=modest", namespace), "the victim to be gone")
    told = cluster.kubectl("get", "events", "-n", namespace, "--field-selector=reason=Preempted", "-o", "json")
    (event,) = json.loads(told)["items"]
    (preemptor,) = cluster.pods("app=urgent", namespace)
    assert event["message"] == f"Preempted by pod {preemptor['metadata']['uid']} on node {node}"
    assert event["involvedObject"]["name"] == "modest"


def test_an_unknown_pod_is_said_to_be_unknown(cluster: Cluster) -> None:
    assert 'pods "nobody" not found' in cluster.nanokube("explain", "pod", "nobody", check=False)
