"""Admission at the node."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from api.models import core_v1
from kubelet.admission import Allocatable, admit

ROOM = Allocatable(cpu_milli=2000, memory=1 << 30, pods=2)


def pod(**spec: Any) -> core_v1.Pod:
    requests = spec.pop("requests", {})
    containers = [{"name": "c", "resources": {"requests": requests}}]
    return msgspec.convert({"metadata": {"name": "p"}, "spec": {"containers": containers, **spec}}, core_v1.Pod)


def wants(operator: str, *values: str, key: str = "disk") -> dict[str, Any]:
    terms = [{"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}]
    required = {"nodeSelectorTerms": terms}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


@pytest.mark.parametrize(
    ("candidate", "others", "reason"),
    [
        pytest.param(pod(), 0, None, id="fits"),
        pytest.param(pod(requests={"cpu": "2001m"}), 0, "OutOfcpu", id="cpu"),
        pytest.param(pod(requests={"cpu": "1"}), 1, "OutOfcpu", id="cpu-with-others"),
        pytest.param(pod(requests={"memory": "2Gi"}), 0, "OutOfmemory", id="memory"),
        pytest.param(pod(), 2, "OutOfpods", id="pods"),
        pytest.param(pod(nodeSelector={"disk": "ssd"}), 0, None, id="selector-matches"),
        pytest.param(pod(nodeSelector={"disk": "hdd"}), 0, "NodeAffinity", id="selector-does-not"),
        pytest.param(pod(affinity=wants("In", "ssd")), 0, None, id="in"),
        pytest.param(pod(affinity=wants("NotIn", "ssd")), 0, "NodeAffinity", id="not-in"),
        pytest.param(pod(affinity=wants("Exists")), 0, None, id="exists"),
        pytest.param(pod(affinity=wants("DoesNotExist")), 0, "NodeAffinity", id="does-not-exist"),
        pytest.param(pod(affinity=wants("Gt", "3", key="size")), 0, None, id="greater"),
        pytest.param(pod(affinity=wants("Lt", "3", key="size")), 0, "NodeAffinity", id="less"),
        pytest.param(pod(affinity=wants("Gt", "x", key="size")), 0, "NodeAffinity", id="not-a-number"),
    ],
)
def test_admission(candidate: core_v1.Pod, others: int, reason: str | None) -> None:
    present = [pod(requests={"cpu": "1500m"} if others == 1 else {})] * others
    verdict = admit(candidate, present, {"disk": "ssd", "size": "5"}, "n", ROOM)
    assert (verdict.reason if verdict else None) == reason


def test_the_message_tells_the_numbers() -> None:
    verdict = admit(pod(requests={"cpu": "1"}), [pod(requests={"cpu": "1500m"})], {}, "n", ROOM)
    assert verdict is not None and verdict.message == (
        "Pod was rejected: Node didn't have enough resource: cpu, requested: 1000, used: 1500, capacity: 2000"
    )


def listening(port: int, ip: str = "", protocol: str = "TCP") -> dict[str, Any]:
    return {"name": "c", "ports": [{"containerPort": 1, "hostPort": port, "hostIP": ip, "protocol": protocol}]}


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        pytest.param({"containers": [listening(80)]}, "NodePorts", id="same port"),
        pytest.param({"containers": [listening(80, "127.0.0.1")]}, "NodePorts", id="one address against all"),
        pytest.param({"containers": [listening(81, "127.0.0.1")]}, "NodePorts", id="same address"),
        pytest.param({"containers": [listening(81, "127.0.0.2")]}, None, id="another address"),
        pytest.param({"containers": [listening(80, protocol="UDP")]}, None, id="another protocol"),
        pytest.param({"containers": [listening(82)]}, None, id="another port"),
        pytest.param(
            {"containers": [{"name": "c"}], "initContainers": [{**listening(80), "restartPolicy": "Always"}]},
            "NodePorts",
            id="sidecar",
        ),
        pytest.param(
            {"containers": [{"name": "c"}], "initContainers": [listening(80)]}, None, id="init containers pass by"
        ),
    ],
)
def test_host_ports_are_taken_once(candidate: dict[str, Any], reason: str | None) -> None:
    present = [{"containers": [listening(80), listening(81, "127.0.0.1")]}]
    wanted, *others = (
        msgspec.convert({"metadata": {"name": "p"}, "spec": each}, core_v1.Pod) for each in (candidate, *present)
    )
    verdict = admit(wanted, others, {}, "n", ROOM)
    assert (verdict.reason if verdict else None) == reason
