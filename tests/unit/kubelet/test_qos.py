"""QoS classes and what the kernel gets."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from api.models import core_v1
from kubelet import qos


def spec(*resources: dict[str, Any], **more: Any) -> core_v1.PodSpec:
    raw = {"containers": [{"name": f"c{i}", "resources": each} for i, each in enumerate(resources)], **more}
    return msgspec.convert(raw, core_v1.PodSpec)


FULL = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        pytest.param(spec({}), "BestEffort", id="nothing"),
        pytest.param(spec(FULL), "Guaranteed", id="equal"),
        pytest.param(spec(FULL, {}), "Burstable", id="one-without"),
        pytest.param(spec({"requests": {"cpu": "100m"}}), "Burstable", id="request-only"),
        pytest.param(spec({"limits": {"cpu": "1"}}), "Burstable", id="cpu-limit-only"),
        pytest.param(
            spec({**FULL, "requests": {"cpu": "1000m", "memory": "1024Mi"}}), "Guaranteed", id="other-spelling"
        ),
        pytest.param(spec({"requests": {"example.com/x": "1"}}), "BestEffort", id="extended-does-not-count"),
    ],
)
def test_qos_class(pod: core_v1.PodSpec, expected: str) -> None:
    assert qos.qos_class(pod) == expected


@pytest.mark.parametrize(
    ("tier", "expected"),
    [
        pytest.param("Guaranteed", "/m/kubepods/podu", id="guaranteed"),
        pytest.param("Burstable", "/m/kubepods/burstable/podu", id="burstable"),
        pytest.param("BestEffort", "/m/kubepods/besteffort/podu", id="besteffort"),
    ],
)
def test_cgroup_parent(tier: str, expected: str) -> None:
    assert qos.cgroup_parent("m", "u", tier) == expected


def test_container_resources() -> None:
    container = spec({"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}).containers[0]
    made = qos.container_resources(container, "Burstable", 2 << 30)
    assert (made.shares, made.quota, made.memory_limit) == (256, 50_000, 64 << 20)
    nothing = qos.container_resources(spec({}).containers[0], "BestEffort", 2 << 30)
    assert (nothing.shares, nothing.quota, nothing.memory_limit, nothing.oom_score_adj) == (2, 0, 0, 1000)


@pytest.mark.parametrize(
    ("tier", "request_bytes", "expected"),
    [
        pytest.param("Guaranteed", 1 << 30, -997, id="guaranteed"),
        pytest.param("BestEffort", 0, 1000, id="besteffort"),
        pytest.param("Burstable", 1 << 30, 500, id="half-the-node"),
        pytest.param("Burstable", 2 << 30, 3, id="all-of-it"),
        pytest.param("Burstable", 1, 999, id="hardly-anything"),
    ],
)
def test_oom_score(tier: str, request_bytes: int, expected: int) -> None:
    assert qos.oom_score_adj(tier, request_bytes, 2 << 30) == expected


def test_pod_requests_count_the_init_peak_sidecars_and_overhead() -> None:
    inits = [
        {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
        {"name": "init", "resources": {"requests": {"cpu": "2"}}},
    ]
    pod = spec({"requests": {"cpu": "1"}}, initContainers=inits, overhead={"cpu": "50m"})
    assert qos.pod_requests(pod, "cpu") == 2150


def test_pod_limits_need_a_limit_on_every_container() -> None:
    assert qos.pod_resources(spec(FULL, FULL), "Guaranteed").memory_limit == 2 << 30
    assert qos.pod_resources(spec(FULL, {}), "Burstable").memory_limit == 0
