"""A pass of the pod autoscaler over many targets, and what metrics-server costs, on hollow nodes."""

from __future__ import annotations

import json
import time
from typing import Any

from bench.harness import Figure, cluster, memory, say
from bench.load import cpu
from tests.harness.nanokube import Cluster, eventually

TARGETS, PODS = 500, 10
NODES, SECONDS = 1000, 45.0
PASSES = 3


def _manifest(number: int) -> dict[str, Any]:
    labels = {"app": f"t{number}"}
    container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": "10m", "memory": "1Mi"}}}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"t{number}", "namespace": "default"},
        "spec": {
            "replicas": PODS,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
    return deployment


def _autoscaler(number: int) -> dict[str, Any]:
    target = {"type": "Utilization", "averageUtilization": 50}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": f"t{number}", "namespace": "default"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"t{number}"},
            "minReplicas": 1,
            "maxReplicas": 20,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        },
    }


def _apply(made: Cluster, items: list[dict[str, Any]]) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    made.kubectl("create", "-f", "-", "--validate=false", stdin=text, timeout=110)


def _judged(made: Cluster) -> int:
    found = made.kubectl(
        "get",
        "hpa",
        "-o",
        'jsonpath={range .items[*]}{.status.currentMetrics[0].resource.current.averageUtilization}{"\\n"}{end}',
    )
    return sum(bool(line) for line in found.split("\n"))


def _passes(made: Cluster) -> Figure:
    """CPU of the controller manager and the API server for a pass; while both work on it alone, that is its time."""
    made.kubectl("top", "nodes", check=False)
    for first in range(0, TARGETS, 100):
        _apply(made, [_manifest(number) for number in range(first, first + 100)])
    eventually(
        lambda: (
            len(made.kubectl("get", "pods", "--field-selector=status.phase=Running", "-o", "name").split())
            >= TARGETS * PODS
        ),
        "pods",
        120,
        1,
    )
    for first in range(0, TARGETS, 100):
        _apply(made, [_autoscaler(number) for number in range(first, first + 100)])
    eventually(lambda: _judged(made) == TARGETS, "every autoscaler judged", 120, 1)
    manager, server = made.pid("controller-manager"), made.pid("apiserver")
    before = cpu(manager), cpu(server)
    time.sleep(15 * PASSES)
    spent = (cpu(manager) - before[0]) / PASSES, (cpu(server) - before[1]) / PASSES
    say(f"autoscaling: a pass costs the controller manager {spent[0]:.2f} s, the API server {spent[1]:.2f} s of CPU")
    what = f"HPA pass over {TARGETS} autoscalers of {PODS} pods, CPU of controller manager + API server"
    return Figure(what, f"{spent[0]:.2f} + {spent[1]:.2f} s", "1 s")


def _scraping(made: Cluster) -> Figure:
    pid = made.pid("metrics-server")
    eventually(
        lambda: made.kubectl("top", "nodes", "--no-headers", check=False).count("%") >= 2 * NODES,
        "usage of all nodes",
        90,
        1,
    )
    before, started = cpu(pid), time.monotonic()
    time.sleep(SECONDS)
    share = (cpu(pid) - before) / (time.monotonic() - started) * 100
    proportional, resident = memory(pid)
    what = f"metrics-server with {NODES:,} hollow nodes: memory (PSS, RSS); share of a core"
    return Figure(what, f"{proportional:.0f}, {resident:.0f} MiB; {share:.0f} %", "150 MiB; 15 %")


def run() -> list[Figure]:
    """One cluster without workers."""
    with cluster("bench-scale", "--only", "apiserver,scheduler,controller-manager,metrics-server") as made:
        made.nanokube("hollow", str(NODES), "--cpu", "4")
        scraping = _scraping(made)
        return [_passes(made), scraping]
