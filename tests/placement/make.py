"""Make the recorded clusters anew: `python -m tests.placement.make [SHAPE…]` (about 10 s each).

Each is a cluster of its own, brought up for it: one of shapes.py on an API server, controllers and a scheduler;
`hollow` on hollow nodes; `workers` on real machines.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from tests.harness.nanokube import Cluster, eventually
from tests.placement.parts import Object, pod, service, spec, workload
from tests.placement.record import record, text_of
from tests.placement.recorded import FOLDER
from tests.placement.shapes import SHAPES, Shape

ALONE = "apiserver,controller-manager,scheduler"


def _create(cluster: Cluster, objects: list[Object]) -> None:
    if not objects:
        return
    everything = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    cluster.kubectl("create", "-f", "-", stdin=everything)


def _settled(cluster: Cluster) -> bool:
    """Whether every workload has its pods, and the scheduler an opinion about every pod."""
    for each in cluster.items("deployments,statefulsets,daemonsets", "-A"):
        status = each["status"]
        wanted = each["spec"].get("replicas", status.get("desiredNumberScheduled", 0))
        found = status.get("replicas", status.get("currentNumberScheduled", 0))
        ordered = each["kind"] == "StatefulSet" and each["spec"].get("podManagementPolicy") != "Parallel"
        if status.get("observedGeneration") != each["metadata"]["generation"] or found < (1 if ordered else wanted):
            return False
    return all(
        any(condition["type"] == "PodScheduled" for condition in each["status"].get("conditions", ()))
        for each in cluster.items("pods", "-A")
    )


def make(cluster: Cluster, shape: Shape) -> None:
    """Bring about what a shape says; the scheduler is frozen before the arrivals."""
    namespaces = [each for each in shape.running if each["kind"] == "Namespace"]
    firsts = [each for each in shape.running if each["kind"] in ("Node", "PriorityClass", "StorageClass")]
    rest = [each for each in shape.running if each not in namespaces and each not in firsts]
    _create(cluster, [*namespaces, *firsts])
    for each in namespaces or [{"metadata": {"name": "default"}}]:
        account = ("get", "serviceaccount", "default", "-n", each["metadata"]["name"])
        eventually(lambda account=account: "default" in cluster.kubectl(*account, check=False), "service accounts")  # type: ignore[misc]
    _create(cluster, rest)
    eventually(lambda: _settled(cluster), "everything to be placed")
    before = len(cluster.items("pods", "-A"))
    os.kill(cluster.pid("scheduler"), signal.SIGSTOP)
    if shape.arriving:
        _create(cluster, shape.arriving)
        eventually(lambda: len(cluster.items("pods", "-A")) >= before + len(shape.arriving), "the arrivals")


def common(cluster: Cluster) -> Shape:
    """What users run on machines that are there already."""
    running = [service("web"), workload("Deployment", "web", 8, spec("100m", "32Mi"))]
    running.append(workload("DaemonSet", "agent", 0, spec("20m", "16Mi")))
    running.append(workload("StatefulSet", "db", 2, spec("150m", "64Mi"), serviceName="db"))
    return Shape(running, [pod(f"late-{n}", spec("200m"), labels={"app": "web"}) for n in range(4)])


def one(name: str) -> Object:
    """The record of a cluster of this name; the cluster is gone afterwards."""
    with tempfile.TemporaryDirectory() as home:
        cluster = Cluster("placement", Path(home))
        cluster.nanokube("down")
        try:
            if name == "workers":
                cluster.nanokube("up", "--workers", "3")
                make(cluster, common(cluster))
                return record(cluster.kubectl, "three real machines with the system's own pods")
            cluster.nanokube("up", "--only", ALONE)
            if name == "hollow":
                cluster.nanokube("hollow", "40", "--zones", "a,b,c", "--labels", "pool=hollow")
                eventually(lambda: len(cluster.ready_nodes()) == 40, "hollow nodes")
                make(cluster, common(cluster))
                return record(cluster.kubectl, "forty hollow nodes in three zones")
            make(cluster, SHAPES[name]())
            return record(cluster.kubectl, SHAPES[name].__doc__ or name)
        finally:
            cluster.nanokube("down")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.placement.make", description=__doc__)
    names = [*SHAPES, "hollow", "workers"]
    parser.add_argument("shape", nargs="*", choices=[[], *names], help="default: all")
    args = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in args.shape or names:
        found = one(name)
        (FOLDER / f"{name}.json").write_text(text_of(found))
        waiting = sum("nodeName" not in each["spec"] for each in found["pods"])
        print(f"{name}: {len(found['nodes'])} nodes, {len(found['pods'])} pods, {waiting} of them waiting", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
