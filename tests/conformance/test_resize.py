"""sig-node: pods resized in place on a real cluster: the status, the kernel and the restart counts agree."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.objects import STAY
from tests.harness.api import Api, Obj
from tests.harness.nanokube import Cluster, eventually, is_ready

NAME = "[sig-node] Pod InPlace Resize Container "
SINCE = " [MinimumKubeletVersion:1.34] [Conformance]"
GUARANTEED = NAME + "guaranteed pods with multiple containers 3 containers - "
READ = (
    "cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/memory.max 2>/dev/null || "
    "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/memory/memory.limit_in_bytes"
)


def resources(cpu: str = "", memory: str = "", cpu_limit: str = "", memory_limit: str = "") -> Obj:
    """Requests and limits; what is empty is unset."""
    sides = {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu_limit, "memory": memory_limit}}
    held = {side: {name: amount for name, amount in values.items() if amount} for side, values in sides.items()}
    return {side: values for side, values in held.items() if values}


def guaranteed(cpu: str, memory: str) -> Obj:
    return resources(cpu, memory, cpu, memory)


def made(api: Api, namespace: str, sizes: list[Obj]) -> Obj:
    containers = [
        {"name": f"c{number}", "image": "busybox", "command": STAY, "resources": size}
        for number, size in enumerate(sizes, start=1)
    ]
    spec = {"containers": containers, "terminationGracePeriodSeconds": 1}
    pods = api.of("v1", "pods", namespace)
    pods.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "resized"}, "spec": spec})
    eventually(lambda: is_ready(pods.get("resized")), "the pod ready")
    return pods.get("resized")


def milli(text: str) -> int:
    return int(text[:-1]) if text.endswith("m") else int(float(text) * 1000)


def check(cluster: Cluster, api: Api, namespace: str, sizes: list[Obj]) -> None:
    """Until status and kernel have these sizes; nothing was restarted and no condition is left."""
    pods = api.of("v1", "pods", namespace)

    def told() -> bool:
        status = pods.get("resized")["status"]
        held = [each.get("resources") for each in status["containerStatuses"]]
        kinds = {each["type"] for each in status["conditions"]}
        return held == sizes and not kinds & {"PodResizePending", "PodResizeInProgress"}

    eventually(told, "the sizes in the status")
    for number, size in enumerate(sizes, start=1):
        limits = size.get("limits", {})
        inside = ("exec", "-n", namespace, "resized", "-c", f"c{number}", "--", "sh", "-c", READ)
        quota, memory = (line.split()[0] for line in cluster.kubectl(*inside).strip().splitlines()[:2])
        if "cpu" in limits:
            assert int(quota) == max(milli(limits["cpu"]) * 100, 1000)  # the kernel's least
        if "memory" in limits:
            assert int(memory) == int(limits["memory"].removesuffix("Mi")) << 20
    statuses = pods.get("resized")["status"]["containerStatuses"]
    assert [each["restartCount"] for each in statuses] == [0] * len(sizes)


def patch(sizes: list[Obj]) -> Obj:
    return {
        "spec": {
            "containers": [{"name": f"c{number}", "resources": size} for number, size in enumerate(sizes, start=1)]
        }
    }


CASES: list[Any] = [
    pytest.param(
        [guaranteed("100m", "64Mi")] * 3,
        [guaranteed("140m", "80Mi"), guaranteed("150m", "72Mi"), guaranteed("80m", "56Mi")],
        marks=pytest.mark.conformance(
            GUARANTEED + "increase cpu & mem on c1, c2, decrease cpu & mem on c3 - net increase" + SINCE
        ),
        id="net-increase",
    ),
    pytest.param(
        [guaranteed("100m", "64Mi")] * 3,
        [guaranteed("110m", "70Mi"), guaranteed("70m", "50Mi"), guaranteed("60m", "48Mi")],
        marks=pytest.mark.conformance(
            GUARANTEED + "increase cpu & mem on c1, decrease cpu & mem on c2, c3 - net decrease" + SINCE
        ),
        id="net-decrease",
    ),
    pytest.param(
        [guaranteed("100m", "64Mi")] * 3,
        [guaranteed("120m", "64Mi"), guaranteed("80m", "72Mi"), guaranteed("130m", "80Mi")],
        marks=pytest.mark.conformance(
            GUARANTEED + "increase: CPU (c1,c3), memory (c2, c3) ; decrease: CPU (c2)" + SINCE
        ),
        id="mixed",
    ),
    pytest.param(
        [
            resources("50m", "32Mi", "100m", "64Mi"),
            resources("50m", "32Mi", "100m", "64Mi"),
            resources("50m", "32Mi"),
            resources("50m", "32Mi"),
            resources("50m", "", "100m"),
            resources("", "32Mi", "", "64Mi"),
        ],
        [
            resources("60m", "32Mi", "120m", "64Mi"),
            resources("50m", "40Mi", "100m", "80Mi"),
            resources("50m", "32Mi", "100m", "64Mi"),
            resources("70m", "48Mi"),
            resources("50m", "32Mi", "100m", "64Mi"),
            resources("40m", "32Mi", "90m", "72Mi"),
        ],
        marks=pytest.mark.conformance(
            NAME
            + "burstable pods - extended 6 containers - various operations performed (including adding limits and"
            + " requests)"
            + SINCE
        ),
        id="six-containers",
    ),
    pytest.param(
        [resources("2m", "32Mi", "10m", "64Mi")],
        [resources("1m", "32Mi", "5m", "64Mi")],
        marks=pytest.mark.conformance(NAME + "burstable pods - extended resize with equivalents" + SINCE),
        id="equivalents",
    ),
]


@pytest.mark.parametrize(("before", "after"), CASES)
def test_resizing_there_and_back(
    cluster: Cluster, api: Api, namespace: str, before: list[Obj], after: list[Obj]
) -> None:
    made(api, namespace, before)
    check(cluster, api, namespace, before)
    pods = api.of("v1", "pods", namespace)
    pods.patch("resized", patch(after), "strategic", "resize")
    check(cluster, api, namespace, after)


@pytest.mark.conformance(NAME + "resize pod via the replace endpoint" + SINCE)
def test_resizing_by_replacement(cluster: Cluster, api: Api, namespace: str) -> None:
    pod = made(api, namespace, [guaranteed("100m", "64Mi")])
    after = guaranteed("150m", "80Mi")

    def change(obj: Obj) -> None:
        obj["spec"]["containers"][0]["resources"] = after

    api.of("v1", "pods", namespace).modify(pod["metadata"]["name"], change, "resize")
    check(cluster, api, namespace, [after])
