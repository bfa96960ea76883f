"""`kubectl top` on a plain cluster: usage measured in real cgroups, by way of aggregation."""

from __future__ import annotations

import json

from machinery import quantity
from tests.harness.nanokube import Cluster, eventually

BURN = ("--image=busybox", "--restart=Never", "--", "sh", "-c", "while :; do :; done")


def test_top(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("run", "busy", "-n", namespace, *BURN)
    service = cluster.kubectl("get", "apiservice", "v1beta1.metrics.k8s.io").splitlines()[1].split()
    assert service[:3] == ["v1beta1.metrics.k8s.io", "kube-system/metrics-server", "True"]

    def rows(*arguments: str) -> dict[str, list[str]]:
        lines = cluster.kubectl("top", *arguments, check=False).splitlines()[1:]
        return {line.split()[0]: line.split()[1:] for line in lines if line.split()}

    def nodes() -> dict[str, list[str]]:
        """Usage of the nodes of which it is known."""
        return {name: cells for name, cells in rows("nodes").items() if cells[0].endswith("m")}

    eventually(lambda: nodes().keys() == cluster.ready_nodes(), "usage of all nodes", timeout=60, pause=0.5)
    assert all(memory.endswith("Mi") for _, _, memory, _ in nodes().values())
    busy = eventually(lambda: rows("pods", "-n", namespace).get("busy", []), "usage of the pod", timeout=60, pause=0.5)
    assert quantity.parse(busy[0]) > quantity.parse("100m")
    raw = json.loads(cluster.kubectl("get", "--raw", f"/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods/busy"))
    assert [each["name"] for each in raw["containers"]] == ["busy"]
    assert raw["metadata"]["labels"]["run"] == "busy"
