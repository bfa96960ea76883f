"""A zone of three dies: its nodes are given up, its pods move, and what has a name of its own waits to be told."""

from __future__ import annotations

import json
from typing import Any

from tests.harness.nanokube import Cluster, eventually

STATE = "hollow.nanokube.io/state"


def keeper(kind: str, name: str, replicas: int, **more: Any) -> str:
    labels = {"app": name}
    spread = {
        "maxSkew": 1,
        "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels},
    }
    spec = {
        "nodeSelector": {"zoned": "yes"},
        "topologySpreadConstraints": [spread],
        "containers": [{"name": "main", "image": "any"}],
    }
    template = {"metadata": {"labels": labels}, "spec": spec}
    body = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template, **more}
    return json.dumps({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": body})


def where(cluster: Cluster, app: str) -> dict[str, str]:
    """Node by the name of every ready pod."""
    return {each["metadata"]["name"]: each["spec"]["nodeName"] for each in cluster.running(f"app={app}")}


def test_a_dead_zone_is_given_up_and_comes_back(fast: Cluster) -> None:
    fast.nanokube("hollow", "6", "--zones", "a,b,c", "--labels", "zoned=yes")
    eventually(lambda: len(fast.ready_nodes()) == 9, "six hollow nodes beside three workers")
    fast.kubectl("create", "-f", "-", stdin=keeper("Deployment", "web", 6))
    policy = {"podManagementPolicy": "Parallel", "serviceName": "db"}
    fast.kubectl("create", "-f", "-", stdin=keeper("StatefulSet", "db", 3, **policy))
    eventually(lambda: (len(where(fast, "web")), len(where(fast, "db"))) == (6, 3), "all pods to run")
    zones = {
        each["metadata"]["name"]: each["metadata"]["labels"].get("topology.kubernetes.io/zone")
        for each in fast.items("nodes")
    }
    dead = sorted(name for name, zone in zones.items() if zone == "a")
    lost = {name for name, node in where(fast, "db").items() if node in dead}
    assert lost, "the set is spread over the zones"
    assert any(node in dead for node in where(fast, "web").values())

    fast.kubectl("annotate", "nodes", *dead, f"{STATE}=dead")
    eventually(lambda: not fast.ready_nodes() & set(dead), "the zone to turn NotReady")

    def moved() -> bool:
        nodes = where(fast, "web").values()
        return len(nodes) == 6 and not set(nodes) & set(dead)

    eventually(moved, "six pods in the zones that live", timeout=60)
    stuck = {each["metadata"]["name"]: each for each in fast.pods("app=db")}
    assert all(stuck[name]["spec"]["nodeName"] in dead for name in lost), "a name is not given away on a suspicion"

    fast.kubectl("taint", "nodes", *dead, "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute")

    def replaced() -> bool:
        nodes = where(fast, "db").values()
        return len(nodes) == 3 and not set(nodes) & set(dead)

    eventually(replaced, "the set's pods elsewhere, once somebody has said that the nodes are off", timeout=60)

    fast.kubectl("taint", "nodes", *dead, "node.kubernetes.io/out-of-service-")
    fast.kubectl("annotate", "nodes", *dead, f"{STATE}-")
    eventually(lambda: set(dead) <= fast.ready_nodes(), "the zone to come back")
    eventually(lambda: not any(fast.get("node", name)["spec"].get("taints") for name in dead), "its taints to go")
    assert {each["metadata"]["name"] for each in fast.pods("app=web")} == set(where(fast, "web")), "nothing old is left"
    fast.kubectl("delete", "deployment/web", "statefulset/db")
    fast.nanokube("hollow", "0")
